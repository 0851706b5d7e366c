"""What a search keeps of the layouts that stream past: the best, the Pareto front, the best and lightest of each mesh.

Every reduction gives the same whether the layouts come in one chunk or in many, and depends on nothing but their order.
"""

import math
from collections.abc import Iterable
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

    def take(self, index: np.ndarray) -> "Candidates":
        """Return the rows at `index` (integer or boolean)."""
        return Candidates(
            objective=self.objective[index], step_time_s=self.step_time_s[index],
            memory_bytes=self.memory_bytes[index], mesh=self.mesh[index], layouts=self.layouts.take(index),
        )  # fmt: skip


def join(parts: Iterable[Candidates]) -> Candidates:
    """Put candidates after one another."""
    parts = list(parts)
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("objective", "step_time_s", "memory_bytes", "mesh")
    }
    fields = {name: np.concatenate([getattr(part.layouts, name) for part in parts]) for name in BATCH_FIELDS}
    return Candidates(**columns, layouts=LayoutBatch(**fields, axis_order=parts[0].layouts.axis_order))


def ordered(candidates: Candidates) -> Candidates:
    """Sort by objective, then memory; equals stay in the order in which they came."""
    return candidates.take(np.lexsort((candidates.memory_bytes, candidates.objective)))


def best_of_bands(candidates: Candidates, kept: Candidates | None) -> Candidates:
    """Join `candidates` to those kept so far: the best of each narrow band of the objective, best band first."""
    if kept is not None and len(kept) >= KEPT_BANDS:
        candidates = candidates.take(candidates.objective < kept.objective[-1])
    if kept is not None:
        candidates = join([kept, candidates])
    in_order = ordered(candidates)
    band = np.floor(np.log(in_order.objective) / math.log1p(BAND))
    first = np.flatnonzero(np.diff(band, prepend=-np.inf) > 0)[:KEPT_BANDS]
    return in_order.take(first)


def distinct_best(candidates: Candidates, count: int) -> Candidates:
    """Of candidates in order, the best, then the best that is more than a tie behind the one before, and so on."""
    chosen: list[int] = []
    for row, value in enumerate(candidates.objective):
        if not chosen or value > candidates.objective[chosen[-1]] * (1.0 + TIE):
            chosen.append(row)
        if len(chosen) == count:
            break
    return candidates.take(np.array(chosen, dtype=np.int64))


def pareto(candidates: Candidates, kept: Candidates | None) -> Candidates:
    """Join `candidates` to the front so far: those that no other beats in both time and memory, fastest first."""
    if kept is not None and len(kept):
        faster = np.searchsorted(kept.step_time_s, candidates.step_time_s, side="right")
        least = np.concatenate([[np.inf], kept.memory_bytes])[faster]  # memory falls along the front
        candidates = join([kept, candidates.take(candidates.memory_bytes < least)])
    in_order = candidates.take(np.lexsort((candidates.memory_bytes, candidates.step_time_s)))
    least_before = np.minimum.accumulate(np.concatenate([[np.inf], in_order.memory_bytes]))[:-1]
    return in_order.take(in_order.memory_bytes < least_before)


def least_of_mesh(candidates: Candidates, values: np.ndarray) -> Candidates:
    """For each mesh the first candidate with the least of `values` [n]; a mesh's candidates stand together."""
    if not len(candidates):
        return candidates
    starts = np.flatnonzero(np.diff(candidates.mesh, prepend=-1))
    segment = np.cumsum(np.diff(candidates.mesh, prepend=candidates.mesh[0]) != 0)
    hits = np.flatnonzero(values == np.minimum.reduceat(values, starts)[segment])
    _, first = np.unique(segment[hits], return_index=True)
    return candidates.take(hits[first])
