"""Where the laws disagree, and what a wrong choice would cost.

Every law that applies is asked; none is averaged with another. The spread of N* looks alarming and costs little, so
what is reported is regret: the share of compute wasted if one law allocates while another is true.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxscale.errors import SpecError
from jaxscale.plan.law import Law, Point
from jaxscale.plan.laws import data
from jaxscale.plan.shapes import nominal_point


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one law would train with a compute budget.

    `law_params` is in the law's own convention, `params` are total parameters. `interval` is the range of `params`
    that the law's bootstrap, or its published exponent interval, allows at this distance from its data.
    """

    law: str
    title: str
    source: str
    mark: str
    convention: str
    law_params: float
    params: float
    tokens: float
    interval: tuple[float, float] | None
    decades_outside: dict[str, float]
    note: str

    @property
    def tokens_per_param(self) -> float:
        """Tokens for each parameter."""
        return self.tokens / self.params


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """Wasted share of compute, `wasted[i][j]` where law i allocates and law j is true."""

    laws: tuple[str, ...]
    truths: tuple[str, ...]
    wasted: tuple[tuple[float, ...], ...]

    @property
    def worst(self) -> tuple[float, ...]:
        """Worst case of each law's answer."""
        return tuple(max(row) for row in self.wasted)

    @property
    def choice(self) -> str:
        """The law whose answer wastes least in its worst case."""
        return self.laws[self.worst.index(min(self.worst))]


def allocate(law: Law, flops: float, *, unique_tokens: float = 0.0) -> Allocation:
    """Ask one law what to train with `flops`; the answer in its convention is turned into total parameters."""
    law_params, tokens = law.quantities["allocation"](flops)
    if law.name == "muennighoff" and 0 < unique_tokens < tokens:
        law_params, tokens = data.repeated_optimum(flops, unique_tokens)
    law_params, tokens = float(law_params), float(tokens)
    total = nominal_point(law_params, tokens, convention=law.params).total
    return Allocation(
        law=law.name,
        title=law.title,
        source=law.source,
        mark=law.mark,
        convention=law.params,
        law_params=law_params,
        params=total,
        tokens=tokens,
        interval=_interval(law, flops, total),
        decades_outside=law.decades_outside(params=law_params, tokens=tokens, flops=flops),
        note=law.note,
    )


def _interval(law: Law, flops: float, params: float) -> tuple[float, float] | None:
    """Spread of N* from the law's own ensemble, or from the interval of its exponent, pivoted where it was fitted."""
    if law.params_interval is not None:
        return law.params_interval(flops)
    if law.exponent_interval is None or "flops" not in law.fitted:
        return None
    pivot = math.sqrt(math.prod(law.fitted["flops"]))
    a = math.log(law.quantities["allocation"](flops * 2.0)[0] / law.quantities["allocation"](flops)[0]) / math.log(2.0)
    ends = sorted(params * (flops / pivot) ** (end - a) for end in law.exponent_interval)
    return ends[0], ends[1]


def loss_of(law: Law, params: float, tokens: float, *, unique_tokens: float = 0.0) -> float:
    """Loss in nats/token of a dense run of `params` total parameters under one law."""
    return float(law.quantities["loss"](nominal_point(params, tokens, unique_tokens=unique_tokens)))


def best_loss(law: Law, flops: float, *, unique_tokens: float = 0.0) -> float:
    """Least loss that a law sees in a compute budget."""
    best = allocate(law, flops, unique_tokens=unique_tokens)
    return loss_of(law, best.params, best.tokens, unique_tokens=unique_tokens)


def flops_for_loss(law: Law, loss: float, *, low: float = 1e10, high: float = 1e40) -> float:
    """Least compute at which a law reaches `loss`, by bisection; SpecError where it never does."""
    if best_loss(law, high) > loss:
        raise SpecError(
            f"loss={loss:g} is below what {law.title} can reach at any compute: its irreducible loss is "
            f"about {best_loss(law, high):.3f} nats per token"
        )
    if best_loss(law, low) < loss:
        raise SpecError(
            f"loss={loss:g} needs no training under {law.title}; ask for a loss below {best_loss(law, low):.2f}"
        )
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if best_loss(law, middle) > loss else (low, middle)
    return high


def flops_for_tokens(law: Law, tokens: float, *, low: float = 1e10, high: float = 1e40) -> float:
    """Compute at which a law would train on exactly `tokens`, by bisection."""
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if allocate(law, middle).tokens < tokens else (low, middle)
    return high


def wasted(truth: Law, params: float, tokens: float, *, unique_tokens: float = 0.0) -> float:
    """Share of the compute 6ND that the best allocation under `truth` would not have needed for the same loss."""
    flops = 6.0 * params * tokens
    loss = loss_of(truth, params, tokens, unique_tokens=unique_tokens)
    low, high = flops * 1e-6, flops
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if best_loss(truth, middle, unique_tokens=unique_tokens) > loss else (low, middle)
    return max(0.0, 1.0 - high / flops)


def regret(
    allocations: Sequence[Allocation], truths: Sequence[Law], flops: float, *, unique_tokens: float = 0.0
) -> Regret:
    """Cross every allocation with every law that gives losses.

    The tokens of each allocation are what `flops` buys at its size under C = 6ND with total parameters, so that laws
    that count parameters or FLOPs differently are compared at one cost.
    """
    rows = [
        tuple(wasted(truth, a.params, flops / (6.0 * a.params), unique_tokens=unique_tokens) for truth in truths)
        for a in allocations
    ]
    return Regret(laws=tuple(a.law for a in allocations), truths=tuple(t.name for t in truths), wasted=tuple(rows))


def sensitivity(
    truth: Law, point: Point, factors: Sequence[float] = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
) -> dict[float, float]:
    """Compute wasted when the model is `factor` times the planned size at the same budget."""
    flops = 6.0 * point.total * point.tokens
    sizes = {factor: point.total * factor for factor in factors}
    return {
        factor: wasted(truth, size, flops / (6.0 * size), unique_tokens=point.unique_tokens)
        for factor, size in sizes.items()
    }
