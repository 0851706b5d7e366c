"""Mixture-of-experts laws: how many experts, how many active parameters, how fine the experts.

Signs matter in the joint law: accounts that flip those of delta and omega put N* off by up to 45 times.
"""

import math
from dataclasses import dataclass

import numpy as np

from jaxscale.plan.law import Law, Number, Point


def saturating_experts(experts: Number, start: float, limit: float) -> Number:
    """Effective expert count: 1/E^ = 1/(E - 1 + (1/E_start - 1/E_max)^-1) + 1/E_max (Clark et al. 2022, eq. 4)."""
    return 1.0 / (1.0 / (experts - 1.0 + 1.0 / (1.0 / start - 1.0 / limit)) + 1.0 / limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class JointMoE:
    """Ludziejewski et al. 2025 (arXiv 2502.05172, eq. 4, Table 3): one law for dense and MoE.

    L = a E^^delta N^(alpha + gamma ln E^) + b E^^omega D^(beta + zeta ln E^) + c with N active parameters including
    embedding and head. Top-1 routing, at most 32 experts, FineWeb-Edu. Its dense limit wants about 5 tokens a
    parameter: take the number of experts and the ratio of MoE to dense from it, not the absolute allocation.
    """

    a: float = 35.91
    alpha: float = -0.1889
    delta: float = -0.2285
    gamma: float = 0.0098
    b: float = 35.98
    beta: float = -0.1775
    omega: float = 0.5529
    zeta: float = -0.0259
    start: float = 2.0732
    limit: float = 290.4521
    c: float = 1.3637

    def coefficients(self, experts: Number) -> tuple[Number, Number, Number, Number]:
        """m, mu, n, nu of L = m N^mu + n D^nu + c at a number of experts (Table 4)."""
        effective = saturating_experts(experts, self.start, self.limit)
        log = np.log(effective)
        return (
            self.a * effective**self.delta,
            self.alpha + self.gamma * log,
            self.b * effective**self.omega,
            self.beta + self.zeta * log,
        )

    def loss(self, active_params: Number, tokens: Number, experts: Number) -> Number:
        """Loss in nats/token."""
        m, mu, n, nu = self.coefficients(experts)
        return m * active_params**mu + n * tokens**nu + self.c

    def optimum(self, flops: Number, experts: Number = 1.0) -> tuple[Number, Number]:
        """Active parameters and tokens of least loss at 6 N_act D = `flops` (eq. 6)."""
        m, mu, n, nu = self.coefficients(experts)
        balance = (mu * m / (nu * n)) ** (1.0 / -(mu + nu))
        params = balance * (flops / 6.0) ** (nu / (mu + nu))
        return params, flops / (6.0 * params)


JOINT_MOE = JointMoE()
# Optimal experts by training budget and memory of 24, 80 and 640 GB (Table 2); 32 stands for "32 or more".
JOINT_MOE_EXPERTS: dict[float, tuple[int, int, int]] = {
    1e21: (16, 32, 32), 1e22: (4, 16, 32), 1e23: (1, 8, 32), 1e24: (1, 1, 16),
}  # fmt: skip


def joint_moe_params(d_model: Number, experts: Number, vocabulary: Number = 50257) -> tuple[Number, Number]:
    """Total and active parameters of the paper's models: 2 d V + (4 + 9E) L d^2 and 2 d V + 13 L d^2 with L = d/64."""
    layers = d_model / 64.0
    return (
        2.0 * d_model * vocabulary + (4.0 + 9.0 * experts) * layers * d_model**2,
        2.0 * d_model * vocabulary + 13.0 * layers * d_model**2,
    )


def joint_moe_width(active_params: float, vocabulary: int = 50257) -> float:
    """Model width at which the paper's models have that many active parameters."""
    from scipy.optimize import brentq

    return float(brentq(lambda d: joint_moe_params(d, 1.0, vocabulary)[1] - active_params, 1.0, 1e6))


def joint_moe_best(
    flops: float,
    *,
    memory_params: float = math.inf,
    inference_tokens: float = 0.0,
    cache_tokens: float = 0.0,
    experts: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
) -> tuple[int, float, float, float]:
    """Experts, active parameters, tokens and loss of least loss under memory and lifetime compute (section 5).

    `flops` buys training and serving: 6 N_act D + 2 N_act D_inf. Memory counts values: N_total + 2 T L d, with T tokens
    in the cache, at most `memory_params`. Returns the best of a scan.
    """
    best = (0, math.nan, math.nan, math.inf)
    widths = 64.0 * np.arange(2, 513)
    for count in experts:
        total, active = joint_moe_params(widths, float(count))
        tokens = (flops - 2.0 * active * inference_tokens) / (6.0 * active)
        memory = total + 2.0 * cache_tokens * (widths / 64.0) * widths
        legal = (memory <= memory_params) & (tokens > 0)
        if not legal.any():
            continue
        losses = np.where(legal, JOINT_MOE.loss(active, np.maximum(tokens, 1.0), count), np.inf)
        row = int(np.argmin(losses))
        if losses[row] < best[3]:
            best = (count, float(active[row]), float(tokens[row]), float(losses[row]))
    return best


def joint_moe_flops(loss: float, *, memory_params: float = math.inf, low: float = 1e14, high: float = 1e30) -> float:
    """Least compute at which the best number of experts within memory reaches `loss`, by bisection.

    Infinite where `loss` is not reached by 1e30 FLOPs.
    """
    if joint_moe_best(high, memory_params=memory_params)[3] > loss:
        return math.inf
    for _ in range(60):
        middle = math.sqrt(low * high)
        reached = joint_moe_best(middle, memory_params=memory_params)[3] <= loss
        low, high = (low, middle) if reached else (middle, high)
    return high


def joint_moe_learning_rate(active_non_embedding: Number, experts: Number) -> Number:
    """Peak learning rate exp(8.39 - 0.81 ln N - 0.25 ln E), N active without embeddings (eq. 8)."""
    return np.exp(8.39 - 0.81 * np.log(active_non_embedding) - 0.25 * np.log(experts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Granular:
    """Krajewski et al. 2024 (arXiv 2402.07871, Table 1): L = c + (g / G^gamma + a) / N^alpha + b / D^beta, E = 64.

    N: total parameters without embeddings. The printed digits put the paper's own table 0.01 to 0.02 nats too low.
    """

    a: float
    alpha: float
    b: float
    beta: float
    g: float
    gamma: float
    c: float

    def loss(self, params: Number, tokens: Number, granularity: Number = 1.0) -> Number:
        """Loss in nats/token at granularity G: expert width is d_ff / G."""
        return self.c + (self.g / granularity**self.gamma + self.a) / params**self.alpha + self.b / tokens**self.beta


KRAJEWSKI_MOE = Granular(a=18.1, alpha=0.115, b=30.8, beta=0.147, g=2.1, gamma=0.58, c=0.47)
KRAJEWSKI_DENSE = Granular(a=16.3, alpha=0.126, b=26.7, beta=0.127, g=0.0, gamma=0.0, c=0.47)


def krajewski_total_params(base_params: Number, experts: Number = 64.0) -> Number:
    """Total parameters of "E x base": attention is shared, so (8E + 4)/12 times the base, 43 times at E = 64."""
    return (8.0 * experts + 4.0) / 12.0 * base_params


def krajewski_flops(
    num_layers: Number, d_model: Number, tokens: Number, *, experts: Number = 64.0, granularity: Number = 1.0,
    expansion: Number = 6.0, router_cost: Number = 14.0,
) -> Number:  # fmt: skip
    """Training FLOPs with the router's share: (12 d^2 c_f + d E G c_r) D L."""
    return (12.0 * d_model**2 * expansion + d_model * experts * granularity * router_cost) * tokens * num_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """Clark et al. 2022 (arXiv 2202.01169): log10 L = a lg N + b lg E^ + c lg N lg E^ + d at 130 billion tokens.

    N: parameters of the dense base. Superseded: the number of tokens was fixed.
    """

    a: float
    b: float
    c: float
    d: float
    start: float
    limit: float

    def loss(self, params: Number, experts: Number) -> Number:
        """Loss in nats/token."""
        n = np.log10(params)
        e = np.log10(saturating_experts(experts, self.start, self.limit))
        return 10.0 ** (self.a * n + self.b * e + self.c * n * e + self.d)


CLARK = {
    "s_base": Routed(a=-0.082, b=-0.108, c=0.009, d=1.104, start=1.847, limit=314.5),
    "rl_r": Routed(a=-0.083, b=-0.126, c=0.012, d=1.111, start=1.880, limit=470.0),
    "hash": Routed(a=-0.087, b=-0.136, c=0.012, d=1.157, start=4.175, limit=477.7),
}


def sparsity(experts: Number, experts_per_token: Number) -> Number:
    """Abnar et al. 2025: S = (E - K) / E, the share of experts that a token does not meet."""
    return (experts - experts_per_token) / experts


def abnar_loss(params: Number, tokens: Number, sparse_share: Number, constants: dict[str, float]) -> Number:
    """Abnar et al. 2025 (arXiv 2501.12370): L = a/N^alpha + b/D^beta + c/(1-S)^lambda + d/((1-S)^delta N^gamma) + e.

    Its constants were not found: fit them. Keys: a, alpha, b, beta, c, lambda, d, delta, gamma, e.
    """
    k, dense = constants, 1.0 - sparse_share
    return (
        k["a"] / params ** k["alpha"]
        + k["b"] / tokens ** k["beta"]
        + k["c"] / dense ** k["lambda"]
        + k["d"] / (dense ** k["delta"] * params ** k["gamma"])
        + k["e"]
    )


def yun_total_params(base_params: Number, experts: Number) -> Number:
    """Yun et al. 2024 (arXiv 2404.02852): an MoE of E experts has (1 + (E - 1)/3) N parameters."""
    return (1.0 + (experts - 1.0) / 3.0) * base_params


def yun_loss(params: Number, tokens: Number, experts: Number, constants: dict[str, float]) -> Number:
    """Yun et al. 2024, inference-optimal MoE: log L = log(A/N^alpha + B/E^^beta + C/D^gamma + F) + d log N log E^.

    Its constants were not found: fit them. Keys: A, alpha, B, beta, C, gamma, F, d, start, limit.
    """
    k = constants
    effective = saturating_experts(experts, k["start"], k["limit"])
    base = k["A"] / params ** k["alpha"] + k["B"] / effective ** k["beta"] + k["C"] / tokens ** k["gamma"] + k["F"]
    return base * np.exp(k["d"] * np.log(params) * np.log(effective))


def upcycled_loss(dense_tokens: Number, moe_tokens: Number, constants: dict[str, float]) -> Number:
    """Liew et al. 2025, upcycling (arXiv 2502.03009): L = A D1^-alpha1 D2^(-alpha2 + alpha3 ln D1) + E.

    D1 tokens of dense training, D2 after upcycling; alpha3 > 0 is the saturation that makes upcycling a long-trained
    model poor value. Its constants were not found: fit them. Keys: A, alpha1, alpha2, alpha3, E.
    """
    k = constants
    return (
        k["A"] * dense_tokens ** -k["alpha1"] * moe_tokens ** (-k["alpha2"] + k["alpha3"] * np.log(dense_tokens))
        + k["E"]
    )


def _joint_loss(point: Point) -> Number:
    return JOINT_MOE.loss(point.active, point.tokens, point.num_experts)


LAWS = (
    Law(
        name="joint_moe",
        title="Ludziejewski et al. 2025, joint MoE",
        source="arXiv 2502.05172, Tables 1-4",
        mark="VR",
        params="active",
        flops="6 N_act D",
        dataset="FineWeb-Edu",
        fitted={"params": (3e7, 2.7e9), "tokens": (1e9, 1.5e11)},
        note="dense limit wants 3-6 tokens a parameter: use for experts, not for absolute allocation",
        in_panel=False,
        quantities={"loss": _joint_loss, "allocation": JOINT_MOE.optimum},
    ),
    Law(
        name="joint_moe_learning_rate",
        title="Ludziejewski et al. 2025, learning rate",
        source="arXiv 2502.05172, eq. 8",
        mark="VS",
        params="active_non_embedding",
        flops="-",
        dataset="FineWeb-Edu",
        fitted={"params": (3e7, 2.7e9)},
        batch_path="fixed",
        quantities={"learning_rate": lambda p: joint_moe_learning_rate(p.active_non_embedding, p.num_experts)},
    ),
    Law(
        name="krajewski",
        title="Krajewski et al. 2024, granular MoE, E = 64",
        source="arXiv 2402.07871, Tables 1 and 2",
        mark="VS",
        params="non_embedding",
        flops="(12 d^2 c_f + d E G c_r) D L",
        dataset="C4",
        fitted={"tokens": (1.6e10, 1.3e11)},
        note="rounded constants are 0.01-0.02 nats low; G is 1 here",
        in_panel=False,
        quantities={
            "loss": lambda p: (KRAJEWSKI_MOE if p.num_experts > 1 else KRAJEWSKI_DENSE).loss(p.non_embedding, p.tokens)
        },
    ),
    *(
        Law(
            name=f"clark_{router}",
            title=f"Clark et al. 2022, {router}",
            source="arXiv 2202.01169, second-hand",
            mark="V2",
            params="active",
            flops="-",
            dataset="MassiveText, 130B tokens",
            fitted={"params": (1.5e7, 1.3e9)},
            in_panel=False,
            quantities={"loss": lambda p, law=law: law.loss(p.active, p.num_experts)},
        )
        for router, law in CLARK.items()
    ),
)
