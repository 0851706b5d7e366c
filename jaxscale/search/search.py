"""The search: every layout of a space priced, the best kept."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.records import estimate_rows
from jaxscale.cost.step import EstimateBatch, estimate_batch
from jaxscale.errors import SpecError, nearest
from jaxscale.search.limits import NO_LIMITS, Limits
from jaxscale.search.select import (
    KEPT_BANDS,
    Candidates,
    best_of_bands,
    beyond_front,
    distinct_best,
    join,
    least_of_meshes,
    merge,
    pareto,
)
from jaxscale.search.space import Chunk, Space, chunks, space
from jaxscale.types import Cluster, Estimate, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types.legality import illegal_reasons
from jaxscale.types.search import DOES_NOT_FIT, SearchResult

OBJECTIVES = ("time", "money", "memory")
DEFAULT_HEADROOM = 0.05
SPARES = 24  # ranked layouts beyond those asked for, to fall back on where a check rejects one
MAX_MESHES = 100  # of `by_mesh`
MAX_PARETO = 48
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
    ranked, front, by_mesh, closest = _records(
        p, (_best(tally, top + SPARES), _front(tally), _by_mesh(tally), _closest(tally))
    )
    result = SearchResult(
        shape=shape, workload=workload, cluster=cluster, objective=objective, limits=limits.text, headroom=headroom,
        num_top=top, ranked=ranked, pareto=front, by_mesh=by_mesh, closest=closest,
        num_looked_at=tally.num_looked_at, num_legal=tally.num_legal, num_fitting=tally.num_fitting,
        num_meshes=len(where.meshes) + where.num_rejected_meshes,
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
    legal = _legal(tally, chunk, where)
    if len(legal) < len(chunk.layouts):
        chunk = Chunk(layouts=chunk.layouts.take(legal), mesh=chunk.mesh[legal])
    tally.num_legal += len(legal)
    if not len(legal):
        return
    seen = _candidates(chunk, estimate_batch(p, chunk.layouts, bounds=False), objective)
    fits = seen.memory_bytes <= budget_bytes
    fitting, heavy = np.flatnonzero(fits), np.flatnonzero(~fits)
    tally.num_fitting += len(fitting)
    if len(fitting):
        contenders, outside = fitting, fitting
        if tally.bands is not None and len(tally.bands) == KEPT_BANDS:
            contenders = fitting[seen.objective[fitting] < tally.bands.objective[-1]]
        tally.bands = merge(tally.bands, best_of_bands(seen, contenders), seen, best_of_bands)
        if tally.front is not None:
            outside = beyond_front(seen, fitting, tally.front)
        tally.front = merge(tally.front, pareto(seen, outside), seen, pareto)
    tally.best_of_meshes.append(seen.take(least_of_meshes(seen.mesh, seen.objective, fitting)))
    tally.lightest_of_meshes.append(seen.take(least_of_meshes(seen.mesh, seen.memory_bytes, heavy)))


def _legal(tally: _Tally, chunk: Chunk, where: Space) -> np.ndarray:
    """Rows of a chunk that break no rule; the rules that the others break are counted."""
    legal = np.ones(len(chunk.layouts), dtype=bool)
    for rule, broken in illegal_reasons(where.shape, where.workload, chunk.layouts, where.num_devices).items():
        if broken.any():
            tally.rejected[rule] = tally.rejected.get(rule, 0) + int(broken.sum())
            legal &= ~broken
    return np.flatnonzero(legal)


def _candidates(chunk: Chunk, batch: EstimateBatch, objective: str) -> Candidates:
    time_s = np.broadcast_to(batch.step_time_s, (len(chunk.layouts),))
    memory = np.broadcast_to(batch.memory_bytes, (len(chunk.layouts),))
    return Candidates(
        objective=memory if objective == "memory" else time_s,  # money is time at a constant price
        step_time_s=time_s, memory_bytes=memory, mesh=chunk.mesh, layouts=chunk.layouts,
    )  # fmt: skip


def _best(tally: _Tally, count: int) -> list[Candidates]:
    if tally.bands is None:
        return []
    return [tally.bands.take(distinct_best(tally.bands, count))]


def _front(tally: _Tally) -> list[Candidates]:
    if tally.front is None:
        return []
    rows = np.unique(np.linspace(0, len(tally.front) - 1, min(len(tally.front), MAX_PARETO)).round().astype(np.int64))
    return [tally.front.take(rows)]


def _by_mesh(tally: _Tally) -> list[Candidates]:
    if not tally.best_of_meshes:
        return []
    best = join(tally.best_of_meshes)
    return [best.take(np.lexsort((best.mesh, best.memory_bytes, best.objective))[:MAX_MESHES])]


def _closest(tally: _Tally) -> list[Candidates]:
    if not tally.lightest_of_meshes:
        return []
    lightest = join(tally.lightest_of_meshes)
    return [lightest.take(np.lexsort((lightest.mesh, lightest.step_time_s, lightest.memory_bytes))[:NUM_CLOSEST])]


def _records(p: Problem, groups: Sequence[list[Candidates]]) -> list[tuple[Estimate, ...]]:
    """Full records of groups of candidates, priced together."""
    everything = [part for group in groups for part in group if len(part)]
    if not everything:
        return [()] * len(groups)
    records = iter(estimates(p, join(everything).layouts))
    return [tuple(itertools.islice(records, sum(map(len, group)))) for group in groups]


def estimates(p: Problem, layouts: LayoutBatch) -> tuple[Estimate, ...]:
    """Full records of a few layouts."""
    return estimate_rows(p, estimate_batch(p, layouts), layouts)
