"""Dense allocation laws: loss of (N, D), and the parameters and tokens that a compute budget should buy.

Two forms cover them. Additive, L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, eq. 2), whose optimum under C = 6ND
is closed; and a power law N* = k C^a straight from isoFLOP minima. Losses are nats/token, N and D counts, C FLOPs.
"""

import functools
import math
from dataclasses import dataclass
from importlib import resources

import numpy as np

from jaxscale.plan.law import Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, params: Number, tokens: Number) -> Number:
        """Loss in nats/token."""
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    @property
    def params_exponent(self) -> float:
        """a in N* ~ C^a: beta / (alpha + beta) (Hoffmann eq. 4)."""
        return self.beta / (self.alpha + self.beta)

    def optimum(self, flops: Number) -> tuple[Number, Number]:
        """Parameters and tokens of least loss at C = 6ND (Hoffmann eq. 4).

        >>> params, tokens = BESIROGLU.optimum(1e21)
        >>> f"{params:.4g} {tokens:.4g}"
        '2.778e+09 5.999e+10'
        """
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1.0 / (self.alpha + self.beta))
        params = balance * (flops / 6.0) ** self.params_exponent
        return params, flops / (6.0 * params)

    def flops_for_loss(self, loss: Number) -> Number:
        """Least compute that reaches `loss`: on the optimum both terms are fixed shares of L - E."""
        # There alpha A/N^alpha = beta B/D^beta, so the parameter term is beta/(alpha+beta) of the reducible loss.
        reducible = loss - self.E
        params = (self.A * (self.alpha + self.beta) / (self.beta * reducible)) ** (1.0 / self.alpha)
        tokens = (self.B * (self.alpha + self.beta) / (self.alpha * reducible)) ** (1.0 / self.beta)
        return 6.0 * params * tokens

    def tokens_for_loss(self, params: Number, loss: Number) -> Number:
        """Tokens at which a model of `params` reaches `loss`; the size must be able to reach it at all."""
        return (self.B / (loss - self.E - self.A / params**self.alpha)) ** (1.0 / self.beta)

    def least_params(self, loss: Number) -> Number:
        """Size that would reach `loss` on unlimited tokens; any model that reaches it is larger."""
        return (self.A / (loss - self.E)) ** (1.0 / self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerAllocation:
    """N* = coefficient C^exponent and D* = C / 6N*."""

    coefficient: float
    exponent: float

    def optimum(self, flops: Number) -> tuple[Number, Number]:
        """Compute-optimal parameters and tokens at C = 6ND."""
        params = self.coefficient * flops**self.exponent
        return params, flops / (6.0 * params)

    def flops_for_params(self, params: Number) -> Number:
        """Compute at which `params` is the optimal size."""
        return (params / self.coefficient) ** (1.0 / self.exponent)


# Hoffmann et al. 2022 (arXiv 2203.15556). The constants printed in the paper are rounded and put the optimum of its own
# budget 20% too low; the unrounded ones stand in its TeX source.
HOFFMANN_A3 = Additive(
    E=math.exp(0.5267228), A=math.exp(6.0073404), B=math.exp(6.0179186), alpha=0.33917084, beta=0.2849083
)
HOFFMANN_A3_ROUNDED = Additive(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
HOFFMANN_A1 = PowerAllocation(coefficient=0.0992, exponent=0.4981)
HOFFMANN_A2 = PowerAllocation(coefficient=0.14488, exponent=0.48994)
HOFFMANN_A3_TABLE = PowerAllocation(coefficient=0.53512, exponent=0.45863)

# Parameters -> (FLOPs, tokens), Tables 3 and A3. The column of approach 3 follows neither set of constants, and prints
# 1.26e24 FLOPs at 175e9, where 6ND is 1.26e25.
HOFFMANN_TABLES: dict[str, dict[float, tuple[float, float]]] = {
    "hoffmann_a1": {
        4e8: (1.92e19, 8.0e9), 1e9: (1.21e20, 20.2e9), 1e10: (1.23e22, 205.1e9), 67e9: (5.76e23, 1.5e12),
        175e9: (3.85e24, 3.7e12), 280e9: (9.90e24, 5.9e12), 520e9: (3.43e25, 11.0e12), 1e12: (1.27e26, 21.2e12),
        1e13: (1.30e28, 216.2e12),
    },
    "hoffmann_a2": {
        4e8: (1.84e19, 7.7e9), 1e9: (1.20e20, 20.0e9), 1e10: (1.32e22, 219.5e9), 67e9: (6.88e23, 1.7e12),
        175e9: (4.54e24, 4.3e12), 280e9: (1.18e25, 7.1e12), 520e9: (4.19e25, 13.4e12), 1e12: (1.59e26, 26.5e12),
        1e13: (1.75e28, 292.0e12),
    },
    "hoffmann_a3_table": {
        4e8: (2.21e19, 9.2e9), 1e9: (1.62e20, 27.1e9), 1e10: (2.46e22, 410.1e9), 67e9: (1.71e24, 4.1e12),
        175e9: (1.26e25, 12.0e12), 280e9: (3.52e25, 20.1e12), 520e9: (1.36e26, 43.5e12), 1e12: (5.65e26, 94.1e12),
        1e13: (8.55e28, 1425.5e12),
    },
}  # fmt: skip

# Besiroglu et al. 2024 (arXiv 2404.10102), refit of 240 points read off Hoffmann's figure 4. The published tuple joins
# E of the plain Huber optimum to A, B, alpha, beta of a likelihood fit; the plain optimum stands beside it.
BESIROGLU = Additive(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
BESIROGLU_HUBER = Additive(E=1.81722, A=477.83, B=2143.4, alpha=0.34731, beta=0.36717)
_BOOTSTRAP = "besiroglu_bootstrap.csv"  # E, A, B, alpha, beta of refits to resampled points, one a row
BESIROGLU_STANDARD_ERROR = {"E": 0.03, "A": 124.58, "B": 1293.23, "alpha": 0.02, "beta": 0.02, "a": 0.020}

# Sardana et al. 2024 (arXiv 2401.00448) use Hoffmann's approach 3 with these digits.
SARDANA = Additive(E=1.69, A=406.4, B=410.7, alpha=0.336, beta=0.283)

# Porian et al. 2024 (arXiv 2406.19146). N includes the head and no input embedding.
PORIAN_TUNED = PowerAllocation(coefficient=0.118926, exponent=0.496895)
# a in N* ~ C^a as one correction after the other is applied, on RefinedWeb and OpenWebText2.
PORIAN_EXPONENTS: dict[str, tuple[float, float]] = {
    "kaplan": (0.8353, 0.8635),
    "head_counted": (0.7065, 0.6985),
    "short_warmup": (0.6020, 0.6032),
    "cosine_to_horizon": (0.5715, 0.5743),
    "tuned": (0.4969, 0.5185),
}
PORIAN_TUNED_WITH_ATTENTION_EXPONENT = 0.5053  # RefinedWeb, attention FLOPs counted

# Llama 3 (arXiv 2407.21783, section 3.2.1): tokens D* = A C^alpha. The constants as printed, (0.29, 0.53), miss the
# paper's own 16.55T tokens by 37%; these reproduce it.
LLAMA3_TOKENS = (0.299, 0.537)
LLAMA3_TOKENS_PRINTED = (0.29, 0.53)
LLAMA3_TOKENS_REFIT = (0.2994, 0.5368)  # of the minima digitised from its figure 2

# Gemstones (arXiv 2502.06857), parameters/*.json.
GEMSTONES_HOT = Additive(E=math.exp(0.7623), A=math.exp(5.361), B=math.exp(15.416), alpha=0.2929, beta=0.7129)
GEMSTONES_EXPONENTS = {
    "all": 0.4994,
    "tokens_100b": 0.458,
    "cooldown": 0.597,
    "no_embedding": 0.627,
    "tokens_120b": 0.799,
}

# OLMo ladder (arXiv 2412.04403): refit here of its 16 final C4 losses; predicts 13B-5T 3.8% below the measured 2.438.
OLMO_LADDER_C4 = Additive(E=1.04, A=13.7, B=30.6, alpha=0.1125, beta=0.157)
# C4 loss of its 13B model after 5T tokens, predicted and measured (figures/step1_c4_main.csv). The authors fit smoothed
# losses that were not published; the refit above, of final losses, predicts 2.3485.
OLMO_LADDER_13B_LOSS = {"predicted": 2.3444, "measured": 2.4379}

CEREBRAS_C0_FLOPS = 5.984e22
# Lowest and highest isoFLOP exponents a of other suites: misfitting survey, Marin 2026 (Llama-2 architecture).
ISOFLOP_EXPONENTS = {"misfitting": (0.523, 0.523), "marin_2026": (0.426, 0.444)}


@functools.cache
def besiroglu_ensemble() -> tuple[Additive, ...]:
    """Refits of the replication's 240 points drawn with replacement: the parameters move together, not one by one.

    Written by experiments/planner/bootstrap_besiroglu.py.
    """
    text = resources.files("jaxscale.plan.laws").joinpath(_BOOTSTRAP).read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines()[1:]]
    names = ("E", "A", "B", "alpha", "beta")
    return tuple(Additive(**dict(zip(names, map(float, row), strict=True))) for row in rows)


def besiroglu_interval(flops: float) -> tuple[float, float]:
    """95% bootstrap interval of the replication's compute-optimal parameters."""
    params = [law.optimum(flops)[0] for law in besiroglu_ensemble()]
    low, high = np.quantile(params, [0.025, 0.975])
    return float(low), float(high)


def llama3_optimum(flops: Number, constants: tuple[float, float] = LLAMA3_TOKENS) -> tuple[Number, Number]:
    """Llama 3: compute-optimal parameters and tokens; the law gives the tokens."""
    tokens = constants[0] * flops ** constants[1]
    return flops / (6.0 * tokens), tokens


def deepseek_optimum(flops: Number) -> tuple[Number, Number]:
    """DeepSeek LLM (arXiv 2401.02954): model scale M (non-embedding FLOPs a token) and tokens; C = M D."""
    return 0.1715 * flops**0.5243, 5.8316 * flops**0.4757


def deepseek_flops_per_token(num_layers: Number, d_model: Number, seq_len: Number) -> Number:
    """DeepSeek's M of a plain transformer: 72 L D^2 + 12 L D s (formula quoted from memory of section 3.2)."""
    return 72.0 * num_layers * d_model**2 + 12.0 * num_layers * d_model * seq_len


def gemstones_optimum(flops: Number) -> tuple[Number, Number]:
    """Gemstones approach 1, all points: N* = e^-2.8451 C^0.4994, D* = e^1.8963 C^0.4810."""
    return math.exp(-2.8451) * flops**0.4994, math.exp(1.8963) * flops**0.4810


def gemstones_shape_loss(width: Number, depth: Number, params: Number, tokens: Number) -> Number:
    """Gemstones width-depth law after cooldown: L = E + sum e^c / x^p over width, depth, N and D."""
    return (
        math.exp(0.5875)
        + math.exp(1.526) / width**0.354
        + math.exp(-0.178) / depth**0.464
        + math.exp(6.332) / params**0.394
        + math.exp(11.539) / tokens**0.536
    )


def minicpm_tokens_per_param(flops: Number) -> Number:
    """MiniCPM (arXiv 2404.06395, section 4.5): D/N = (C/6)^0.10 / K^2, K^2 = 0.01, with N and D in billions.

    In plain counts the same constants would ask for 8,000 and more tokens a parameter.
    """
    return (flops / 6e18) ** 0.10 / 0.01


MINICPM_AVERAGE_TOKENS_PER_PARAM = 192.0  # section 4.5
MINICPM_ALPHA, MINICPM_BETA = 0.29, 0.23


def cerebras_pile_loss(flops: Number) -> Number:
    """Cerebras-GPT (arXiv 2304.03208): Pile loss at 20 tokens a parameter, (f / 5.984e22)^-0.0737 + 0.5066."""
    return (flops / CEREBRAS_C0_FLOPS) ** -0.0737 + 0.5066


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTraining:
    """Gadre et al. 2024 (arXiv 2403.08540): L = E + (a M^eta + b M^-eta) C^-eta with M = D/N tokens a parameter."""

    a: float
    b: float
    eta: float
    E: float

    def loss(self, params: Number, tokens: Number) -> Number:
        """Loss in nats/token at C = 6ND."""
        ratio = tokens / params
        return self.E + (self.a * ratio**self.eta + self.b * ratio**-self.eta) * (6.0 * params * tokens) ** -self.eta

    def optimum(self, flops: Number) -> tuple[Number, Number]:
        """The best M does not depend on compute: M^2eta = b/a."""
        ratio = (self.b / self.a) ** (0.5 / self.eta)
        params = (flops / (6.0 * ratio)) ** 0.5
        return params, ratio * params


GADRE = {
    "c4": OverTraining(a=141.28, b=189.52, eta=0.1212, E=1.5083),
    "redpajama": OverTraining(a=212.24, b=366.69, eta=0.1364, E=1.8366),
    "refinedweb": OverTraining(a=157.12, b=246.21, eta=0.1272, E=1.735),
}


def downstream_error(loss: Number, *, epsilon: float, k: float, gamma: float) -> Number:
    """Gadre et al.: average top-1 error of a benchmark, epsilon - k exp(-gamma L); its constants are fitted a suite."""
    return epsilon - k * math.e ** (-gamma * loss)
