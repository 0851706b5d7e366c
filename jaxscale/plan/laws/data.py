"""When data are scarce, and how large a vocabulary should be: laws about tokens rather than parameters.

Muennighoff et al. 2023 (arXiv 2305.16264): repeated tokens and excess parameters lose value exponentially. Made to
compare allocations: its absolute loss lies 6 to 9% under measured C4 loss at 2.8 to 8.7 billion parameters.
Tao et al. 2024 (arXiv 2407.13623): the vocabulary that training compute deserves, by three approaches.
"""

import math
from typing import Any

import numpy as np

from jaxscale.plan.law import Law, Number, Point
from jaxscale.plan.laws.dense import Additive

# Muennighoff et al.: unrounded constants of the authors' repository.
MUENNIGHOFF = Additive(
    E=math.exp(0.6254804), A=math.exp(6.255414), B=math.exp(7.3049974), alpha=0.3526596, beta=0.3526596
)
R_STAR_TOKENS = 15.387756  # R_D*: epochs of repetition over which a repeated token's value decays
R_STAR_PARAMS = 5.309743  # R_N*


def effective_tokens(tokens: Number, unique_tokens: Number, r_star: float = R_STAR_TOKENS) -> Number:
    """Fresh tokens worth as much as `tokens` drawn from `unique_tokens` (eq. 5).

    >>> float(round(effective_tokens(4e9, 1e9) / 4e9, 3))
    0.931
    """
    repeats = np.maximum(tokens / unique_tokens - 1.0, 0.0)
    return np.minimum(tokens, unique_tokens) + unique_tokens * r_star * -np.expm1(-repeats / r_star)


def effective_params(params: Number, unique_tokens: Number, r_star: float = R_STAR_PARAMS) -> Number:
    """Parameters of use when only `unique_tokens` exist (eq. 6): U_N + U_N R_N* (1 - exp(-R_N / R_N*)).

    U_N is the size that would be compute-optimal for the unique tokens.
    """
    matched = np.minimum(params, params_for_tokens(unique_tokens))
    excess = params / matched - 1.0
    return matched + matched * r_star * -np.expm1(-excess / r_star)


def params_for_tokens(tokens: Number) -> Number:
    """Compute-optimal parameters for that many fresh tokens: one for 19.6 tokens, as alpha = beta."""
    law = MUENNIGHOFF
    balance = (law.alpha * law.A / (law.beta * law.B)) ** (1.0 / (law.alpha + law.beta))
    return balance**2.0 * tokens


def repeated_loss(params: Number, tokens: Number, unique_tokens: Number) -> Number:
    """L(N, D, U) in nats/token (eq. 7).

    >>> round(float(repeated_loss(6.34e9, 242e9, 25e9)), 6)
    2.225644
    """
    return MUENNIGHOFF.loss(effective_params(params, unique_tokens), effective_tokens(tokens, unique_tokens))


def repeated_optimum(flops: float, unique_tokens: float, points: int = 4001) -> tuple[float, float]:
    """Parameters and tokens of least loss at C = 6ND when only `unique_tokens` exist; a scan over log N."""
    centre, _ = MUENNIGHOFF.optimum(flops)
    params = centre * np.logspace(-2.5, 1.5, points)
    losses = repeated_loss(params, flops / (6.0 * params), unique_tokens)
    best = float(params[int(np.argmin(losses))])
    return best, flops / (6.0 * best)


# Tao et al.: tokens per character of a vocabulary V <= 200,000 (utils.py of the authors' repository).
_TOKENS_PER_CHARACTER = (0.00639222, -0.15811069, 1.20470122)
# Width by non-vocabulary parameters, as the authors assume it: (up to this many, d_model).
_WIDTHS = (
    (5e7, 512), (2e8, 768), (5e8, 1024), (1e9, 1536), (2e9, 2048), (5e9, 3200), (1e10, 4096), (2e10, 5120),
    (5e10, 6048), (1e11, 8192), (2e11, 12288), (5e11, 16384), (1e12, 20480), (math.inf, 24576),
)  # fmt: skip
# Approach 1: ln of N_nv / C^0.5, of N_v / C^0.4164 and of H / C^0.5.
_LN_NON_VOCABULARY, _LN_VOCABULARY, _LN_CHARACTERS = -2.4846510161625193, -1.589031299255507, 1.85959
_VOCABULARY_EXPONENT = 0.4163622634135234


def tokens_per_character(vocabulary: Number) -> Number:
    """Tokens that one character takes with a vocabulary of that size; flat above 200,000."""
    log = np.log(np.minimum(vocabulary, 200_000))
    a, b, c = _TOKENS_PER_CHARACTER
    return a * log**2 + b * log + c


def vocabulary_width(non_vocabulary_params: float) -> int:
    """The model width that the authors assume for a size; it turns vocabulary parameters into a vocabulary."""
    return next(width for limit, width in _WIDTHS if non_vocabulary_params <= limit)


