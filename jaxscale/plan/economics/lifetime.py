"""Training cost against lifetime cost: the size that is cheapest to train and then to serve.

Sardana et al. 2024, "Beyond Chinchilla-Optimal" (arXiv 2401.00448): least 6 N D + 2 N D_inf at equal loss. Laws
over-value tokens at hundreds of tokens a parameter, so far from their data the answer is a bound, not a plan.
"""

import math
from dataclasses import dataclass
from typing import Protocol

_GRID_STEPS = 200


class LossLaw(Protocol):
    """What the trade-off asks of a law: `Additive` has it."""

    def loss(self, params: float, tokens: float) -> float:
        """Loss in nats/token."""
        ...

    def tokens_for_loss(self, params: float, loss: float) -> float:
        """Tokens at which `params` reach `loss`."""
        ...

    def least_params(self, loss: float) -> float:
        """Size that reaches `loss` on unlimited tokens."""
        ...

    def optimum(self, flops: float) -> tuple[float, float]:
        """Compute-optimal parameters and tokens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LifetimePlan:
    """The cheapest size for a quality and a demand, against the training-optimal model of the same quality."""

    params: float
    tokens: float
    loss: float
    lifetime_flops: float
    base_params: float
    base_tokens: float
    base_lifetime_flops: float

    @property
    def tokens_ratio(self) -> float:
        """Training tokens over those of the training-optimal model."""
        return self.tokens / self.base_tokens

    @property
    def saved_flops(self) -> float:
        """Training and serving compute saved."""
        return self.base_lifetime_flops - self.lifetime_flops

    @property
    def saved_share(self) -> float:
        """The same as a share."""
        return self.saved_flops / self.base_lifetime_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCost:
    """What one FLOP costs by kind; 1 and 1 for plain compute, dollars over achieved FLOP/s for money.

    Sardana et al. section 4: training and prefill at 50% of peak, decode at 1%.
    """

    training: float = 1.0
    serving: float = 1.0


def optimal_tokens(law: LossLaw, params: float) -> float:
    """Tokens for which `params` are the compute-optimal size."""
    low, high = math.log(params * 1e-3), math.log(params * 1e5)
    for _ in range(100):
        middle = 0.5 * (low + high)
        best, _ = law.optimum(6.0 * params * math.exp(middle))
        low, high = (middle, high) if best < params else (low, middle)
    return math.exp(high)


def lifetime_cost(params: float, tokens: float, inference_tokens: float, cost: UnitCost) -> float:
    """6 N D of training and 2 N D_inf of serving, each at its unit cost."""
    return cost.training * 6.0 * params * tokens + cost.serving * 2.0 * params * inference_tokens


def cheapest_size(
    law: LossLaw, loss: float, inference_tokens: float, cost: UnitCost | None = None
) -> tuple[float, float]:
    """Parameters and tokens of least lifetime cost at a loss: golden-section search in ln N above the least size."""
    cost = cost or UnitCost()
    least = law.least_params(loss)

    def at(log_params: float) -> float:
        params = math.exp(log_params)
        return math.log(lifetime_cost(params, law.tokens_for_loss(params, loss), inference_tokens, cost))

    low, high = math.log(least * (1.0 + 1e-6)), math.log(least * 1e4)
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(_GRID_STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if at(left) < at(right) else (left, high)
    params = math.exp(0.5 * (low + high))
    return params, law.tokens_for_loss(params, loss)


def same_quality(
    law: LossLaw, base_params: float, inference_tokens: float, cost: UnitCost | None = None
) -> LifetimePlan:
    """The lifetime-optimal model that is as good as the training-optimal one of `base_params`."""
    cost = cost or UnitCost()
    base_tokens = optimal_tokens(law, base_params)
    loss = law.loss(base_params, base_tokens)
    params, tokens = cheapest_size(law, loss, inference_tokens, cost)
    return LifetimePlan(
        params=params,
        tokens=tokens,
        loss=loss,
        lifetime_flops=lifetime_cost(params, tokens, inference_tokens, cost),
        base_params=base_params,
        base_tokens=base_tokens,
        base_lifetime_flops=lifetime_cost(base_params, base_tokens, inference_tokens, cost),
    )


def split_of_budget(
    law: LossLaw, training_flops: float, inference_tokens: float, cost: UnitCost | None = None
) -> tuple[float, float]:
    """Parameters and tokens that spend `training_flops` such that no other size of that quality is cheaper to own.

    The training budget is fixed, so quality gives: the loss is found whose cheapest size costs exactly the budget.
    """
    best_params, best_tokens = law.optimum(training_flops)
    low = law.loss(best_params, best_tokens)  # as good as the budget allows: costs the budget or more
    high = low * 3.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        params, tokens = cheapest_size(law, middle, inference_tokens, cost)
        low, high = (middle, high) if 6.0 * params * tokens > training_flops else (low, middle)
    return cheapest_size(law, high, inference_tokens, cost)
