"""Steps timed turn by turn with a reference step, for machines whose speed drifts.

A shared machine is faster in one minute than in the next, by more than what is to be told apart: virtual cores share
physical ones with strangers, and clocks follow heat. A step and a reference that take turns meet the same minute, so
that their ratio holds where neither time does.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxscale.measure.step_child import timed_step
from jaxscale.runtime import TrainOptions, build_step
from jaxscale.runtime.data import SyntheticTokens, load_batch
from jaxscale.types import Layout, ModelShape, Workload

WARMUPS = 2


@dataclass(slots=True, kw_only=True)
class RunningStep:
    """A compiled training step with the state that it carries from run to run, and how long each run took."""

    compiled: Any
    state: Any
    batch: Any
    times_s: list[float] = field(default_factory=list)

    def run(self) -> float:
        """One more step; returns its seconds, until the last device is done."""
        self.state, _, seconds = timed_step(self.compiled, self.state, self.batch)
        self.times_s.append(seconds)
        return seconds


def running_step(
    shape: ModelShape, workload: Workload, layout: Layout, devices: Sequence[Any], options: TrainOptions | None = None
) -> RunningStep:
    """Compile a step on some devices, and warm it up."""
    import jax

    step = build_step(shape, workload, layout, list(devices), options=options or TrainOptions())
    source = SyntheticTokens(seq_len=workload.seq_len, vocab_size=shape.vocab_size, seed=0)
    batch = load_batch(source, 0, workload, step.batch_sharding)
    compiled = step.lower().compile()
    running = RunningStep(compiled=compiled, state=jax.block_until_ready(step.init()), batch=batch)
    for _ in range(WARMUPS):
        running.run()
    running.times_s.clear()
    return running


def ratios(step: RunningStep, reference: RunningStep, count: int) -> list[float]:
    """`count` times of a step, each over the mean of the reference's just before and just after it."""
    before, found = reference.run(), []
    for _ in range(count):
        seconds = step.run()
        after = reference.run()
        found.append(2.0 * seconds / (before + after))
        before = after
    return found


def typical_s(reference: RunningStep) -> float:
    """Seconds of the reference over all its turns: what ratios are multiplied with."""
    return statistics.median(reference.times_s)