def vocabulary_optimal_flops(non_vocabulary_params: Number) -> Number:
    """Training compute at which that many non-vocabulary parameters are optimal: N_nv = 0.08336 C^0.5."""
    return (non_vocabulary_params / math.exp(_LN_NON_VOCABULARY)) ** 2.0


def vocabulary_params(flops: Number) -> tuple[Number, Number, Number]:
    """Approach 1 at a compute budget: optimal non-vocabulary parameters, vocabulary parameters and characters."""
    return (
        math.exp(_LN_NON_VOCABULARY) * flops**0.5,
        math.exp(_LN_VOCABULARY) * flops**_VOCABULARY_EXPONENT,
        math.exp(_LN_CHARACTERS) * flops**0.5,
    )


def vocabulary_isoflops(non_vocabulary_params: float, width: int = 0) -> int:
    """Approach 1, isoFLOP minima: vocabulary size; `width=0` takes the authors' width for the size.

    >>> vocabulary_isoflops(7e9)
    62280
    """
    params = int(vocabulary_params(vocabulary_optimal_flops(non_vocabulary_params))[1])
    return int(params / (width or vocabulary_width(non_vocabulary_params)))


def vocabulary_derivative(non_vocabulary_params: float, width: int = 0) -> int:
    """Approach 2, derivative of FLOPs: 3,145,728 vocabulary parameters at 33 million others, growing as N_nv^0.8354."""
    params = int(3_145_728 * (non_vocabulary_params / 33e6) ** 0.8353974035228025)
    return int(params / (width or vocabulary_width(non_vocabulary_params)))


def vocabulary_parametric(non_vocabulary_params: float, flops: float = 0.0, width: int = 0) -> int:
    """Approach 3, minimum of the fitted loss at a compute budget (`flops=0`: the optimal one for the size).

    Kept to compare: the published constants fit only with the vocabulary divided by 1000 inside the
    characters-to-tokens polynomial, and with true sizes explain nothing. Use approach 1 or 2.
    """
    from scipy.optimize import brentq

    a2, alpha2, b, beta = 0.19584238398665638, 0.6707374679896795, 2.1241123120064955, 0.44660634152009615
    width = width or vocabulary_width(non_vocabulary_params)
    millions, thousands = non_vocabulary_params / 1e6, width / 1e3  # the units in which the constants were fitted
    budget = (flops or float(vocabulary_optimal_flops(non_vocabulary_params))) / 1e15

    def slope(log_vocabulary: float) -> float:
        embedding = math.exp(log_vocabulary) * thousands
        tokens = budget / (6.0 * (millions + embedding))
        tokens_lost = budget * thousands / (6.0 * (millions + embedding) ** 2)
        return beta * b * tokens_lost / tokens ** (beta + 1) - alpha2 * a2 * thousands / embedding ** (alpha2 + 1)

    vocabulary_thousands = math.exp(brentq(slope, math.log(1e-3), math.log(1e6), xtol=1e-13))
    return int(int(vocabulary_thousands * 1000 * width) / width)


def _loss(point: Point) -> Number:
    return repeated_loss(point.total, point.tokens, point.unique_tokens or point.tokens)


_TAO: dict[str, Any] = dict(
    source="arXiv 2407.13623 and its repository",
    params="non_vocabulary",
    flops="6 (N_nv + V d) D",
    dataset="SlimPajama",
    fitted={"params": (3.3e7, 1.13e9)},
)

LAWS = (
    Law(
        name="muennighoff",
        title="Muennighoff et al. 2023, repeated data",
        source="arXiv 2305.16264 and its repository",
        mark="VR",
        params="total",
        flops="6ND",
        dataset="C4 and OSCAR",
        fitted={"params": (7e6, 9e9), "tokens": (1e8, 9e11)},
        note="compares allocations; absolute loss is 6-9% low",
        quantities={"loss": _loss, "allocation": MUENNIGHOFF.optimum},
    ),
    Law(
        name="tao_vocabulary_isoflops",
        title="Tao et al. 2024, approach 1",
        mark="VR",
        **_TAO,
        quantities={"vocabulary": lambda p: vocabulary_isoflops(p.non_vocabulary, int(p.d_model))},
    ),
    Law(
        name="tao_vocabulary_derivative",
        title="Tao et al. 2024, approach 2",
        mark="VS",
        **_TAO,
        quantities={"vocabulary": lambda p: vocabulary_derivative(p.non_vocabulary, int(p.d_model))},
    ),
    Law(
        name="tao_vocabulary_parametric",
        title="Tao et al. 2024, approach 3",
        mark="VS",
        **_TAO,
        in_panel=False,
        note="its constants carry a unit mistake of the fit",
        quantities={
            "vocabulary": lambda p: vocabulary_parametric(p.non_vocabulary, 6 * p.total * p.tokens, int(p.d_model))
        },
    ),
)
