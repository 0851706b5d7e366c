"""The training step: every layout as one JAX program.

`build_step(shape, workload, layout, devices)` returns a `TrainStep`: `.init()`, `.step(state, batch)`, `.lower()` for
described devices, `.gradients(state, batch)`. The room is three packages under it: `placement` (the table of sharding
rules, mesh, shards of parameters, layers of stages), `comms` (explicit collectives) and `program` (what one device
runs).
"""

from jaxscale.runtime.options import TrainOptions
from jaxscale.runtime.program.batch import NO_TARGET, Batch
from jaxscale.runtime.state import TrainState
from jaxscale.runtime.step import TrainStep, build_step

__all__ = ["NO_TARGET", "Batch", "TrainOptions", "TrainState", "TrainStep", "build_step"]
