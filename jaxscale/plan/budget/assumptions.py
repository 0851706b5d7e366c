"""What the answer rests on: each assumption moved, and what days and loss become."""

from dataclasses import dataclass, replace

from jaxscale.plan.economics.goodput import Goodput, Reliability, goodput
from jaxscale.plan.law import Law
from jaxscale.plan.panel import loss_of

_SLOWER = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One assumption moved. `days` and `loss` are the new ones; what stays as planned is None."""

    assumption: str
    moved: str
    days: float | None = None
    loss: float | None = None


def effects(
    truth: Law,
    *,
    params: float,
    tokens: float,
    days: float,
    lost: Goodput,
    num_chips: int,
    num_hosts: int,
    checkpoint_bytes: float,
    reliability: Reliability,
    time_is_fixed: bool,
    unique_tokens: float = 0.0,
) -> tuple[Effect, ...]:
    """Slower steps, failures twice as often, and storage of half the speed.

    Where the time is the budget, what is lost are tokens, and the loss under `truth` says what that costs.
    """

    def at(speed: float, assumption: str, moved: str) -> Effect:
        if not time_is_fixed:
            return Effect(assumption=assumption, moved=moved, days=days / speed)
        fewer = tokens * speed
        unique = min(unique_tokens, fewer)
        return Effect(assumption=assumption, moved=moved, loss=loss_of(truth, params, fewer, unique_tokens=unique))

    def share(**changed: float) -> float:
        return goodput(num_chips, num_hosts, checkpoint_bytes, replace(reliability, **changed)).share / lost.share

    failures = share(chip_hours_between_failures=reliability.chip_hours_between_failures / 2.0)
    storage = share(checkpoint_bytes_per_s_per_host=reliability.checkpoint_bytes_per_s_per_host / 2.0)
    return (
        at(_SLOWER, "speed of a step", "a tenth slower than the cost model says"),
        at(failures, "failures", f"twice as often as one in {reliability.chip_hours_between_failures:,.0f} chip hours"),
        at(storage, "checkpoint storage", "half the bandwidth"),
    )
