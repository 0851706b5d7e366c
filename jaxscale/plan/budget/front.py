"""What else the money could buy: loss against training cost, and loss against cost over the model's life."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.plan.law import Law
from jaxscale.plan.panel import loss_of

_SIZES = np.geomspace(1 / 16, 8, 22)
_BUDGETS = np.geomspace(1 / 32, 4, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a FLOP of training and a served token of a one-parameter model cost, in dollars or in FLOPs."""

    training_per_flop: float
    serving_per_param: float  # all demand, for each active parameter
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One size and token count near the plan, at the plan's hardware utilisation."""

    params: float
    tokens: float
    loss: float
    training_cost: float
    lifetime_cost: float
    on_training_front: bool
    on_lifetime_front: bool


def pareto(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Which points no other beats in both cost and loss, bool [n]."""
    order = np.lexsort((losses, costs))
    best = np.minimum.accumulate(losses[order])
    front = np.zeros(len(costs), dtype=bool)
    front[order] = losses[order] < np.concatenate([[np.inf], best[:-1]])
    return front


def alternatives(
    truth: Law, params: float, tokens: float, rates: Rates, *, unique_tokens: float = 0.0, max_params: float = np.inf
) -> list[Alternative]:
    """Sizes and budgets around a plan, with the two fronts marked; only points on a front are returned."""
    sizes = np.concatenate([[1.0], _SIZES]) * params
    budgets = np.concatenate([[1.0], _BUDGETS]) * 6.0 * params * tokens
    size, budget = (axis.ravel() for axis in np.meshgrid(sizes[sizes <= max_params], budgets))
    spent = budget / (6.0 * size)
    keep = (spent / size > 0.1) & (spent / size < 1e4)
    size, budget, spent = size[keep], budget[keep], spent[keep]
    losses = np.array(
        [loss_of(truth, n, d, unique_tokens=min(unique_tokens, d)) for n, d in zip(size, spent, strict=True)]
    )
    training = budget * rates.training_per_flop
    lifetime = training + size * rates.serving_per_param
    fronts = pareto(training, losses), pareto(lifetime, losses)
    return [
        Alternative(
            params=float(size[i]),
            tokens=float(spent[i]),
            loss=float(losses[i]),
            training_cost=float(training[i]),
            lifetime_cost=float(lifetime[i]),
            on_training_front=bool(fronts[0][i]),
            on_lifetime_front=bool(fronts[1][i]),
        )
        for i in np.flatnonzero(fronts[0] | fronts[1])
    ]


def front_of(points: Sequence[Alternative], *, lifetime: bool) -> list[Alternative]:
    """The points of one front, cheapest first."""
    chosen = [p for p in points if (p.on_lifetime_front if lifetime else p.on_training_front)]
    return sorted(chosen, key=lambda p: p.lifetime_cost if lifetime else p.training_cost)
