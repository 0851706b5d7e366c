"""Estimates as records: `estimate` for one layout, `estimate_rows` for a batch whose arrays have been priced."""

from collections.abc import Callable

import numpy as np

from jaxscale.cost import metrics
from jaxscale.cost.numbers import Number
from jaxscale.cost.parallel import Exchange
from jaxscale.cost.parts import Parts
from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.step import EstimateBatch, estimate_batch
from jaxscale.types import AXES, Cluster, Collective, Estimate, Layout, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types.legality import check_layout

NORMAL_80 = 1.2816  # half-width of a central 80% interval in standard deviations

At = Callable[[int], float]  # one row of a column


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
    again = _column(recomputed_flops(batch.parts))
    model_flops = float(p.tokens_per_step * metrics.model_flops_per_token(p))
    num_devices = float(p.num_chips * p.devices_per_chip)
    spread = float(np.exp(NORMAL_80 * float(p.stack.sigma_log)))
    collectives = collectives_rows(batch.parts, layouts)
    provenance = {"stack": p.stack.name, "stack_source": p.stack.source}

    def record(row: int) -> Estimate:
        step_time_s = step(row)
        hardware_flops = model_flops + again(row) * num_devices
        return Estimate(
            tier="predicted",
            layout=layouts.layout(row),
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

    return tuple(record(row) for row in range(len(layouts)))


def _column(value: Number) -> At:
    """A column of numbers, or one number for all rows, as a function of the row."""
    if getattr(value, "ndim", 0):
        return value.tolist().__getitem__
    constant = float(value)
    return lambda _: constant


def recomputed_flops(pieces: Parts) -> Number:
    """FLOPs that one device recomputes in a step, by MFU's convention."""
    layers = sum(pieces.slots[kind] * layer.recompute_flops for kind, layer in pieces.layers.items())
    return pieces.num_microbatches * layers


def collectives_rows(pieces: Parts, layouts: LayoutBatch) -> list[tuple[Collective, ...]]:
    """Every collective of each layout's step, joined over phases."""
    columns = [
        (
            exchange,
            [_column(getattr(exchange, name)) for name in ("count", "as_all_reduce", "bytes_each", "wire_bytes")],
        )
        for exchanges in pieces.exchanges
        for exchange in exchanges.each
    ]
    sources = [_column(exchanges.rows) for exchanges in pieces.exchanges for _ in exchanges.each]
    layers = [_column(exchanges.layers) for exchanges in pieces.exchanges for _ in exchanges.each]
    microbatches = _column(pieces.num_microbatches)
    degrees = {axis: getattr(layouts, axis).tolist() for axis in AXES}
    rows = []
    for row in range(len(layouts)):
        used = frozenset(axis for axis in AXES if degrees[axis][row] > 1)
        priced = [
            (exchange, at, int(source(row)), each(row) * (1.0 if exchange.phase == "step" else microbatches(row)))
            for (exchange, at), source, each in zip(columns, sources, layers, strict=True)
            if not used.isdisjoint(exchange.axes)
        ]
        rows.append(_joined(priced, used))
    return rows


def _joined(priced: list[tuple[Exchange, list[At], int, float]], used: frozenset[str]) -> tuple[Collective, ...]:
    """One layout's exchanges (with their columns, the row of those, and how often they happen), joined over phases."""
    totals: dict[tuple[str, tuple[str, ...], str], list[float]] = {}
    for exchange, (count_at, all_reduce_at, bytes_at, wire_at), source, repeats in priced:
        count = count_at(source) * repeats
        if not count:
            continue
        axes = tuple(axis for axis in exchange.axes if axis in used)
        kind = "all-reduce" if all_reduce_at(source) else exchange.kind
        sums = totals.setdefault((kind, axes, exchange.name), [0.0, 0.0, 0.0])
        sums[0] += count
        sums[1] += count * bytes_at(source)
        sums[2] += wire_at(source) * repeats
    return tuple(
        Collective(kind=kind, axes=axes, name=name, bytes_each=payload / count, count=count, wire_bytes=wire)
        for (kind, axes, name), (count, payload, wire) in totals.items()
    )


def bytes_by_axes(collectives: tuple[Collective, ...]) -> dict[str, float]:
    """Bytes that one device sends in a step, by the mesh axes of the group ("fsdp", "data+fsdp", ...)."""
    totals: dict[str, float] = {}
    for collective in collectives:
        name = "+".join(collective.axes)
        totals[name] = totals.get(name, 0.0) + collective.wire_bytes
    return totals
