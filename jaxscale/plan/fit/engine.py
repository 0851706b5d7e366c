"""Robust fitting of a form to runs: Huber loss on log residuals, many starts, L-BFGS, bootstrap and leave-out checks.

The objective is a sum, in double precision, with the derivative from jax: the mean, or finite differences, stop early
enough to move exponents in their second digit (as happened to Hoffmann et al.; Besiroglu et al. 2024, section 3).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from jaxscale.errors import MeasurementError
from jaxscale.plan.fit.forms import Array, Form, prepare

HUBER_DELTA = 1e-3  # Hoffmann et al., appendix D.3
_REFINED_STARTS = 16  # starts of least objective that L-BFGS continues from
_LEAST_MOVE = 1e-9  # of a scale-free parameter in one step; smaller ones end the descent
_BOOTSTRAP_STEPS = 80  # every draw starts at the fit of all runs; more steps leave the spread as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """How a run's error counts: Huber beyond `delta` (inf: least squares), on logs of losses or on losses."""

    delta: float = HUBER_DELTA
    logarithmic: bool = True


HUBER_ON_LOGS = Residual()  # as Hoffmann et al. fit
LEAST_SQUARES = Residual(delta=float("inf"), logarithmic=False)  # as Gadre et al. fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fitted form. `theta` are its scale-free parameters, `constants` those of the paper.

    `bootstrap` has one row of constants for each resampled fit (columns as `constants`), `residuals` are
    ln(loss) - ln(predicted).
    """

    form: Form
    theta: np.ndarray  # [parameters]
    constants: dict[str, float]
    objective: float
    residuals: np.ndarray  # [runs]
    columns: dict[str, Array]
    bootstrap: np.ndarray | None = None  # [draws, constants]

    @property
    def rms_log_error(self) -> float:
        """Root mean square of the log residuals."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    def interval(self, name: str, share: float = 0.95) -> tuple[float, float]:
        """Percentile bootstrap interval of a constant."""
        column = self._draws(name)
        low, high = np.quantile(column, [(1.0 - share) / 2.0, (1.0 + share) / 2.0])
        return float(low), float(high)

    def standard_error(self, name: str) -> float:
        """Standard deviation of a constant over the bootstrap."""
        return float(np.std(self._draws(name), ddof=1))

    def _draws(self, name: str) -> np.ndarray:
        if self.bootstrap is None:
            raise MeasurementError(f"fit of {self.form.name}: no bootstrap was drawn, so {name} has no interval")
        return self.bootstrap[:, list(self.constants).index(name)]

    def predict(self, params: Array, tokens: Array, **others: Array) -> np.ndarray:
        """Loss of other runs under this fit, nats/token."""
        columns = self.columns | {
            "params": np.asarray(params, dtype=float),
            "tokens": np.asarray(tokens, dtype=float),
            "x": np.log(params) - self.columns["ln_params_mean"],
            "y": np.log(tokens) - self.columns["ln_tokens_mean"],
            **others,
        }
        return np.exp(_evaluate(self.form, self.theta, columns))


def fit(
    form: Form,
    columns: Mapping[str, np.ndarray],
    *,
    how: Residual = HUBER_ON_LOGS,
    draws: int = 0,
    seed: int = 0,
) -> Fit:
    """Fit `form` to runs; `draws` bootstrap samples give intervals."""
    _require_enough(form, columns)
    ready = prepare(columns)
    weights = np.ones(len(columns["loss"]))
    screened = _screen(form, ready, how)
    thetas, values = _minimize(form, ready, screened, np.broadcast_to(weights, (len(screened), len(weights))), how)
    best = int(np.nanargmin(values))
    theta = thetas[best]
    bootstrap = _bootstrap(form, ready, theta, how, draws, seed) if draws else None
    return Fit(
        form=form,
        theta=theta,
        constants=form.constants(theta, ready),
        objective=float(values[best]),
        residuals=np.log(columns["loss"]) - _evaluate(form, theta, ready),
        columns=ready,
        bootstrap=bootstrap,
    )


def leave_out_largest(
    form: Form, columns: Mapping[str, np.ndarray], share: float = 0.2, how: Residual = HUBER_ON_LOGS
) -> dict[str, float]:
    """Fit without the runs of most compute and predict them: the check that extrapolation depends on.

    Returns the number held out, their mean and largest relative error of loss, and by how much each constant moved.
    """
    flops = 6.0 * columns["params"] * columns["tokens"]
    held = flops >= np.quantile(flops, 1.0 - share)
    if held.all() or not held.any():
        raise MeasurementError("leave-out check: all runs have the same compute, so none can be held out")
    kept = fit(form, {name: np.asarray(column)[~held] for name, column in columns.items()}, how=how)
    others = {k: v[held] for k, v in columns.items() if k not in ("params", "tokens", "loss")}
    predicted = kept.predict(columns["params"][held], columns["tokens"][held], **others)
    error = predicted / columns["loss"][held] - 1.0
    return {
        "held_out": float(held.sum()),
        "mean_relative_error": float(np.mean(error)),
        "largest_relative_error": float(np.max(np.abs(error))),
        **{f"without_{name}": value for name, value in kept.constants.items()},
    }


