"""The step as a whole: `estimate_batch` for a batch of layouts, `estimate` for one."""

from dataclasses import dataclass

import numpy as np

from jaxscale.cost import memory, metrics, stages
from jaxscale.cost.numbers import Number
from jaxscale.cost.parallel import Exchange
from jaxscale.cost.parts import Parts, price_parts
from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.timeline import StepTimes, step_times
from jaxscale.types import AXES, Cluster, Collective, Estimate, Layout, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types.layout import SCHEDULES
from jaxscale.types.legality import check_layout


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
    times = step_times(p, layouts, pieces, held_weights.state.elements, bounds=bounds)
    if p.stack.spmd:
        memory_parts, host = memory.peak_parts(p, layouts, pieces, held_weights)
    else:
        memory_parts, host = stages.stage_peaks(p, layouts, pieces)
    total = sum(memory_parts.values())
    return EstimateBatch(
        step_time_s=times.step_time_s, memory_bytes=total, times=times, memory_parts_bytes=memory_parts,
        host_memory_bytes=host, parts=pieces,
    )  # fmt: skip


NORMAL_80 = 1.2816  # half-width of a central 80% interval in standard deviations


def estimate(
    shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout, stack: Stack | None = None
) -> Estimate:
    """Estimate one layout: time, memory, communication, MFU and money of one optimizer step.

    Raises LayoutError where the layout cannot run this model and batch on this cluster; a layout that is legal but does
    not fit in memory is a result (`Estimate.fits`), not an error.
    """
    check_layout(shape, workload, layout, cluster.num_devices)
    p = problem(shape, workload, cluster, stack)
    batch = LayoutBatch.from_layouts([layout])
    return estimate_row(p, estimate_batch(p, batch), batch, 0)


def estimate_row(p: Problem, batch: EstimateBatch, layouts: LayoutBatch, row: int) -> Estimate:
    """Read one layout's record off a batch of estimates."""

    def at(value: Number) -> float:
        return _at(value, row)

    step_time_s = at(batch.step_time_s)
    model_flops = float(p.tokens_per_step * metrics.model_flops_per_token(p))
    num_devices = float(p.num_chips * p.devices_per_chip)
    again = at(recomputed_flops(batch.parts)) * layouts.pipeline[row]
    hardware_flops = model_flops + again * float(num_devices / layouts.pipeline[row])
    spread = np.exp(NORMAL_80 * float(p.stack.sigma_log))
    collectives = collectives_row(p, batch, layouts, row)
    return Estimate(
        tier="predicted",
        layout=layouts.layout(row),
        step_time_s=step_time_s,
        lower_s=at(batch.times.lower_s),
        upper_s=at(batch.times.upper_s),
        interval_80_s=(step_time_s / spread, step_time_s * spread),
        time_parts_s={part: at(seconds) for part, seconds in batch.times.parts_s.items()},
        memory_bytes=at(batch.memory_bytes),
        memory_limit_bytes=at(p.device.usable_hbm_bytes),
        memory_parts_bytes={part: at(size) for part, size in batch.memory_parts_bytes.items()},
        comm_bytes=bytes_by_axes(collectives),
        model_flops=model_flops / num_devices,
        hardware_flops=hardware_flops / num_devices,
        mfu=float(metrics.mfu(p, model_flops, step_time_s)),
        hfu=float(metrics.mfu(p, hardware_flops, step_time_s)),
        tokens_per_s_per_chip=float(metrics.tokens_per_s_per_chip(p, step_time_s)),
        dollars_per_billion_tokens=float(metrics.dollars_per_billion_tokens(p, step_time_s)),
        host_memory_bytes=at(batch.host_memory_bytes),
        collectives=collectives,
        provenance={"stack": p.stack.name, "stack_source": p.stack.source},
    )


def recomputed_flops(pieces: Parts) -> Number:
    """FLOPs that one device recomputes in a step, by MFU's convention."""
    layers = sum(pieces.slots[kind] * layer.recompute_flops for kind, layer in pieces.layers.items())
    return pieces.num_microbatches * layers


def collectives_row(p: Problem, batch: EstimateBatch, layouts: LayoutBatch, row: int) -> tuple[Collective, ...]:
    """Every collective of one layout's step, joined over phases."""
    pieces = batch.parts
    microbatches = float(np.broadcast_to(pieces.num_microbatches, (len(layouts),))[row])
    used = frozenset(axis for axis in AXES if getattr(layouts, axis)[row] > 1)
    totals: dict[tuple[str, tuple[str, ...], str], list[float]] = {}
    for exchanges in pieces.exchanges:
        source, layers = int(exchanges.rows[row]), _at(exchanges.layers, row)
        for exchange in exchanges.each:
            if used.isdisjoint(exchange.axes):
                continue
            repeats = layers * _repeats(p, exchange, layouts, row, microbatches)
            count = _at(exchange.count, source) * repeats
            if not count:
                continue
            axes = tuple(axis for axis in exchange.axes if axis in used)
            kind = "all-reduce" if _at(exchange.as_all_reduce, source) else exchange.kind
            sums = totals.setdefault((kind, axes, exchange.name), [0.0, 0.0, 0.0])
            sums[0] += count
            sums[1] += count * _at(exchange.bytes_each, source)
            sums[2] += _at(exchange.wire_bytes, source) * repeats
    return tuple(
        Collective(kind=kind, axes=axes, name=name, bytes_each=payload / count, count=count, wire_bytes=wire)
        for (kind, axes, name), (count, payload, wire) in totals.items()
    )


def _repeats(p: Problem, exchange: Exchange, layouts: LayoutBatch, row: int, microbatches: float) -> float:
    """How often a step runs what an exchange counts for one microbatch.

    A pipeline in one XLA program repeats it every tick of its scan (a stage without work skips its turn, but the
    program holds it); 1f1b runs a stage's forward a second time in its backward pass. The weights of embedding and head
    are gathered before the scan.
    """
    stages, chunks = float(layouts.pipeline[row]), float(layouts.virtual_stages[row])
    if exchange.phase == "step":
        return 1.0
    if stages == 1 or not p.stack.spmd:
        return microbatches
    of_ends = "pipeline" in exchange.axes and exchange.axis != "pipeline"
    if of_ends and exchange.kind == "all-gather":
        return 1.0
    every_tick = of_ends or exchange.axis == "pipeline" or exchange.name in ("head", "loss")
    if SCHEDULES[layouts.schedule[row]] in ("gpipe", "interleaved"):
        ticks = microbatches * chunks + stages - 1
        return ticks if every_tick else ticks / chunks
    ticks = microbatches + 2 * (stages - 1)
    return ticks if every_tick or exchange.phase != "forward" else 2.0 * ticks


def _at(value: Number, row: int) -> float:
    return float(value[row]) if getattr(value, "ndim", 0) else float(value)


def bytes_by_axes(collectives: tuple[Collective, ...]) -> dict[str, float]:
    """Bytes that one device sends in a step, by the mesh axes of the group ("fsdp", "data+fsdp", ...)."""
    totals: dict[str, float] = {}
    for collective in collectives:
        name = "+".join(collective.axes)
        totals[name] = totals.get(name, 0.0) + collective.wire_bytes
    return totals
