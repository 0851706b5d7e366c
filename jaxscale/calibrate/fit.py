"""Maximum a posteriori fit of a stack's constants to measured runs, by gradient through the cost model itself.

Minimises, over the constants x on their unbounded scale,

    sum_i w_i rho(log(predicted_i(x) / measured_i) / noise) + sum_j ((x_j - centre_j) / spread_j)^2

rho is the pseudo-Huber loss: quadratic for errors within the noise, linear beyond, so that a run disturbed by something
that its table does not tell has bounded influence. The Jacobian comes from jax, forward mode, through the same
functions that price layouts for a search. Intervals are Laplace's: the inverse of J'J at the optimum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxscale.calibrate.calibration import Calibration, Fitted
from jaxscale.calibrate.constants import CONSTANTS, Constant
from jaxscale.calibrate.run import Run
from jaxscale.calibrate.table import blocks, estimates, with_constants

NOISE = 0.03  # of log step time: what two identical jobs on different nodes differ by
NORMAL_80 = 1.2816
MAX_EVALUATIONS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Constants at the optimum, [k] on the fitted scale, with their covariance [k, k]."""

    constants: tuple[Constant, ...]
    free: np.ndarray
    covariance: np.ndarray

    def fitted(self) -> dict[str, Fitted]:
        """Values and intervals in each constant's unit."""
        spreads = np.sqrt(np.diag(self.covariance))
        return {
            c.name: Fitted(
                value=float(c.value(x)), low=float(c.value(x - NORMAL_80 * s)), high=float(c.value(x + NORMAL_80 * s)),
                spread=float(s),
            )
            for c, x, s in zip(self.constants, self.free, spreads, strict=True)
        }  # fmt: skip


def robust(error: Any, xp: Any) -> Any:
    """Residual whose square is the pseudo-Huber loss of `error`: smooth, and linear beyond one."""
    return error * xp.sqrt(2.0 / (1.0 + xp.sqrt(1.0 + error * error)))


def free_constants(runs: Sequence[Run], part: str) -> tuple[Constant, ...]:
    """Constants that apply to at least one run."""
    kinds = {run.software for run in runs}
    return tuple(c for c in CONSTANTS if c.part == part and any(c.applies(software) for software in kinds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a fit minimises; residuals are [n] for the rows it was built from, of which `weights` may leave some out."""

    constants: tuple[Constant, ...]
    centres: np.ndarray  # of the priors, on the fitted scale
    widths: np.ndarray
    log_errors: Callable[[np.ndarray], np.ndarray]  # log(predicted / measured)
    residuals: Callable[[Any, Any, Any], Any]  # of (constants, weights, array namespace)
    slopes: Callable[[Any, Any], Any]  # Jacobian of the residuals, compiled


def times_objective(
    runs: Sequence[Run],
    start: Calibration,
    spreads: Callable[[Constant], float] | None = None,
    *,
    noise: float = NOISE,
) -> Objective:
    """Errors of predicted step times. `start` gives the priors' centres; all of `runs` are timed.

    `noise` is the standard deviation that is expected of one log error.
    """
    constants = free_constants(runs, "time")
    table = blocks(runs, lambda run: start.stack_for(run.software))
    measured_s = np.array([run.step_time_s for run in runs])
    masks = {c.name: np.array([c.applies(run.software) for run in runs]) for c in constants}
    order = np.argsort(np.concatenate([block.rows for block in table]))

    def log_errors(free: Any, xp: Any = np) -> Any:
        values = {c: c.value(free[j], xp) for j, c in enumerate(constants)}
        pieces = [estimates(with_constants(block, values, masks, xp)).step_time_s for block in table]
        return xp.log(xp.concatenate(pieces)[order] / measured_s)

    def residuals(free: Any, weights: Any, xp: Any) -> Any:
        return weights * robust(log_errors(free, xp) / noise, xp)

    return objective(log_errors, residuals, constants, start, spreads)


def objective(
    log_errors: Callable[[Any], Any],
    residuals: Callable[[Any, Any, Any], Any],
    constants: tuple[Constant, ...],
    start: Calibration,
    spreads: Callable[[Constant], float] | None = None,
) -> Objective:
    """Join residuals and priors; the Jacobian is compiled once and serves every subset of rows."""
    import jax
    from jax import numpy as jnp

    quick = {"xla_backend_optimization_level": 0}  # run a few dozen times: compiling costs more than running
    slopes = jax.jit(jax.jacfwd(lambda free, weights: residuals(free, weights, jnp)), compiler_options=quick)
    return Objective(
        constants=constants,
        centres=np.array([c.free(start.value(c)) for c in constants]),
        widths=np.array([spreads(c) if spreads else c.spread for c in constants]),
        log_errors=log_errors,
        residuals=residuals,
        slopes=slopes,
    )


def maximise(goal: Objective, weights: np.ndarray) -> Posterior:
    """Find the constants of highest posterior density given runs of these weights."""
    import jax
    from scipy.optimize import least_squares

    root = np.sqrt(weights)

    def values(free: np.ndarray) -> np.ndarray:
        return np.concatenate([goal.residuals(free, root, np), (free - goal.centres) / goal.widths])

    def jacobian(free: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            slopes = np.asarray(goal.slopes(free, root))
        return np.concatenate([slopes, np.diag(1.0 / goal.widths)])

    found = least_squares(values, goal.centres, jac=jacobian, x_scale=goal.widths, max_nfev=MAX_EVALUATIONS)
    return Posterior(constants=goal.constants, free=found.x, covariance=np.linalg.inv(found.jac.T @ found.jac))
