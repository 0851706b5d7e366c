"""Estimates as records: `estimate` for one layout, `estimate_rows` for a batch whose arrays have been priced."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.cost import metrics
from jaxscale.cost.numbers import Number
from jaxscale.cost.parallel import Exchange
from jaxscale.cost.parts import Parts, price_parts
from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.step import EstimateBatch, estimate_batch
from jaxscale.types import AXES, Cluster, Collective, Estimate, Layout, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types.layout import SCHEDULES
from jaxscale.types.legality import check_layout

NORMAL_80 = 1.2816  # half-width of a central 80% interval in standard deviations

At = Callable[[int], float]  # one row of a column


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """An exchange with its columns as lists: `rows` says for every layout where in them its own figures stand."""

    exchange: Exchange
    rows: list[int]
    layers: At  # by layout
    count: At  # this and the rest by `rows`
    as_all_reduce: At
    bytes_each: At
    wire_bytes: At


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
    return estimate_rows(p, estimate_batch(p, batch), batch)[0]


def estimate_rows(p: Problem, batch: EstimateBatch, layouts: LayoutBatch) -> tuple[Estimate, ...]:
    """Write every layout of a batch as a record. Columns become lists first: plain numbers are quick to pick."""
    times = {part: _column(seconds) for part, seconds in batch.times.parts_s.items()}
    memory = {part: _column(size) for part, size in batch.memory_parts_bytes.items()}
    step, lower, upper = map(_column, (batch.step_time_s, batch.times.lower_s, batch.times.upper_s))
    total, limit, host = map(_column, (batch.memory_bytes, p.device.usable_hbm_bytes, batch.host_memory_bytes))
    again = _column(extra_flops(batch.parts, layouts, spmd=bool(p.stack.spmd)))
    model_flops = float(p.tokens_per_step * metrics.model_flops_per_token(p))
    num_devices = float(p.num_chips * p.devices_per_chip)
    spread = float(np.exp(NORMAL_80 * float(p.stack.sigma_log)))
    rows = tuple(layouts.layouts())
    collectives = collectives_rows(p, batch.parts, rows)
    provenance = {"stack": p.stack.name, "stack_source": p.stack.source}

    def record(row: int) -> Estimate:
        step_time_s = step(row)
        hardware_flops = model_flops + again(row) * num_devices
        return Estimate(
            tier="predicted",
            layout=rows[row],
            step_time_s=step_time_s,
            lower_s=lower(row),
            upper_s=upper(row),
            interval_80_s=(step_time_s / spread, step_time_s * spread),
            time_parts_s={part: at(row) for part, at in times.items()},
            memory_bytes=total(row),
            memory_limit_bytes=limit(row),
            memory_parts_bytes={part: at(row) for part, at in memory.items()},
            comm_bytes=bytes_by_axes(collectives[row]),
            model_flops=model_flops / num_devices,
            hardware_flops=hardware_flops / num_devices,
            mfu=float(metrics.mfu(p, model_flops, step_time_s)),
            hfu=float(metrics.mfu(p, hardware_flops, step_time_s)),
            tokens_per_s_per_chip=float(metrics.tokens_per_s_per_chip(p, step_time_s)),
            dollars_per_billion_tokens=float(metrics.dollars_per_billion_tokens(p, step_time_s)),
            host_memory_bytes=host(row),
            collectives=collectives[row],
            provenance=provenance,
        )

    return tuple(record(row) for row in range(len(rows)))


def _column(value: Number) -> At:
    """A column of numbers, or one number for all rows, as a function of the row."""
    if getattr(value, "ndim", 0):
        return value.tolist().__getitem__
    constant = float(value)
    return lambda _: constant


def extra_flops(pieces: Parts, layouts: LayoutBatch, *, spmd: bool) -> Number:
    """FLOPs that one device executes in a step beyond the model's.

    1f1b in one XLA program runs a stage's forward pass once to send its output on, and once more in its backward pass.
    """
    twice = spmd * (layouts.pipeline > 1) * (layouts.schedule == SCHEDULES.index("1f1b"))
    layers = sum(
        pieces.slots[kind] * (layer.extra_flops + twice * layer.forward_flops) for kind, layer in pieces.layers.items()
    )
    return pieces.num_microbatches * layers


def program_flops(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> float:
    """FLOPs that a device's compiled program holds in a step, loops run out.

    Those of a pipeline are more than a device executes: the program holds the work of every tick, and the head's on
    every stage, but a stage without work skips its turn. Nor does a program's text tell which pairs of tokens a
    kernel's window leaves out: it is read as if all were computed.
    """
    whole = dataclasses.replace(shape, window=0, global_interval=0)
    p = problem(whole, workload, cluster)
    pieces = price_parts(p, LayoutBatch.from_layouts([layout]))
    m, stages, chunks = float(np.ravel(pieces.num_microbatches)[0]), layout.pipeline, layout.virtual_stages
    forward, passes = (
        float(sum(np.ravel(pieces.slots[kind] * getattr(layer, name))[0] for kind, layer in pieces.layers.items()))
        for name in ("forward_flops", "whole_flops")
    )
    head = float(np.ravel(pieces.head.forward_flops)[0])
    if stages == 1:
        return m * (passes + 3.0 * head)
    if layout.schedule == "1f1b":
        return (m + 2.0 * (stages - 1)) * (forward + passes + 3.0 * head)
    if layout.schedule == "layered":
        return math.nan
    # The loss of a tick is rematerialised as a whole: the head runs forward once more.
    return (m * chunks + stages - 1) * (passes / chunks + 4.0 * head)


def collectives_rows(p: Problem, pieces: Parts, layouts: Sequence[Layout]) -> list[tuple[Collective, ...]]:
    """Every collective of each layout's step, joined over phases."""
    columns = [
        _Columns(exchange=exchange, rows=exchanges.rows.tolist(), layers=_column(exchanges.layers),
                 count=_column(exchange.count), as_all_reduce=_column(exchange.as_all_reduce),
                 bytes_each=_column(exchange.bytes_each), wire_bytes=_column(exchange.wire_bytes))
        for exchanges in pieces.exchanges
        for exchange in exchanges.each
    ]  # fmt: skip
    microbatches = _column(pieces.num_microbatches)
    spmd = bool(p.stack.spmd)
    return [_joined(columns, layout, row, microbatches(row), spmd=spmd) for row, layout in enumerate(layouts)]