def objective_of(form: Form, theta_constants: Mapping[str, float], columns: Mapping[str, np.ndarray]) -> float:
    """Huber objective of published chinchilla constants on runs; how far rounding them moves off the optimum."""
    k = theta_constants
    predicted = k["E"] + k["A"] / columns["params"] ** k["alpha"] + k["B"] / columns["tokens"] ** k["beta"]
    return float(np.sum(_huber(np.log(columns["loss"]) - np.log(predicted), HUBER_DELTA)))


def _huber(residual: Array, delta: float) -> Array:
    size = abs(residual)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def _require_enough(form: Form, columns: Mapping[str, np.ndarray]) -> None:
    missing = [name for name in form.columns if name not in columns]
    if missing:
        raise MeasurementError(f"fit of {form.name}: the runs have no column {', '.join(missing)}")
    runs = len(columns["loss"])
    if runs <= len(form.parameters):
        raise MeasurementError(f"fit of {form.name}: {runs} runs cannot determine {len(form.parameters)} parameters")
    for name in form.columns:
        values = np.asarray(columns[name], dtype=float)
        if not np.all(np.isfinite(values) & (values > 0)):
            raise MeasurementError(f"fit of {form.name}: column {name} has values that are not above zero")
    for name in ("params", "tokens"):
        if np.ptp(np.log(columns[name])) < 1e-9:
            raise MeasurementError(f"fit of {form.name}: all runs have the same {name}, so its exponent is unknown")


def _residual_cost(form: Form, how: Residual, theta: Array, weights: Array, columns: Mapping[str, Array]) -> Array:
    """The objective: weighted Huber (or square) of the residuals, summed over runs."""
    import jax.numpy as jnp

    log_loss = form.predict(theta, columns)
    loss = columns["loss"]
    residual = jnp.log(loss) - log_loss if how.logarithmic else loss - jnp.exp(log_loss)
    if np.isinf(how.delta):
        return jnp.sum(weights * 0.5 * residual**2)
    size = jnp.abs(residual)
    quadratic = jnp.minimum(size, how.delta)
    return jnp.sum(weights * (0.5 * quadratic**2 + how.delta * (size - quadratic)))


def _evaluate(form: Form, theta: np.ndarray, columns: Mapping[str, Array]) -> np.ndarray:
    import jax

    with jax.enable_x64(True):
        return np.asarray(form.predict(np.asarray(theta, dtype=float), columns))


def _screen(form: Form, columns: dict[str, Array], how: Residual) -> np.ndarray:
    """The starts of least objective; a wide grid costs nothing to look at and much to descend from."""
    import jax

    starts = form.starts(columns).astype(float)
    weights = np.ones(len(columns["loss"]))
    with jax.enable_x64(True):
        values = np.asarray(jax.vmap(lambda theta: _residual_cost(form, how, theta, weights, columns))(starts))
    order = np.argsort(np.where(np.isfinite(values), values, np.inf))
    return starts[order[:_REFINED_STARTS]]


def _minimize(
    form: Form, columns: dict[str, Array], starts: np.ndarray, weights: np.ndarray, how: Residual, steps: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """L-BFGS from every start at once, each with its own run weights: parameters [starts, p], objectives [starts]."""
    import jax

    with jax.enable_x64(True):
        descend = _descender(form, how, steps)
        thetas, values = descend(np.array(starts, dtype=float), np.array(weights, dtype=float), columns)
        return np.asarray(thetas), np.asarray(values)


@functools.cache
def _descender(form: Form, how: Residual, steps: int) -> Callable[..., tuple[Array, Array]]:
    """The compiled descent, kept so that fits of the same form and size do not compile again."""
    import jax
    import jax.numpy as jnp
    import optax

    solver = optax.lbfgs(memory_size=12, linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=24))

    def descend(theta: Array, weights: Array, columns: dict[str, Array]) -> tuple[Array, Array]:
        def value(candidate: Array) -> Array:
            return _residual_cost(form, how, candidate, weights, columns)

        value_and_grad = optax.value_and_grad_from_state(value)

        def step(carry: tuple) -> tuple:
            theta, state, index, _ = carry
            loss, gradient = value_and_grad(theta, state=state)
            updates, state = solver.update(gradient, state, theta, value=loss, grad=gradient, value_fn=value)
            moved = optax.apply_updates(theta, updates)
            return moved, state, index + 1, jnp.max(jnp.abs(moved - theta))

        def unfinished(carry: tuple) -> Array:
            _, _, index, change = carry
            return (index < steps) & (change > _LEAST_MOVE)

        theta, _, _, _ = jax.lax.while_loop(unfinished, step, (theta, solver.init(theta), 0, jnp.array(1.0)))
        return theta, value(theta)

    return jax.jit(jax.vmap(descend, in_axes=(0, 0, None)))


def _bootstrap(
    form: Form, columns: dict[str, Array], theta: np.ndarray, how: Residual, draws: int, seed: int
) -> np.ndarray:
    """Constants of fits to runs drawn with replacement, [draws, constants]; each starts at the fit of all runs."""
    generator = np.random.default_rng(seed)
    runs = len(columns["loss"])
    weights = generator.multinomial(runs, np.full(runs, 1.0 / runs), size=draws)
    starts = np.broadcast_to(theta, (draws, len(theta)))
    thetas, _ = _minimize(form, columns, starts, weights, how, steps=_BOOTSTRAP_STEPS)
    return np.array([list(form.constants(row, columns).values()) for row in thetas])
