"""The step as a whole, for a batch of layouts."""

from dataclasses import dataclass

import numpy as np

from jaxscale.cost import memory, stages
from jaxscale.cost.numbers import Number
from jaxscale.cost.parts import Parts, price_parts
from jaxscale.cost.problem import Problem
from jaxscale.cost.timeline import StepTimes, step_times
from jaxscale.types import LayoutBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateBatch:
    """Estimates of `n` layouts; arrays [n], parts as dicts of arrays."""

    step_time_s: Number
    memory_bytes: Number
    times: StepTimes
    memory_parts_bytes: dict[str, Number]
    host_memory_bytes: Number
    parts: Parts

    def fits(self, limit_bytes: Number) -> np.ndarray:
        """Which layouts stay within `limit_bytes`."""
        return self.memory_bytes <= limit_bytes


def estimate_batch(p: Problem, layouts: LayoutBatch, *, bounds: bool = True) -> EstimateBatch:
    """Estimate time and memory of every layout of a batch; a ranking does not need `bounds` and is faster without."""
    pieces = price_parts(p, layouts)
    held_weights = memory.weight_bytes(p, layouts)
    times = step_times(p, layouts, pieces, held_weights.state, bounds=bounds)
    if p.stack.spmd:
        memory_parts, host = memory.peak_parts(p, layouts, pieces, held_weights)
    else:
        memory_parts, host = stages.stage_peaks(p, layouts, pieces)
    total = sum(memory_parts.values())
    return EstimateBatch(
        step_time_s=times.step_time_s, memory_bytes=total, times=times, memory_parts_bytes=memory_parts,
        host_memory_bytes=host, parts=pieces,
    )  # fmt: skip
