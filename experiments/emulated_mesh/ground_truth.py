"""Measure every layout of the study, one after the other in one process; what the store has is not measured again.

    python experiments/emulated_mesh/ground_truth.py truth.db [--minutes 5] [--only-compile] [--repeats 2 --every 4]

With JAX's persistent cache ($JAX_COMPILATION_CACHE_DIR, and $JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0), programs
can be compiled at any time (`--only-compile`), so that a quiet machine is needed for the steps themselves only. What
else runs on the machine is made to wait where the kernel allows it, and shares of the cores are printed.
"""

import argparse
import contextlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study import CLUSTER, MODELS, WORKLOAD, layouts, model

from jaxscale.measure.step_child import compile_step, initial_state, take_devices, timed_step
from jaxscale.measure.surroundings import load_afterwards, look_around
from jaxscale.study import Store
from jaxscale.types.measurement import Measurement, MeasureRequest

WARMUPS, STEPS = 2, 7
HIGHEST_PRIORITY = -20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--minutes", type=float, default=5.0, help="stop before the next layout after so long")
    parser.add_argument("--only-compile", action="store_true")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--repeats", type=int, default=1, help="measurements of each layout")
    parser.add_argument("--every", type=int, default=1, help="only each such layout")
    options = parser.parse_args()
    end = time.monotonic() + 60.0 * options.minutes
    if options.only_compile:
        for request in _requests(options, Counter()):
            compile_step(request, take_devices(CLUSTER.num_devices, emulated=True), _nobody)
        return
    come_first()
    store = Store(options.store)
    known = Counter((m.request.shape.name, m.request.layout) for m in store.measurements())
    for request in _requests(options, known):
        if time.monotonic() > end:
            return
        measurement, used, others = measured(request)
        store.save(measurement)
        took = f"{measurement.median_s:.4f} s +- {measurement.spread_s:.4f}"
        print(f"{request.shape.name} {request.layout} {took}, used {used:.0%}, others {others:.0%}", flush=True)


def _requests(options: argparse.Namespace, known: Counter) -> Iterator[MeasureRequest]:
    for name in options.model or MODELS:
        shape = model(name)
        for layout in layouts(name)[:: options.every]:
            if known[shape.name, layout] < options.repeats:
                yield MeasureRequest(
                    shape=shape, workload=WORKLOAD, layout=layout, cluster=CLUSTER, num_steps=STEPS,
                    num_warmup_steps=WARMUPS,
                )  # fmt: skip


def measured(request: MeasureRequest) -> tuple[Measurement, float, float]:
    """One measurement, and the shares of the cores that it and others used while its steps ran."""
    started_at, before = datetime.now(UTC).isoformat(timespec="seconds"), look_around({"JAX_PLATFORMS": "cpu"})
    fields: dict[str, Any] = {}

    def report(phase: str, **event: Any) -> None:
        fields.update(event)

    devices = take_devices(CLUSTER.num_devices, emulated=True)
    step, compiled = compile_step(request, devices, report)
    state, batch = initial_state(request, step, report)
    losses: list[float] = []
    times: list[float] = []
    busy_before, started = busy_s(), 0.0
    for number in range(WARMUPS + STEPS):
        if number == WARMUPS:
            busy_before, started = busy_s(), time.perf_counter()
        state, metrics, seconds = timed_step(compiled, state, batch)
        losses.append(metrics["loss"])
        times.append(seconds)
    cores_s = (time.perf_counter() - started) * before.num_cores
    machine, own = (after - sooner for after, sooner in zip(busy_s(), busy_before, strict=True))
    return Measurement(
        identifier=uuid.uuid4().hex, started_at=started_at, request=request, status="ok",
        device_kind=devices[0].device_kind, num_devices=len(devices), warmup_times_s=tuple(times[:WARMUPS]),
        step_times_s=tuple(times[WARMUPS:]), losses=tuple(losses), surroundings=load_afterwards(before), **fields,
    ), own / cores_s, (machine - own) / cores_s  # fmt: skip


def come_first() -> None:
    """Let whatever else runs on this machine wait, where the kernel allows it; threads started later inherit this."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, HIGHEST_PRIORITY)
        Path("/proc/self/autogroup").write_text(str(HIGHEST_PRIORITY))  # Linux shares cores by session first


def busy_s() -> tuple[float, float]:
    """CPU seconds of the whole machine since it started, and of this process."""
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    own = os.times()
    return (user + nice + system + irq + softirq + steal) / ticks, own.user + own.system


def _nobody(**event: Any) -> None:
    """Takes no report."""


if __name__ == "__main__":
    main()
