"""Stand-ins for what a worker of a sweep does: they behave as the model's name tells them, without JAX."""

import os
import signal
import time
from pathlib import Path

from jaxscale.errors import MeasurementError
from jaxscale.measure.step import child_environment
from jaxscale.measure.surroundings import look_around
from jaxscale.types.measurement import Measurement, MeasureRequest
from tests.study.records import measurement

FOREVER_S = 600.0


def quick(request: MeasureRequest) -> Measurement:
    behaviour, _, number = request.shape.name.partition("-")
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "once" and not (marker := Path(request.trace_dir)).exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "hang":
        time.sleep(FOREVER_S)
    if behaviour == "slow":
        time.sleep(0.05)
    if behaviour == "fail":
        raise MeasurementError("no devices at all")
    here = look_around(child_environment(emulated=True))
    failed = behaviour == "exhaust"
    return measurement(
        f"{number or behaviour}-{os.getpid()}-{time.monotonic_ns()}", request=request, surroundings=here,
        status="out_of_memory" if failed else "ok", step_times_s=() if failed else (0.1, 0.1),
    )  # fmt: skip