def _joined(
    columns: list[_Columns], layout: Layout, row: int, microbatches: float, *, spmd: bool
) -> tuple[Collective, ...]:
    used = frozenset(axis for axis in AXES if getattr(layout, axis) > 1)
    totals: dict[tuple[str, tuple[str, ...], str], list[float]] = {}
    for column in columns:
        exchange, source = column.exchange, column.rows[row]
        if used.isdisjoint(exchange.axes):
            continue
        repeats = column.layers(row) * _repeats(exchange, layout, microbatches, spmd=spmd)
        count = column.count(source) * repeats
        if not count:
            continue
        axes = tuple(axis for axis in exchange.axes if axis in used)
        kind = "all-reduce" if column.as_all_reduce(source) else exchange.kind
        sums = totals.setdefault((kind, axes, exchange.name), [0.0, 0.0, 0.0])
        sums[0] += count
        sums[1] += count * column.bytes_each(source)
        sums[2] += column.wire_bytes(source) * repeats
    return tuple(
        Collective(kind=kind, axes=axes, name=name, bytes_each=payload / count, count=count, wire_bytes=wire)
        for (kind, axes, name), (count, payload, wire) in totals.items()
    )


def _repeats(exchange: Exchange, layout: Layout, microbatches: float, *, spmd: bool) -> float:
    """How often a step runs what an exchange counts for one microbatch.

    A pipeline in one XLA program repeats it every tick of its scan (a stage without work skips its turn, but the
    program holds it); 1f1b and layered run a stage's forward a second time in its backward pass. The weights of
    embedding and head are gathered before the scan, and held for the backward pass.
    """
    stages, chunks = layout.pipeline, layout.virtual_stages
    if exchange.phase == "step":
        return 1.0
    if stages == 1 or not spmd:
        return microbatches
    of_ends = "pipeline" in exchange.axes and exchange.axis != "pipeline"
    if of_ends and exchange.phase == "backward" and exchange.kind == "all-gather":
        return 0.0
    if layout.schedule == "layered":
        return _layered_repeats(exchange, layout, microbatches)
    if of_ends and exchange.kind == "all-gather":
        return 1.0
    every_tick = of_ends or exchange.axis == "pipeline" or exchange.name in ("head", "loss")
    if layout.schedule in ("gpipe", "interleaved"):
        ticks = microbatches * chunks + stages - 1
        return ticks if every_tick else ticks / chunks
    ticks = microbatches + 2 * (stages - 1)
    return ticks if every_tick or exchange.phase != "forward" else 2.0 * ticks


def _layered_repeats(exchange: Exchange, layout: Layout, microbatches: float) -> float:
    """As `_repeats`, for the two scans of `jaxscale.runtime.program.modular`: forward, and backward with the head."""
    stages, chunks = layout.pipeline, layout.virtual_stages
    if exchange.axis == "fsdp":  # counted by their share of once a step
        again = exchange.kind == "all-gather" and exchange.phase == "backward"
        # The backward pass starts with the chunk that the forward pass ended with, whose weights are there.
        return microbatches * ((chunks - 1) / chunks if again else 1.0)
    units = chunks * max(microbatches, stages)
    ahead, back = units + stages - 2, units + stages - 1
    if exchange.axis == "pipeline":
        # Nothing reads the very last send; XLA sees that where the ticks that drain are a single one, and no loop.
        return ahead if exchange.phase == "forward" else back - (stages == 2)
    if exchange.name in ("head", "loss"):
        return back
    runs = ahead + back if exchange.phase == "forward" else back
    return runs if exchange.name == "embedding" else runs / chunks


def bytes_by_axes(collectives: tuple[Collective, ...]) -> dict[str, float]:
    """Bytes that one device sends in a step, by the mesh axes of the group ("fsdp", "data+fsdp", ...)."""
    totals: dict[str, float] = {}
    for collective in collectives:
        name = "+".join(collective.axes)
        totals[name] = totals.get(name, 0.0) + collective.wire_bytes
    return totals
