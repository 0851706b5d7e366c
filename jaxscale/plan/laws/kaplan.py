"""Kaplan et al. 2020, "Scaling Laws for Neural Language Models" (arXiv 2001.08361).

N: non-embedding parameters, about 12 L D^2. Compute in PF-days (8.64e19 FLOPs) counted as 6 N B S without head and
attention. B in tokens, S in optimizer steps. Its allocation (N ~ C^0.73) is superseded: it came of a fixed schedule and
of counting no head (Porian et al. 2024). The loss in steps, L(N, S), is still the one law of the time trade-off.
"""

import numpy as np

from jaxscale.plan.law import Law, Number

PF_DAY_FLOPS = 8.64e19

ALPHA_N, ALPHA_D = 0.076, 0.095  # eq. 1.1, 1.2
N_C, D_C = 8.8e13, 5.4e13
ALPHA_B = 0.21  # eq. 1.4
B_STAR_TOKENS = 2.1e8  # Table 5; section 5.1 prints 2e8


def loss_of_params(params: Number) -> Number:
    """L(N) at convergence on unlimited data, nats/token (eq. 1.1)."""
    return (N_C / params) ** ALPHA_N


def loss_of_tokens(tokens: Number) -> Number:
    """L(D) of a large model stopped early, nats/token (eq. 1.2)."""
    return (D_C / tokens) ** ALPHA_D


def loss_of_compute(flops: Number) -> Number:
    """L(C) at fixed batch size, nats/token (Table 5)."""
    return (1.6e7 * PF_DAY_FLOPS / flops) ** 0.057


def loss_of_min_compute(flops: Number) -> Number:
    """L(C_min), each size trained far below its critical batch, nats/token (Table 5; figure 1 prints 2.3e8)."""
    return (3.1e8 * PF_DAY_FLOPS / flops) ** 0.050


def loss(params: Number, tokens: Number) -> Number:
    """L(N, D), nats/token (eq. 1.5 with the constants of Table 2, which differ from those of L(N))."""
    alpha_n, alpha_d, n_c, d_c = 0.076, 0.103, 6.4e13, 1.8e13
    return ((n_c / params) ** (alpha_n / alpha_d) + d_c / tokens) ** alpha_d


def loss_of_steps(params: Number, min_steps: Number) -> Number:
    """L(N, S_min), nats/token (eq. 1.6, Table 3)."""
    return (6.5e13 / params) ** 0.077 + (2.1e3 / min_steps) ** 0.76


def critical_batch_tokens(loss_nats: Number) -> Number:
    """B_crit(L) = B* / L^(1/0.21) in tokens (eq. 5.3).

    >>> round(critical_batch_tokens(3.0))
    1122570
    """
    return B_STAR_TOKENS / loss_nats ** (1.0 / ALPHA_B)


def optimum(flops: Number) -> tuple[Number, Number]:
    """Compute-efficient parameters and tokens (Table 6): N = 1.3e9 C^0.73, D = 2e10 C^0.27 with C in PF-days."""
    days = flops / PF_DAY_FLOPS
    return 1.3e9 * days**0.73, 2e10 * days**0.27


def efficient_batch_tokens(flops: Number) -> Number:
    """Compute-efficient batch, tokens (Table 6)."""
    return 2.0e6 * (flops / PF_DAY_FLOPS) ** 0.24


def efficient_min_steps(flops: Number) -> Number:
    """Compute-efficient serial steps S_min (Table 6)."""
    return 5.4e3 * (flops / PF_DAY_FLOPS) ** 0.03


def overfit_guard_tokens(params: Number) -> Number:
    """Tokens that keep over-fitting under 0.02 nats: D > 5e3 N^0.74 (section 4.4)."""
    return 5e3 * params**0.74


def learning_rate(params: Number) -> Number:
    """Peak learning rate 0.003239 - 0.0001395 ln N (eq. D.1); negative above 1.2e10 parameters."""
    return 0.003239 - 0.0001395 * np.log(params)


def efficient_excess() -> float:
    """Loss above convergence at which compute-efficient training stops: alpha_N / alpha_S (eq. B.10), about 10%."""
    return 0.077 / 0.76


def stopping_ratios(excess: Number, other: Number) -> tuple[Number, Number, Number]:
    """Parameters, steps and compute of training to `excess` above convergence over training to `other` (eq. B.12-B.14).

    >>> [round(ratio, 2) for ratio in stopping_ratios(0.10, 0.02)]
    [2.7, 0.13, 0.36]
    """
    alpha_n, alpha_s = ALPHA_N, 0.76
    params = ((1.0 + excess) / (1.0 + other)) ** (1.0 / alpha_n)
    steps = (other * (1.0 + excess) / (excess * (1.0 + other))) ** (1.0 / alpha_s)
    return params, steps, params * steps


LAWS = (
    Law(
        name="kaplan",
        title="Kaplan et al. 2020",
        source="arXiv 2001.08361, Tables 2-6",
        mark="VS",
        params="non_embedding",
        flops="6ND without head and attention",
        fitted={"params": (768, 1.5e9), "tokens": (1e7, 2.3e10)},
        dataset="WebText2, context 1024",
        note="superseded: a fixed schedule and no head in N give a = 0.73 (Porian et al. 2024 explain it)",
        in_panel=False,
        quantities={
            "loss": lambda p: loss(p.non_embedding, p.tokens),
            "allocation": optimum,
            "critical_batch_tokens": lambda p: critical_batch_tokens(p.loss),
        },
    ),
    Law(
        name="kaplan_learning_rate",
        title="Kaplan et al. 2020, learning rate",
        source="arXiv 2001.08361, eq. D.1, as two later accounts quote it",
        mark="V2",
        params="non_embedding",
        flops="-",
        fitted={"params": (768, 1.5e9)},
        batch_path="fixed",
        note="negative above 1.2e10 parameters",
        in_panel=False,
        quantities={"learning_rate": lambda p: learning_rate(p.non_embedding)},
    ),
)
