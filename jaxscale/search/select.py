"""What a search keeps of the layouts that stream past: the best, the Pareto front, the best and lightest of each mesh.

Every choice is a function from arrays [n] to row numbers, and gives the same whether the layouts come in one chunk or
in many: what is chosen of a whole is chosen of the choices of its parts.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from jaxscale.types import LayoutBatch
from jaxscale.types.layout import BATCH_FIELDS

TIE = 1e-3  # layouts whose objective differs by less than this share are one answer
BAND = 1e-4  # of those closer than this, only the best is kept while they stream past
KEPT_BANDS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Layouts with what they are judged by; arrays [n]."""

    objective: np.ndarray
    step_time_s: np.ndarray
    memory_bytes: np.ndarray
    mesh: np.ndarray
    layouts: LayoutBatch

    def __len__(self) -> int:
        return len(self.objective)

    def take(self, rows: np.ndarray) -> "Candidates":
        """Return some rows."""
        return Candidates(
            objective=self.objective[rows], step_time_s=self.step_time_s[rows], memory_bytes=self.memory_bytes[rows],
            mesh=self.mesh[rows], layouts=self.layouts.take(rows),
        )  # fmt: skip


def join(parts: Iterable[Candidates]) -> Candidates:
    """Put candidates after one another."""
    parts = list(parts)
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("objective", "step_time_s", "memory_bytes", "mesh")
    }
    one = parts[0].layouts
    fields = {name: np.concatenate([getattr(part.layouts, name) for part in parts]) for name in BATCH_FIELDS}
    return Candidates(**columns, layouts=LayoutBatch(**fields, axis_order=one.axis_order, remats=one.remats))


def merge(
    kept: Candidates | None, rows: np.ndarray, seen: Candidates, choose: Callable[[Candidates], np.ndarray]
) -> Candidates:
    """Join the chosen `rows` of what was just seen to those kept so far, and choose again."""
    chosen = seen.take(rows)
    if kept is None:
        return chosen
    both = join([kept, chosen])
    return both.take(choose(both))


def best_of_bands(candidates: Candidates, among: np.ndarray | None = None) -> np.ndarray:
    """Rows of the best of each narrow band of the objective, best band first; within it, less memory decides ties."""
    rows = np.arange(len(candidates)) if among is None else among
    rows = rows[np.argsort(candidates.objective[rows])]
    objective = candidates.objective[rows]
    band = np.floor(np.log(objective) / math.log1p(BAND))
    starts = np.flatnonzero(np.diff(band, prepend=-np.inf) > 0)
    lengths = np.diff(starts, append=len(rows))
    tied = np.flatnonzero(objective == np.repeat(objective[starts], lengths))
    rows, band = rows[tied], band[tied]
    order = np.lexsort((rows, candidates.memory_bytes[rows], band))
    first = np.flatnonzero(np.diff(band[order], prepend=-np.inf) > 0)[:KEPT_BANDS]
    return rows[order[first]]


def distinct_best(candidates: Candidates, count: int) -> np.ndarray:
    """Of candidates in order, the best, then the best that is more than a tie behind the one before, and so on."""
    chosen: list[int] = []
    for row, value in enumerate(candidates.objective):
        if not chosen or value > candidates.objective[chosen[-1]] * (1.0 + TIE):
            chosen.append(row)
        if len(chosen) == count:
            break
    return np.array(chosen, dtype=np.int64)


def pareto(candidates: Candidates, among: np.ndarray | None = None) -> np.ndarray:
    """Rows that no other row beats in both time and memory, fastest first; each needs less memory than the last."""
    rows = np.arange(len(candidates)) if among is None else among
    rows = rows[np.lexsort((rows, candidates.memory_bytes[rows], candidates.step_time_s[rows]))]
    memory = candidates.memory_bytes[rows]
    least_before = np.minimum.accumulate(np.concatenate([[np.inf], memory]))[:-1]
    return rows[memory < least_before]


def beyond_front(candidates: Candidates, among: np.ndarray, front: Candidates) -> np.ndarray:
    """Those of the rows `among` that the front so far does not dominate."""
    faster = np.searchsorted(front.step_time_s, candidates.step_time_s[among], side="right")
    least = np.concatenate([[np.inf], front.memory_bytes])[faster]  # memory falls along the front
    return among[candidates.memory_bytes[among] < least]


def least_of_meshes(mesh: np.ndarray, values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each mesh the first of the rows `among` with the least value; a mesh's rows stand together."""
    if not len(among):
        return among
    mesh, values = mesh[among], values[among]
    starts = np.flatnonzero(np.diff(mesh, prepend=-1))
    lengths = np.diff(starts, append=len(among))
    hits = np.flatnonzero(values == np.repeat(np.minimum.reduceat(values, starts), lengths))
    first = np.flatnonzero(np.diff(mesh[hits], prepend=-1))
    return among[hits[first]]
