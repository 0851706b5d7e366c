"""Stands in for `jaxscale.measure.step_child`: behaves as the model's name tells it, without JAX."""

import json
import os
import signal
import sys
import time

from jaxscale.measure.events import Reporter
from jaxscale.types.codec import decode, encode
from jaxscale.types.measurement import MeasureRequest
from jaxscale.types.noise import NoiseScale

FOREVER_S = 600


def main() -> None:
    request: MeasureRequest = decode(MeasureRequest, json.load(sys.stdin))
    report = Reporter(int(sys.argv[1]))
    report(phase="devices", device_kind="fake", num_devices=request.cluster.num_devices)
    report(phase="compile", lower_s=0.5, compile_s=2.0)
    report(phase="warmup", seconds=9.0, loss=5.0)
    report(phase="step", seconds=1.0, loss=4.0)
    behaviour = request.shape.name
    if behaviour == "hang":
        time.sleep(FOREVER_S)
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "abort":
        sys.exit("terminate called after throwing an instance of 'std::bad_alloc'")
    if behaviour == "exhaust":
        report(phase="error", message="JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
        return
    if behaviour == "diverge":
        report(phase="step", seconds=1.0, loss=float("nan"))
        return
    if behaviour == "noisy":
        noise = NoiseScale(small_batch=1, big_batch=4).after(small_square=7.0, big_square=4.0)
        report(phase="noise", noise=encode(noise))
    report(phase="memory", peak_memory_bytes=7.0, memory_source="device")
    report(phase="done")


main()
