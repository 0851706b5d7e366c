"""A layout's neighbours: every layout that differs in one decision."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from jaxscale.cost.problem import problem
from jaxscale.search.limits import SHARD_FIELDS
from jaxscale.search.search import estimates
from jaxscale.search.space import OPTIONS, chunks, schedules_of, space
from jaxscale.types import AXES, REMAT_POLICIES, Cluster, Estimate, Layout, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types._check import divisors
from jaxscale.types.layout import CONTEXT_METHODS, SCHEDULES, SHARDS, field_code
from jaxscale.types.legality import illegal_reasons
from jaxscale.types.search import Change

NUM_NEAREST = 3


def single_changes(
    shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout, stack: Stack | None = None
) -> tuple[Change, ...]:
    """Every legal layout that is one decision away from `layout`, priced, fastest first.

    A decision is a factor moved from one axis to another, the microbatch size, the remat policy, what is sharded over
    what, sequence parallelism, the schedule with its virtual stages, the context method, or where the optimizer state
    lives. `layout` itself need not be legal.
    """
    found: dict[Layout, tuple[str, str]] = {}
    for kind, what, neighbour in _neighbours(shape, workload, layout):
        if neighbour != layout:
            found.setdefault(neighbour, (kind, what))
    if not found:
        return ()
    batch = LayoutBatch.from_layouts(list(found))
    broken = illegal_reasons(shape, workload, batch, cluster.num_devices).values()
    legal = np.flatnonzero(~np.logical_or.reduce(list(broken)))
    if not len(legal):
        return ()
    changes = []
    for record in estimates(problem(shape, workload, cluster, stack), batch.take(legal)):
        kind, what = found[record.layout]
        changes.append(Change(what=what, kind=kind, estimate=record))
    return tuple(sorted(changes, key=lambda change: (change.estimate.step_time_s, change.estimate.memory_bytes)))


def nearest_legal(
    shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout, stack: Stack | None = None
) -> tuple[Estimate, ...]:
    """The legal layouts that differ least from one that is not, fastest first.

    A degree differs by its number of doublings, an option by one.
    """
    nearest, closest = math.inf, []
    for chunk in chunks(space(shape, workload, cluster.num_devices)):
        distance = _distance(chunk.layouts, layout)
        broken = illegal_reasons(shape, workload, chunk.layouts, cluster.num_devices).values()
        distance[np.logical_or.reduce(list(broken))] = math.inf
        if distance.min() > nearest:
            continue
        if distance.min() < nearest:
            nearest, closest = float(distance.min()), []
        closest += list(chunk.layouts.take(np.flatnonzero(distance == nearest)).layouts())
    if nearest == math.inf:
        return ()
    records = estimates(problem(shape, workload, cluster, stack), LayoutBatch.from_layouts(closest))
    return tuple(sorted(records, key=lambda e: (not e.fits, e.step_time_s))[:NUM_NEAREST])


def _distance(layouts: LayoutBatch, layout: Layout) -> np.ndarray:
    total = np.zeros(len(layouts))
    for axis in AXES:
        total += np.abs(np.log2(getattr(layouts, axis) / getattr(layout, axis)))
    for name in OPTIONS:
        total += getattr(layouts, name) != field_code(name, getattr(layout, name))
    return total


def _neighbours(shape: ModelShape, workload: Workload, layout: Layout) -> Iterator[tuple[str, str, Layout]]:
    """Layouts one decision away, with the kind of decision and its words; some may break a rule."""
    yield from _moved_factors(layout)
    local_batch = max(workload.global_batch_size // layout.batch_shards, 1)
    for size in divisors(local_batch):
        yield "microbatch", f"microbatch_size={size}", dataclasses.replace(layout, microbatch_size=size)
    for remat in REMAT_POLICIES:
        yield "remat", f"remat={remat}", dataclasses.replace(layout, remat=remat)
    yield from _shardings(layout)
    yield from _switches(shape, layout)


def _moved_factors(layout: Layout) -> Iterator[tuple[str, str, Layout]]:
    """Move a factor from one axis to another; the number of devices stays."""
    for giver in AXES:
        for factor in divisors(getattr(layout, giver))[1:]:
            for taker in AXES:
                if taker != giver:
                    less, more = getattr(layout, giver) // factor, getattr(layout, taker) * factor
                    moved = dataclasses.replace(layout, **{giver: less, taker: more})
                    yield f"from {giver}", f"{giver}={less}, {taker}={more}", _settled(moved)


def _settled(layout: Layout) -> Layout:
    """Options that no axis uses any more go back to what they mean without it."""
    if layout.tensor == 1:
        layout = dataclasses.replace(layout, sequence_parallel=False)
    if layout.pipeline == 1:
        schedule = "layered" if layout.schedule == "layered" else "1f1b"
        layout = dataclasses.replace(layout, schedule=schedule, virtual_stages=1)  # type: ignore[arg-type]
    return layout


def _shardings(layout: Layout) -> Iterator[tuple[str, str, Layout]]:
    """Every nesting of what parameters, gradients and optimizer state are sharded over."""
    shards = SHARDS if layout.data > 1 else SHARDS[:-1]
    for triple in itertools.combinations_with_replacement(shards, len(SHARD_FIELDS)):
        values = dict(zip(SHARD_FIELDS, triple, strict=True))
        words = ", ".join(f"{name}={shard}" for name, shard in values.items())
        yield "sharding", words, dataclasses.replace(layout, **values)  # type: ignore[arg-type]


def _switches(shape: ModelShape, layout: Layout) -> Iterator[tuple[str, str, Layout]]:
    if layout.tensor > 1:
        on = not layout.sequence_parallel
        words = f"sequence_parallel={str(on).lower()}"
        yield "sequence parallelism", words, dataclasses.replace(layout, sequence_parallel=on)
    if layout.context > 1:
        for method in CONTEXT_METHODS:
            changed = dataclasses.replace(layout, context_method=method)  # type: ignore[arg-type]
            yield "context method", f"context_method={method}", changed
    for code, v in schedules_of(layout.pipeline, shape.num_layers):
        name = SCHEDULES[code]
        words = f"schedule={name}" + (f", virtual_stages={v}" if v > 1 else "")
        changed = dataclasses.replace(layout, schedule=name, virtual_stages=v)  # type: ignore[arg-type]
        yield "schedule", words, changed
    off = not layout.offload_optimizer
    changed = dataclasses.replace(layout, offload_optimizer=off)
    yield "optimizer offload", f"offload_optimizer={str(off).lower()}", changed
