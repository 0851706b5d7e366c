"""What may be tried and what was: layouts with their predicted time, as points that a surrogate can learn over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.types import AXES, Layout
from jaxscale.types.layout import SCHEDULES, SHARDS
from jaxscale.types.remat import remat_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A layout that may be tried, and what the predictor says of it."""

    layout: Layout
    predicted_s: float  # step time
    memory_frac: float = 0.0  # predicted share of a device's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A layout that was tried; `seconds` is None where it ran out of memory, hung or died."""

    layout: Layout
    seconds: float | None
    message: str = ""  # why it failed


def feature_names() -> tuple[str, ...]:
    """Names of the columns of `features`."""
    return (
        *AXES, "microbatch", "virtual_stages", "sequence_parallel", "params_shard", "optimizer_shard", "saved_ops",
        "offload", "gathered_context", *(f"schedule_{name}" for name in SCHEDULES),
    )  # fmt: skip


def features(layouts: Sequence[Layout]) -> np.ndarray:
    """Layouts as points, [n, features]: logarithms of degrees, 0 or 1 for choices; a distance of 1 is one doubling."""
    return np.array([_row(layout) for layout in layouts], dtype=float)


def _row(layout: Layout) -> list[float]:
    policy = remat_policy(layout.remat)
    piped = layout.pipeline > 1
    offload = layout.offload_optimizer or bool(policy.offloaded) or policy.offload_layer_input
    return [
        *(math.log2(getattr(layout, axis)) for axis in AXES),
        math.log2(layout.microbatch_size),
        math.log2(layout.virtual_stages),
        float(layout.sequence_parallel and layout.tensor > 1),
        SHARDS.index(layout.params_shard) / 2.0,
        SHARDS.index(layout.optimizer_shard) / 2.0,
        math.log2(1 + len(policy.saved)) / 2.0,
        float(offload),
        float(layout.context_method == "all_gather" and layout.context > 1),
        *(float(piped and layout.schedule == name) for name in SCHEDULES),
    ]
