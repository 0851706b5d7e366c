"""One set of constants for all measured stacks together: what is believed of a stack that nobody measured.

Minimises, over constants x on their unbounded scale that every stack shares,

    sum_s sum_i w_si rho(log(predicted_si(x + shift_s) / measured_si) / noise) + sum_j ((x_j - centre_j) / spread_j)^2

`shift_s` moves shares of peak to the generation of chips of stack s, as far as microbenchmarks of the two chips differ
(`generations.moved`). The weights of a stack's runs sum to their number, at most `MOST_WEIGHT`, so that one large table
does not speak for all; `noise` is what the kernels of one stack change of a step, far more than a run's own scatter.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.calibrate.calibration import Calibration, Fitted
from jaxscale.calibrate.constants import CONSTANTS
from jaxscale.calibrate.fit import MAX_EVALUATIONS, NORMAL_80, Objective, times_objective
from jaxscale.calibrate.generations import REFERENCE, prior_on
from jaxscale.calibrate.held_out import counts_by_group, timed
from jaxscale.calibrate.run import Run

ANY_STACK = "any"
NOISE = 0.08  # of log step time
MOST_WEIGHT = 12.0

Key = tuple[str, str]  # stack, generation of chips


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The timed runs of one stack on one generation of chips."""

    runs: tuple[Run, ...]
    goal: Objective
    weights: np.ndarray  # [n]
    places: np.ndarray  # of the goal's constants among CONSTANTS, [k]
    shift: np.ndarray  # from the shared constants to those of its chips, on the fitted scale, [k]

    def local(self, shared: np.ndarray) -> np.ndarray:
        """Its own constants for the shared ones, [k]."""
        return shared[self.places] + self.shift

    def log_errors(self, shared: np.ndarray) -> np.ndarray:
        """log(predicted / measured) of its runs, [n]."""
        return self.goal.log_errors(self.local(shared))


def measured_stacks(runs: Sequence[Run]) -> dict[Key, Measured]:
    """Group timed runs by stack and chip; runs on TPUs are left out, where one compiler makes all programs."""
    groups: dict[Key, list[Run]] = {}
    for run in timed(runs):
        if run.cluster.chip.kind == "gpu":
            groups.setdefault((run.software.stack, run.chip), []).append(run)
    return {key: _measured(key, groups[key]) for key in sorted(groups)}


def _measured(key: Key, runs: Sequence[Run]) -> Measured:
    goal = times_objective(runs, prior_on(*key), noise=NOISE)
    weights = np.array([run.weight for run in runs])
    return Measured(
        runs=tuple(runs), goal=goal, weights=weights * (min(MOST_WEIGHT, len(runs)) / weights.sum()),
        places=np.array([CONSTANTS.index(constant) for constant in goal.constants]),
        shift=goal.centres - np.array([constant.free(constant.centre) for constant in goal.constants]),
    )  # fmt: skip


def fit_shared(stacks: Collection[Measured]) -> np.ndarray:
    """The constants of highest posterior density that all of `stacks` share, [len(CONSTANTS)] on the fitted scale."""
    import jax
    from scipy.optimize import least_squares

    centres = np.array([constant.free(constant.centre) for constant in CONSTANTS])
    widths = np.array([constant.spread for constant in CONSTANTS])

    def values(shared: np.ndarray) -> np.ndarray:
        rows = [stack.goal.residuals(stack.local(shared), np.sqrt(stack.weights), np) for stack in stacks]
        return np.concatenate([*rows, (shared - centres) / widths])

    def jacobian(shared: np.ndarray) -> np.ndarray:
        rows = []
        for stack in stacks:
            with jax.enable_x64(True):
                slopes = np.asarray(stack.goal.slopes(stack.local(shared), np.sqrt(stack.weights)))
            wide = np.zeros((len(slopes), len(CONSTANTS)))
            wide[:, stack.places] = slopes
            rows.append(wide)
        return np.concatenate([*rows, np.diag(1.0 / widths)])

    return least_squares(values, centres, jac=jacobian, x_scale=widths, max_nfev=MAX_EVALUATIONS).x


def leave_stacks_out(stacks: Mapping[Key, Measured]) -> dict[Key, np.ndarray]:
    """Log errors of every stack with constants of the others; a stack is left out on all of its chips together."""
    errors: dict[Key, np.ndarray] = {}
    for name in sorted({stack for stack, _ in stacks}):
        shared = fit_shared([measured for key, measured in stacks.items() if key[0] != name])
        errors |= {key: measured.log_errors(shared) for key, measured in stacks.items() if key[0] == name}
    return errors


def pooled_calibration(stacks: Mapping[Key, Measured], left_out: Mapping[Key, np.ndarray]) -> Calibration:
    """The shared constants as a calibration, with the spread of errors on stacks `left_out`, each counting the same.

    A constant is as uncertain as its prior: it says what stacks have in common, not what the next one does.
    """
    shared = fit_shared(list(stacks.values()))
    fitted = {}
    for constant, free in zip(CONSTANTS, shared.tolist(), strict=True):
        if constant.part == "time":
            low, high = (constant.value(free + side * NORMAL_80 * constant.spread) for side in (-1.0, 1.0))
            fitted[constant.name] = Fitted(value=constant.value(free), low=low, high=high, spread=constant.spread)
    medians = [np.median(np.abs(errors)) for errors in left_out.values()]
    tails = [np.quantile(np.abs(errors), 0.9) for errors in left_out.values()]
    rows = counts_by_group([run for measured in stacks.values() for run in measured.runs])
    held = {"left_out": "stack", "median": round(float(np.mean(medians)), 3), "p90": round(float(np.mean(tails)), 3)}
    return Calibration(
        stack=ANY_STACK, chip=REFERENCE, fitted=fitted,
        sigma_log=round(_end_of_80(list(left_out.values())) / NORMAL_80, 4),
        provenance={"rows": rows, "held_out": held, "note": "of other stacks, none of this one"},
    )  # fmt: skip


def _end_of_80(errors: Sequence[np.ndarray]) -> float:
    """The absolute error that 80% of runs stay below, where every stack counts the same."""
    shares = np.concatenate([np.full(len(of_stack), 1.0 / len(of_stack)) for of_stack in errors])
    return float(np.quantile(np.abs(np.concatenate(errors)), 0.8, weights=shares, method="inverted_cdf"))
