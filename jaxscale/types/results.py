"""What is answered: one record for a predicted, a compiled and a measured step."""

from dataclasses import dataclass, field
from typing import Literal

from jaxscale.types.layout import Layout

TierOfTruth = Literal["predicted", "compiled", "measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One kind of collective on one group of mesh axes, per device and step.

    `bytes_each` is the payload of one call: the full (gathered) array for all-gather, the full input for
    reduce-scatter and all-reduce, the local array for all-to-all and collective-permute. `wire_bytes` is what one
    device sends over the step.
    """

    kind: str  # all-gather, reduce-scatter, all-reduce, all-to-all, collective-permute
    axes: tuple[str, ...]
    name: str  # what it moves: weights, gradients, activations ...
    bytes_each: float
    count: float
    wire_bytes: float
    exposed_s: float = 0.0
    asynchronous: bool | None = None  # known only from a compiled schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The performance of one layout. All figures are of one optimizer step; bytes and FLOPs are per device.

    `lower_s` assumes that everything which can overlap does, `upper_s` that nothing does. `time_parts_s` sum to
    `step_time_s`; `memory_parts_bytes` sum to `memory_bytes`, the peak.
    """

    tier: TierOfTruth
    layout: Layout
    step_time_s: float
    lower_s: float
    upper_s: float
    time_parts_s: dict[str, float]
    memory_bytes: float
    memory_limit_bytes: float
    memory_parts_bytes: dict[str, float]
    comm_bytes: dict[str, float]  # by axis group, sent by one device
    model_flops: float
    hardware_flops: float
    mfu: float
    hfu: float
    tokens_per_s_per_chip: float
    dollars_per_billion_tokens: float
    host_memory_bytes: float = 0.0
    interval_80_s: tuple[float, float] | None = None
    reasons: tuple[str, ...] = ()  # why it cannot run; empty where it can
    collectives: tuple[Collective, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether the peak stays under the memory a program can allocate."""
        return self.memory_bytes <= self.memory_limit_bytes

    def to_json(self) -> dict:
        """The record as `--json` prints it."""
        return {
            "tier": self.tier,
            "layout": layout_json(self.layout),
            "layout_text": str(self.layout),
            "step_time_s": self.step_time_s,
            "step_time_lower_s": self.lower_s,
            "step_time_upper_s": self.upper_s,
            "interval_80_s": self.interval_80_s,
            "tokens_per_s_per_chip": self.tokens_per_s_per_chip,
            "mfu": self.mfu,
            "hfu": self.hfu,
            "model_flops": self.model_flops,
            "hardware_flops": self.hardware_flops,
            "memory_bytes": {
                "total": self.memory_bytes,
                "limit": self.memory_limit_bytes,
                "parts": self.memory_parts_bytes,
            },
            "host_memory_bytes": self.host_memory_bytes,
            "fits": self.fits,
            "comm_bytes": self.comm_bytes,
            "time_parts_s": self.time_parts_s,
            "dollars_per_billion_tokens": self.dollars_per_billion_tokens,
            "reasons": list(self.reasons),
            "provenance": self.provenance,
        }


def layout_json(layout: Layout) -> dict:
    """A layout as plain values, every field."""
    from jaxscale.types._check import as_dict

    return as_dict(layout) | {"axis_order": list(layout.axis_order)}
