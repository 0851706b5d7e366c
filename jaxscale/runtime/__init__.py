"""The training step: every layout as one JAX program.

`build_step(shape, workload, layout, devices)` returns a `TrainStep`: `.init()`, `.step(state, batch)`, `.lower()` for
described devices, `.gradients(state, batch)`. The room is three packages under it: `placement` (the table of sharding
rules, mesh, shards of parameters, layers of stages), `comms` (explicit collectives) and `program` (what one device
runs). Names are loaded when they are asked for: `launch_local` starts processes that use JAX, and needs none itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxscale.runtime.options import TrainOptions
    from jaxscale.runtime.program.batch import NO_TARGET, Batch
    from jaxscale.runtime.state import TrainState
    from jaxscale.runtime.step import TrainStep, build_step

__all__ = ["NO_TARGET", "Batch", "TrainOptions", "TrainState", "TrainStep", "build_step"]

_HOMES = {
    "NO_TARGET": "program.batch",
    "Batch": "program.batch",
    "TrainOptions": "options",
    "TrainState": "state",
    "TrainStep": "step",
    "build_step": "step",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
