"""The search: every layout of a space priced, the best kept."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.step import EstimateBatch, estimate_batch, estimate_row
from jaxscale.errors import SpecError, nearest
from jaxscale.search.limits import NO_LIMITS, Limits
from jaxscale.search.result import DOES_NOT_FIT, SearchResult
from jaxscale.search.select import (
    Candidates,
    best_of_bands,
    distinct_best,
    join,
    least_of_mesh,
    ordered,
    pareto,
)
from jaxscale.search.space import Chunk, Space, chunks, space
from jaxscale.types import Cluster, Estimate, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types.legality import illegal_reasons

OBJECTIVES = ("time", "money", "memory")
DEFAULT_HEADROOM = 0.05
SPARES = 24  # ranked layouts beyond those asked for, to fall back on where a check rejects one
MAX_MESHES = 200  # of `by_mesh`
MAX_PARETO = 64
NUM_CLOSEST = 3

Progress = Callable[[int, int], None]  # layouts looked at so far, and in all


def search(
    shape: ModelShape,
    workload: Workload,
    cluster: Cluster,
    *,
    stack: Stack | None = None,
    limits: Limits = NO_LIMITS,
    objective: str = "time",
    top: int = 3,
    headroom: float = DEFAULT_HEADROOM,
    progress: Progress | None = None,
) -> SearchResult:
    """Price every layout of `shape` on `cluster` within `limits` and rank those that fit.

    `objective` is `time` (of a step), `money` (dollars per token, the same order on one cluster) or `memory`. A layout
    fits if it leaves the share `headroom` of a device's memory free. Where nothing fits, `top` of the result is empty
    and `closest` says by how much.
    """
    _check(cluster, objective, top, headroom)
    started = time.perf_counter()
    p = problem(shape, workload, cluster, stack)
    where = space(shape, workload, cluster.num_devices, limits)
    budget = (1.0 - headroom) * p.device.usable_hbm_bytes
    tally = _Tally(rejected=dict(where.rejected_meshes), num_looked_at=where.num_rejected_meshes)
    total = where.num_rejected_meshes + where.num_layouts
    for chunk in chunks(where):
        _look_at(tally, chunk, where, p, objective, budget)
        if progress is not None:
            progress(tally.num_looked_at, total)
    rejected = tally.rejected | {DOES_NOT_FIT: tally.num_legal - tally.num_fitting}
    result = SearchResult(
        shape=shape, workload=workload, cluster=cluster, objective=objective, limits=limits, headroom=headroom,
        num_top=top, ranked=_best(p, tally, top + SPARES), pareto=_front(p, tally), by_mesh=_by_mesh(p, tally),
        closest=_closest(p, tally), num_looked_at=tally.num_looked_at, num_legal=tally.num_legal,
        num_fitting=tally.num_fitting, num_meshes=len(where.meshes) + where.num_rejected_meshes,
        rejected={reason: count for reason, count in rejected.items() if count}, seconds=0.0,
    )  # fmt: skip
    return dataclasses.replace(result, seconds=time.perf_counter() - started)


def _check(cluster: Cluster, objective: str, top: int, headroom: float) -> None:
    if objective not in OBJECTIVES:
        raise SpecError(
            f"objective={objective!r} is not one of {', '.join(OBJECTIVES)}.{nearest(objective, OBJECTIVES)}"
        )
    if objective == "money" and not cluster.dollars_per_chip_hour:
        raise SpecError(f"objective=money needs a price, but {cluster.name} has none; allowed: time, memory")
    if top < 1:
        raise SpecError(f"top={top} must be at least 1")
    if not 0.0 <= headroom < 1.0:
        raise SpecError(f"headroom={headroom} must be a share from 0 to below 1")


@dataclass(slots=True)
class _Tally:
    """What has been kept while the chunks stream past."""

    rejected: dict[str, int]
    num_looked_at: int
    num_legal: int = 0
    num_fitting: int = 0
    bands: Candidates | None = None
    front: Candidates | None = None
    best_of_meshes: list[Candidates] = field(default_factory=list)
    lightest_of_meshes: list[Candidates] = field(default_factory=list)


def _look_at(tally: _Tally, chunk: Chunk, where: Space, p: Problem, objective: str, budget_bytes: float) -> None:
    """Check, price and judge one chunk."""
    tally.num_looked_at += len(chunk.layouts)
    legal = np.ones(len(chunk.layouts), dtype=bool)
    for rule, broken in illegal_reasons(where.shape, where.workload, chunk.layouts, where.num_devices).items():
        if broken.any():
            tally.rejected[rule] = tally.rejected.get(rule, 0) + int(broken.sum())
            legal &= ~broken
    if not legal.all():
        chunk = Chunk(layouts=chunk.layouts.take(legal), mesh=chunk.mesh[legal])
    tally.num_legal += len(chunk.layouts)
    if not len(chunk.layouts):
        return
    priced = _candidates(p, chunk, estimate_batch(p, chunk.layouts, bounds=False), objective)
    fits = priced.memory_bytes <= budget_bytes
    fitting = priced if fits.all() else priced.take(fits)
    tally.num_fitting += len(fitting)
    if len(fitting):
        tally.bands = best_of_bands(fitting, tally.bands)
        tally.front = pareto(fitting, tally.front)
        tally.best_of_meshes.append(least_of_mesh(fitting, fitting.objective))
    if len(fitting) < len(priced):
        heavy = priced.take(~fits)
        tally.lightest_of_meshes.append(least_of_mesh(heavy, heavy.memory_bytes))


def _candidates(p: Problem, chunk: Chunk, batch: EstimateBatch, objective: str) -> Candidates:
    time_s = np.broadcast_to(batch.step_time_s, (len(chunk.layouts),))
    memory = np.broadcast_to(batch.memory_bytes, (len(chunk.layouts),))
    return Candidates(
        objective=memory if objective == "memory" else time_s,  # money is time at a constant price
        step_time_s=time_s, memory_bytes=memory, mesh=chunk.mesh, layouts=chunk.layouts,
    )  # fmt: skip


def _best(p: Problem, tally: _Tally, count: int) -> tuple[Estimate, ...]:
    return () if tally.bands is None else estimates(p, distinct_best(tally.bands, count).layouts)


def _front(p: Problem, tally: _Tally) -> tuple[Estimate, ...]:
    if tally.front is None:
        return ()
    rows = np.unique(np.linspace(0, len(tally.front) - 1, min(len(tally.front), MAX_PARETO)).round().astype(np.int64))
    return estimates(p, tally.front.take(rows).layouts)


def _by_mesh(p: Problem, tally: _Tally) -> tuple[Estimate, ...]:
    if not tally.best_of_meshes:
        return ()
    return estimates(p, ordered(join(tally.best_of_meshes)).take(np.s_[:MAX_MESHES]).layouts)


def _closest(p: Problem, tally: _Tally) -> tuple[Estimate, ...]:
    if not tally.lightest_of_meshes:
        return ()
    lightest = join(tally.lightest_of_meshes)
    order = np.lexsort((lightest.step_time_s, lightest.memory_bytes))[:NUM_CLOSEST]
    return estimates(p, lightest.take(order).layouts)


def estimates(p: Problem, layouts: LayoutBatch) -> tuple[Estimate, ...]:
    """Full records of a few layouts."""
    batch = estimate_batch(p, layouts)
    return tuple(estimate_row(p, batch, layouts, row) for row in range(len(layouts)))
