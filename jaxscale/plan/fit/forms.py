"""Functional forms that can be fitted: how a loss follows from a run, with parameters free of scale.

Every form is written in centred logarithms (x = ln N less its mean, y = ln D less its mean), where its parameters are
hardly correlated and of order one; `constants` turns them into those of the paper. `predict` is jax code.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxscale.plan.laws.dense import Additive

Array = Any  # a jax or numpy array
Columns = Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One functional form. `columns` are needed of the data; `predict(theta, columns)` returns log loss [runs]."""

    name: str
    formula: str
    source: str
    columns: tuple[str, ...]
    parameters: tuple[str, ...]
    predict: Callable[[Array, Columns], Array]
    starts: Callable[[Columns], np.ndarray]
    constants: Callable[[np.ndarray, Columns], dict[str, float]]


def prepare(columns: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Add the centred logarithms that forms work in."""
    ready: dict[str, Array] = dict(columns)
    ready["ln_params_mean"] = float(np.mean(np.log(columns["params"])))
    ready["ln_tokens_mean"] = float(np.mean(np.log(columns["tokens"])))
    ready["x"] = np.log(columns["params"]) - ready["ln_params_mean"]
    ready["y"] = np.log(columns["tokens"]) - ready["ln_tokens_mean"]
    return ready


def _scale(columns: Columns) -> float:
    return float(np.median(columns["loss"]))


def _grid(*axes: tuple[float, ...]) -> np.ndarray:
    return np.array(list(itertools.product(*axes)))


_RUNS = ("params", "tokens", "loss")


# Chinchilla: theta = (a', b', e, alpha, beta) with A/N^alpha = exp(a' - alpha x).


def _additive_log(terms: list[Array]) -> Array:
    import jax.numpy as jnp

    return jnp.logaddexp(jnp.logaddexp(terms[0], terms[1]), terms[2])


def _chinchilla(theta: Array, columns: Columns) -> Array:
    a, b, e, alpha, beta = theta
    x, y = columns["x"], columns["y"]
    return _additive_log([a - alpha * x, b - beta * y, e + 0.0 * x])


def _chinchilla_starts(columns: Columns) -> np.ndarray:
    level = math.log(_scale(columns))
    shares = (level - 1.5, level - 0.7)
    return _grid(shares, shares, (level - 1.5, level - 0.5), (0.1, 0.3, 0.6, 1.0), (0.1, 0.3, 0.6, 1.0))


def _chinchilla_constants(theta: np.ndarray, columns: Columns) -> dict[str, float]:
    a, b, e, alpha, beta = (float(value) for value in theta)
    return {
        "E": math.exp(e),
        "A": math.exp(a + alpha * columns["ln_params_mean"]),
        "B": math.exp(b + beta * columns["ln_tokens_mean"]),
        "alpha": alpha,
        "beta": beta,
        "a": beta / (alpha + beta),
    }


# With one more exponent k on the reducible part (Skaling 2026): k = 1 is Chinchilla.


def _powered(theta: Array, columns: Columns) -> Array:
    import jax.numpy as jnp

    a, b, e, alpha, beta, k = theta
    reducible = k * jnp.logaddexp(a - alpha * columns["x"], b - beta * columns["y"])
    return jnp.logaddexp(reducible, e)


def _powered_starts(columns: Columns) -> np.ndarray:
    base = _chinchilla_starts(columns)
    return np.concatenate([np.column_stack([base, np.full(len(base), k)]) for k in (0.5, 1.0)])


def _powered_constants(theta: np.ndarray, columns: Columns) -> dict[str, float]:
    return _chinchilla_constants(theta[:5], columns) | {"k": float(theta[5])}


# Kaplan: L = [(Nc/N)^(aN/aD) + Dc/D]^aD; theta = (n, d, ln aN, ln aD) with (Nc/N)^(aN/aD) = exp(n - aN/aD x).


def _kaplan(theta: Array, columns: Columns) -> Array:
    import jax.numpy as jnp

    n, d, log_alpha_n, log_alpha_d = theta
    alpha_n, alpha_d = jnp.exp(log_alpha_n), jnp.exp(log_alpha_d)
    return alpha_d * jnp.logaddexp(n - alpha_n / alpha_d * columns["x"], d - columns["y"])


def _kaplan_starts(columns: Columns) -> np.ndarray:
    logs = (math.log(0.05), math.log(0.1), math.log(0.3))
    level = math.log(_scale(columns))
    return np.array([(level / math.exp(d), level / math.exp(d), n, d) for n, d in itertools.product(logs, logs)])


def _kaplan_constants(theta: np.ndarray, columns: Columns) -> dict[str, float]:
    n, d = float(theta[0]), float(theta[1])
    alpha_n, alpha_d = math.exp(theta[2]), math.exp(theta[3])
    return {
        "alpha_N": alpha_n,
        "alpha_D": alpha_d,
        "N_c": math.exp(min(700.0, n * alpha_d / alpha_n + columns["ln_params_mean"])),
        "D_c": math.exp(min(700.0, d + columns["ln_tokens_mean"])),
    }


# Repeated data: Chinchilla on effective parameters and tokens; theta adds ln R_D* and ln R_N*, and alpha = beta.


def _effective(amount: Array, unique: Array, r_star: Array) -> Array:
    import jax.numpy as jnp

    used = jnp.minimum(amount, unique)
    return used + used * r_star * -jnp.expm1(-(amount / used - 1.0) / r_star)


def _datablations(theta: Array, columns: Columns) -> Array:
    import jax.numpy as jnp

    a, b, e, alpha, r_tokens, r_params = theta
    params_mean, tokens_mean = columns["ln_params_mean"], columns["ln_tokens_mean"]
    # The size that the unique tokens would deserve, at the law being fitted: A/N^alpha = B/D^alpha there.
    matched = jnp.exp(jnp.log(columns["unique_tokens"]) - tokens_mean + (a - b) / alpha + params_mean)
    params = _effective(columns["params"], matched, jnp.exp(r_params))
    tokens = _effective(columns["tokens"], columns["unique_tokens"], jnp.exp(r_tokens))
    x, y = jnp.log(params) - params_mean, jnp.log(tokens) - tokens_mean
    return _additive_log([a - alpha * x, b - alpha * y, e + 0.0 * x])


def _datablations_starts(columns: Columns) -> np.ndarray:
    level = math.log(_scale(columns))
    share = (level - 1.5, level - 0.7)
    decay = (math.log(3.0), math.log(15.0))
    return _grid(share, share, (level - 1.5, level - 0.5), (0.2, 0.35, 0.6), decay, decay)


def _datablations_constants(theta: np.ndarray, columns: Columns) -> dict[str, float]:
    a, b, e, alpha, r_tokens, r_params = (float(value) for value in theta)
    base = _chinchilla_constants(np.array([a, b, e, alpha, alpha]), columns)
    return base | {"R_D": math.exp(min(700.0, r_tokens)), "R_N": math.exp(min(700.0, r_params))}


def _fixed_base(base: Additive) -> Callable[[Array, Columns], Array]:
    def predict(theta: Array, columns: Columns) -> Array:
        import jax.numpy as jnp

        params_mean, tokens_mean = columns["ln_params_mean"], columns["ln_tokens_mean"]
        a = math.log(base.A) - base.alpha * params_mean
        b = math.log(base.B) - base.beta * tokens_mean
        full = jnp.array([a, b, math.log(base.E), base.alpha, theta[0], theta[1]])
        return theta[2] + _datablations(full, columns)

    return predict


def repetition_decay(base: Additive) -> Form:
    """The two decay constants of repetition alone, on a base law with alpha = beta that runs on fresh data gave.

    Muennighoff et al. 2023 fit in these two stages (appendix A): together, few runs cannot tell E from the decay. A
    factor on the loss is fitted too, for a base law of other data.
    """
    decay = tuple(math.log(epochs) for epochs in (1.0, 5.0, 15.0, 40.0))
    return Form(
        name="datablations_decay",
        formula="L = s (E + A/N'^alpha + B/D'^alpha), base fixed",
        source="Muennighoff et al. 2023, appendix A",
        columns=(*_RUNS, "unique_tokens"),
        parameters=("ln_R_D", "ln_R_N", "ln_s"),
        predict=_fixed_base(base),
        starts=lambda columns: _grid(decay, decay, (0.0, 0.1)),
        constants=lambda theta, columns: dict(zip(("R_D", "R_N", "s"), np.exp(theta).tolist(), strict=True)),
    )


# Gadre: L = E + (a M^eta + b M^-eta) C^-eta; in logs M^eta C^-eta = (6 N^2)^-eta and M^-eta C^-eta = (6 D^2)^-eta.


def _gadre(theta: Array, columns: Columns) -> Array:
    a, b, e, eta = theta
    return _additive_log([a - 2.0 * eta * columns["x"], b - 2.0 * eta * columns["y"], e + 0.0 * columns["x"]])


def _gadre_starts(columns: Columns) -> np.ndarray:
    level = math.log(_scale(columns))
    share = (level - 1.5, level - 0.7)
    return _grid(share, share, (level - 1.5, level - 0.5), (0.05, 0.12, 0.25))


def _gadre_constants(theta: np.ndarray, columns: Columns) -> dict[str, float]:
    a, b, e, eta = (float(value) for value in theta)
    log_six = math.log(6.0)
    return {
        "E": math.exp(e),
        "a": math.exp(a + eta * (2.0 * columns["ln_params_mean"] + log_six)),
        "b": math.exp(b + eta * (2.0 * columns["ln_tokens_mean"] + log_six)),
        "eta": eta,
    }


# Farseer: L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E), with N and D over their geometric means.


def _farseer(theta: Array, columns: Columns) -> Array:
    import jax.numpy as jnp

    s, q, big_s, big_b, b, big_q, big_a, a, big_e = theta
    x, y = columns["x"], columns["y"]
    limit = s * jnp.exp(q * x) + big_s
    reducible = big_b * jnp.exp(b * x) + big_q - jnp.exp(big_a * jnp.exp(a * x) + big_e) * y
    return jnp.logaddexp(limit, reducible)


def _farseer_starts(columns: Columns) -> np.ndarray:
    level = math.log(_scale(columns))
    return _grid(
        (0.1, 0.5), (-0.1, -0.3), (level - 0.5,), (0.1, 0.5), (-0.1, 0.1), (level - 1.5,), (0.1,), (-0.1, 0.1), (-1.2,)
    )  # fmt: skip


def _farseer_constants(theta: np.ndarray, columns: Columns) -> dict[str, float]:
    names = ("s", "q", "S", "B", "b", "Q", "A", "a", "E")
    means = {"N0": math.exp(columns["ln_params_mean"]), "D0": math.exp(columns["ln_tokens_mean"])}
    return dict(zip(names, map(float, theta), strict=True)) | means


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            name="chinchilla",
            formula="L = E + A/N^alpha + B/D^beta",
            source="Hoffmann et al. 2022, eq. 2; a = beta/(alpha+beta)",
            columns=_RUNS,
            parameters=("a", "b", "e", "alpha", "beta"),
            predict=_chinchilla,
            starts=_chinchilla_starts,
            constants=_chinchilla_constants,
        ),
        Form(
            name="skaling",
            formula="L = E + (A/N^alpha + B/D^beta)^k",
            source="Chinchilla with an exponent on the reducible loss",
            columns=_RUNS,
            parameters=("a", "b", "e", "alpha", "beta", "k"),
            predict=_powered,
            starts=_powered_starts,
            constants=_powered_constants,
        ),
        Form(
            name="kaplan",
            formula="L = [(Nc/N)^(alpha_N/alpha_D) + Dc/D]^alpha_D",
            source="Kaplan et al. 2020, eq. 1.5",
            columns=_RUNS,
            parameters=("n", "d", "ln_alpha_N", "ln_alpha_D"),
            predict=_kaplan,
            starts=_kaplan_starts,
            constants=_kaplan_constants,
        ),
        Form(
            name="datablations",
            formula="L = E + A/N'^alpha + B/D'^alpha on effective N', D'",
            source="Muennighoff et al. 2023, eq. 7",
            columns=(*_RUNS, "unique_tokens"),
            parameters=("a", "b", "e", "alpha", "ln_R_D", "ln_R_N"),
            predict=_datablations,
            starts=_datablations_starts,
            constants=_datablations_constants,
        ),
        Form(
            name="gadre",
            formula="L = E + (a M^eta + b M^-eta) C^-eta, M = D/N",
            source="Gadre et al. 2024, eq. 4",
            columns=_RUNS,
            parameters=("a", "b", "e", "eta"),
            predict=_gadre,
            starts=_gadre_starts,
            constants=_gadre_constants,
        ),
        Form(
            name="farseer",
            formula="L = exp(s N^q + S) + exp(B N^b + Q) D^-exp(A N^a + E)",
            source="Farseer 2025 (arXiv 2506.10972); N and D over their geometric means",
            columns=_RUNS,
            parameters=("s", "q", "S", "B", "b", "Q", "A", "a", "E"),
            predict=_farseer,
            starts=_farseer_starts,
            constants=_farseer_constants,
        ),
    )
}
