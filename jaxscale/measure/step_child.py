"""One measurement, in a process of its own: a `MeasureRequest` as JSON on stdin, events on a pipe.

Run as `python -m jaxscale.measure.step_child PIPE`.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from jaxscale.errors import MeasurementError
from jaxscale.measure.events import Reporter, die_with_parent
from jaxscale.measure.heap import keep_freed_memory
from jaxscale.measure.hosts import join, this_host
from jaxscale.types.codec import decode, encode
from jaxscale.types.measurement import MeasureRequest

KIB = 1024
TRACED_STEPS = 2


def main(arguments: list[str]) -> None:
    """Read a request, run it, report every phase as it ends."""
    die_with_parent()
    report = Reporter(int(arguments[0]))
    request: MeasureRequest = decode(MeasureRequest, json.load(sys.stdin))
    try:
        run(request, report)
    except Exception as error:  # the end of a process: whatever went wrong is told to the one that asked
        words = str(error).strip().partition("\n" + "-" * 20)[0]  # without JAX's remark on its tracebacks
        report(phase="error", message=f"{type(error).__name__}: {words}")


def run(request: MeasureRequest, report: Reporter) -> None:
    """Compile, warm up, time the steps, and look at memory."""
    join(this_host(), emulated=request.emulated)
    devices = take_devices(request.cluster.num_devices, emulated=request.emulated)
    report(phase="devices", device_kind=devices[0].device_kind, num_devices=len(devices))
    step, compiled = compile_step(request, devices, report)
    state, batch = initial_state(request, step, report)
    noise = step.noise_scale()
    for phase, count in (("warmup", request.num_warmup_steps), ("step", request.num_steps)):
        for _ in range(count):
            state, metrics, seconds = timed_step(compiled, state, batch)
            report(phase=phase, seconds=seconds, loss=metrics["loss"])
            if not math.isfinite(metrics["loss"]):
                return
            if noise is not None:
                noise = noise.after(metrics["small_batch_square"], metrics["big_batch_square"])
    if noise is not None:
        report(phase="noise", noise=encode(noise))
    peak_bytes, source = peak_memory(devices)
    report(phase="memory", peak_memory_bytes=peak_bytes, memory_source=source)
    if request.trace_dir:
        _trace(request.trace_dir, compiled, state, batch)
    report(phase="done")


def take_devices(count: int, *, emulated: bool) -> list[Any]:
    """Emulate `count` devices, shared out over the hosts, or take what is there."""
    import jax

    if emulated:
        hosts = this_host().count
        if count % hosts:
            raise MeasurementError(f"{count} emulated devices cannot be shared out evenly over {hosts} hosts")
        keep_freed_memory()
        jax.config.update("jax_num_cpu_devices", count // hosts)
    devices = jax.devices()
    if len(devices) < count:
        raise MeasurementError(f"{count} devices are needed, {len(devices)} are there: {devices[0].device_kind}")
    return devices[:count]


def compile_step(request: MeasureRequest, devices: list[Any], report: Callable[..., None]) -> tuple[Any, Any]:
    """The step of a request, and the program that the compiler made of it."""
    from jaxscale.runtime import TrainOptions, build_step

    started = time.perf_counter()
    options = TrainOptions(noise_scale=request.noise_scale)
    step = build_step(request.shape, request.workload, request.layout, devices, options=options, seed=request.seed)
    lowered = step.lower()
    between = time.perf_counter()
    compiled = lowered.compile()
    report(phase="compile", lower_s=between - started, compile_s=time.perf_counter() - between)
    return step, compiled


def initial_state(request: MeasureRequest, step: Any, report: Callable[..., None]) -> tuple[Any, Any]:
    """The state of step 0 and a batch, on the devices."""
    import jax

    from jaxscale.runtime.data import SyntheticTokens, load_batch

    started = time.perf_counter()
    state = jax.block_until_ready(step.init())
    source = SyntheticTokens(seq_len=request.workload.seq_len, vocab_size=request.shape.vocab_size, seed=request.seed)
    batch = jax.block_until_ready(load_batch(source, 0, request.workload, step.batch_sharding))
    report(phase="init", init_s=time.perf_counter() - started)
    return state, batch


def timed_step(compiled: Any, state: Any, batch: Any) -> tuple[Any, dict[str, float], float]:
    """Run one step until the last device is done; returns the new state, the metrics and the seconds."""
    import jax

    started = time.perf_counter()
    state, metrics = jax.block_until_ready(compiled(state, batch))
    seconds = time.perf_counter() - started
    return state, {name: float(value) for name, value in metrics.items()}, seconds


def peak_memory(devices: list[Any]) -> tuple[float, str]:
    """Peak bytes of this host's fullest device by its own statistics; else of this process, which emulates them all."""
    import jax

    stats = [device.memory_stats() for device in devices if device.process_index == jax.process_index()]
    peaks = [float(found["peak_bytes_in_use"]) for found in stats if found and "peak_bytes_in_use" in found]
    if peaks:
        return max(peaks), "device"
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB), "process"


def _trace(folder: str, compiled: Any, state: Any, batch: Any) -> None:
    """A profiler trace of further steps: tracing costs time, so they do not count."""
    import jax

    with jax.profiler.trace(folder):
        for _ in range(TRACED_STEPS):
            state, _, _ = timed_step(compiled, state, batch)


if __name__ == "__main__":
    main(sys.argv[1:])
