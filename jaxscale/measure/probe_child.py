"""The microbenchmarks, run as `python -m jaxscale.measure.probe_child PIPE`: a `ProbePlan` as JSON on stdin.

Every operation runs on all devices at once, since emulated devices share cores and real ones share links and power.
It is repeated inside one program, each time on what the last time gave, so that the compiler keeps every one; the time
of one is the slope between a short and a long program, which holds neither dispatch nor the read of the result. Of
several trials the best counts: whatever else runs on the machine only ever adds. Small whole steps take turns with one
of them, whose typical time sets the scale of all.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxscale.aot.machine import available_memory_bytes
from jaxscale.errors import MeasurementError
from jaxscale.measure.events import Reporter, die_with_parent
from jaxscale.measure.pace import ratios, running_step, typical_s
from jaxscale.measure.probe import COLLECTIVES, ProbePlan
from jaxscale.measure.step_child import take_devices
from jaxscale.types.codec import decode, encode
from jaxscale.types.measurement import ProbeSample

Array = jax.Array
Operation = Callable[..., Array]  # (x, *constants) -> x of the same shape, on one device

SHORT_REPEATS = 2
TARGET_S = 0.03  # what the long program should add, so that a timer and a scheduler do not matter
MAX_REPEATS = 256
VECTOR_MULTIPLY_ADDS = 64  # of one element in one pass: enough to be bound by arithmetic
FLOAT32_BYTES = 4
TURNS_A_TRIAL = 2  # of a small step


def main(arguments: list[str]) -> None:
    """Read a plan, report every sample as it is taken."""
    die_with_parent()
    report = Reporter(int(arguments[0]))
    plan: ProbePlan = decode(ProbePlan, json.load(sys.stdin))
    try:
        devices = take_devices(plan.num_devices, emulated=plan.emulated)
        report(phase="devices", device_kind=devices[0].device_kind, memory_bytes=_memory_bytes(devices))
        for sample in samples(plan, devices):
            report(phase="sample", sample=encode(sample))
        reference_s = report_steps(plan, devices, report) if plan.steps else 0.0
        report(phase="done", done=True, reference_s=reference_s)
    except (RuntimeError, MeasurementError) as error:  # JAX's runtime errors among them
        report(phase="error", message=str(error))


def _memory_bytes(devices: list[Any]) -> float:
    """What one device can allocate: as it says itself, else its share of what is free here."""
    stats = devices[0].memory_stats() or {}
    return float(stats.get("bytes_limit") or available_memory_bytes() / len(devices))


def samples(plan: ProbePlan, devices: list[Any]) -> Iterator[ProbeSample]:
    """Take every sample of a plan."""
    bench = Bench(devices=devices, num_trials=plan.num_trials)
    yield ProbeSample(what="dispatch", dtype="float32", seconds=bench.dispatch_s())
    for dtype in plan.dtypes:
        for m, k in plan.matmul_shapes:
            yield bench.matmul(m, k, dtype)
    for elements in plan.stream_elements:
        yield bench.copy(elements)
        yield bench.vector(elements)
        yield bench.host_copy(elements)
    for kind in COLLECTIVES:
        for size in plan.group_sizes:
            for payload_bytes in plan.payload_bytes:
                yield bench.collective(kind, size, payload_bytes)


def report_steps(plan: ProbePlan, devices: list[Any], report: Reporter) -> float:
    """Time the small steps of a plan in turns with the first of them; returns that one's typical seconds."""
    reference = running_step(plan.steps[0].shape, plan.steps[0].workload, plan.steps[0].layout, devices)
    for step in plan.steps:
        running = running_step(step.shape, step.workload, step.layout, devices)
        ratio = statistics.median(ratios(running, reference, TURNS_A_TRIAL * plan.num_trials))
        report(phase="step", step=encode(step), ratio=ratio)
    return typical_s(reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Devices, and how to time an operation on all of them."""

    devices: list[Any]
    num_trials: int

    def matmul(self, m: int, k: int, dtype: str) -> ProbeSample:
        """[m, k] x [k, k] on every device."""
        weight = np.random.default_rng(0).standard_normal((k, k)) / np.sqrt(k)  # keeps the scale of what passes through
        seconds = self._seconds(lambda x, w: x @ w, (m, k), jnp.dtype(dtype), constants=(weight,))
        return ProbeSample(what="matmul", dtype=dtype, seconds=seconds, sizes=(m, k, k), flops=2.0 * m * k * k)

    def copy(self, elements: int) -> ProbeSample:
        """One pass that reads and writes every element."""
        seconds = self._seconds(lambda x: x * 0.999 + 0.001, (elements,), jnp.float32)
        return ProbeSample(
            what="copy",
            dtype="float32",
            seconds=seconds,
            sizes=(elements,),
            payload_bytes=2.0 * FLOAT32_BYTES * elements,
        )

    def vector(self, elements: int) -> ProbeSample:
        """Many multiply-adds on every element in one pass."""

        def operation(x: Array) -> Array:
            y = x
            for _ in range(VECTOR_MULTIPLY_ADDS):
                y = y * x + 0.001
            return y * 1e-3

        seconds = self._seconds(operation, (elements,), jnp.float32)
        flops = 2.0 * VECTOR_MULTIPLY_ADDS * elements
        return ProbeSample(what="vector", dtype="float32", seconds=seconds, sizes=(elements,), flops=flops)

    def host_copy(self, elements: int) -> ProbeSample:
        """Device to a new array in host memory, one device at a time."""
        device = self.devices[0]
        best_s = math.inf
        for trial in range(self.num_trials):
            source = jax.block_until_ready(jax.device_put(jnp.full((elements,), float(trial)), device))
            started = time.perf_counter()
            np.array(source, copy=True)
            best_s = min(best_s, time.perf_counter() - started)
        return ProbeSample(
            what="host_copy", dtype="float32", seconds=best_s, sizes=(elements,),
            payload_bytes=float(FLOAT32_BYTES * elements),
        )  # fmt: skip

    def collective(self, kind: str, size: int, payload_bytes: int) -> ProbeSample:
        """One collective over every group of `size` neighbours at once."""
        elements = max(payload_bytes // FLOAT32_BYTES // size, 1) * size
        local = elements // size if kind == "all-gather" else elements
        seconds = self._seconds(_collective(kind, size), (local,), jnp.float32, group=size)
        return ProbeSample(
            what=kind, dtype="float32", seconds=seconds, sizes=(local,), group_size=size,
            payload_bytes=float(FLOAT32_BYTES * elements),
        )  # fmt: skip

    def dispatch_s(self) -> float:
        """Host time of a program that does next to nothing on every device."""
        return self._program_s(self._program(lambda x: x + 1.0, (8,), jnp.dtype("float32"), group=1), ())

    def _seconds(
        self, operation: Operation, shape: tuple[int, ...], dtype: Any, *, constants: tuple = (), group: int = 1
    ) -> float:
        """Seconds of one `operation`: the slope over its repeats in a program."""
        run = self._program(operation, shape, jnp.dtype(dtype), group=group)
        values = tuple(self._everywhere(jnp.asarray(value, dtype)) for value in constants)
        short_s = self._program_s(run, values, SHORT_REPEATS)
        trial_s = max(self._program_s(run, values, 2 * SHORT_REPEATS) - short_s, 1e-7) / SHORT_REPEATS
        repeats = min(max(int(TARGET_S / trial_s), 4 * SHORT_REPEATS), MAX_REPEATS)
        long_s = self._program_s(run, values, repeats)
        return max(long_s - short_s, 1e-9) / (repeats - SHORT_REPEATS)

    def _program(self, operation: Operation, shape: tuple[int, ...], dtype: Any, *, group: int) -> Callable[..., Array]:
        """A jitted (repeats, *constants) -> [devices], `operation` applied `repeats` times on every device."""
        mesh = Mesh(np.array(self.devices).reshape(-1, group), ("outer", "inner"))
        start = jax.device_put(
            jnp.full((len(self.devices), *shape), 0.5, dtype),
            NamedSharding(mesh, PartitionSpec(("outer", "inner"))),
        )

        def local(x: Array, repeats: Array, *constants: Array) -> Array:
            out = lax.fori_loop(0, repeats, lambda _, y: operation(y, *constants), x[0])
            return out.ravel()[:1]

        def whole(x: Array, repeats: Array, *constants: Array) -> Array:
            specs = (PartitionSpec(("outer", "inner")), PartitionSpec(), *(PartitionSpec() for _ in constants))
            return jax.shard_map(
                local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(("outer", "inner")), check_vma=False
            )(x, repeats, *constants)

        jitted = jax.jit(whole)
        return lambda repeats, *constants: jitted(start, jnp.int32(repeats), *constants)

    def _program_s(self, run: Callable[..., Array], constants: tuple, repeats: int = 1) -> float:
        """Best seconds of a program until the last device is done; its first call compiles and does not count."""
        jax.block_until_ready(run(repeats, *constants))
        best_s = math.inf
        for _ in range(self.num_trials):
            started = time.perf_counter()
            jax.block_until_ready(run(repeats, *constants))
            best_s = min(best_s, time.perf_counter() - started)
        return best_s

    def _everywhere(self, value: Array) -> Array:
        mesh = Mesh(np.array(self.devices), ("all",))
        return jax.device_put(value, NamedSharding(mesh, PartitionSpec()))


def _collective(kind: str, size: int) -> Operation:
    """A collective over the inner axis whose result has its input's shape; what is added to it is small."""
    ring = [(rank, (rank + 1) % size) for rank in range(size)]

    def gather(x: Array) -> Array:
        gathered = lax.all_gather(x, "inner", tiled=True)  # [local] -> [size * local]
        neighbour = (lax.axis_index("inner") + 1) % size
        return lax.dynamic_slice(gathered, (neighbour * x.shape[0],), x.shape)

    def scatter(x: Array) -> Array:
        mine = lax.psum_scatter(x, "inner", tiled=True) / size  # [elements] -> [elements / size]
        return lax.dynamic_update_slice(x, mine, (0,))

    operations: dict[str, Operation] = {
        "all-gather": gather,
        "reduce-scatter": scatter,
        "all-reduce": lambda x: lax.psum(x, "inner") / size,
        "all-to-all": lambda x: lax.all_to_all(x, "inner", split_axis=0, concat_axis=0, tiled=True),
        "collective-permute": lambda x: lax.ppermute(x, "inner", ring),
    }
    return operations[kind]


if __name__ == "__main__":
    main(sys.argv[1:])
