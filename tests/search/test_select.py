"""What is kept of a stream of layouts does not depend on how it is cut into chunks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.search.select import (
    BAND,
    TIE,
    Candidates,
    best_of_bands,
    beyond_front,
    distinct_best,
    least_of_meshes,
    merge,
    pareto,
)
from jaxscale.types import LayoutBatch

figures = st.floats(1.0, 2.0)
rows = st.lists(st.tuples(figures, figures), min_size=1, max_size=60)


def _candidates(pairs: list[tuple[float, float]]) -> Candidates:
    time, memory = np.array(pairs).T
    size = len(pairs)
    layouts = LayoutBatch.from_columns({"microbatch_size": np.arange(size) + 1}, size)
    return Candidates(objective=time, step_time_s=time, memory_bytes=memory, mesh=np.arange(size) // 4, layouts=layouts)


def _in_chunks(candidates: Candidates, choose, cut: int) -> list[int]:
    kept = None
    for part in np.array_split(np.arange(len(candidates)), range(cut, len(candidates), cut)):
        seen = candidates.take(part)
        kept = merge(kept, choose(seen), seen, choose)
    assert kept is not None
    return kept.layouts.microbatch_size.tolist()


@given(pairs=rows, cut=st.integers(1, 20))
def test_front_is_the_same_in_chunks_and_nothing_beats_it(pairs: list, cut: int) -> None:
    candidates = _candidates(pairs)
    front = candidates.take(pareto(candidates))
    assert _in_chunks(candidates, pareto, cut) == front.layouts.microbatch_size.tolist()
    for time, memory in pairs:
        assert not ((front.step_time_s > time) & (front.memory_bytes >= memory)).any()
        assert ((front.step_time_s <= time) & (front.memory_bytes <= memory)).any()
    assert (np.diff(front.step_time_s) > 0).all()
    assert (np.diff(front.memory_bytes) < 0).all()


@given(pairs=rows, more=rows)
def test_what_the_front_dominates_is_left_out_early(pairs: list, more: list) -> None:
    old, new = _candidates(pairs), _candidates(more)
    front = old.take(pareto(old))
    kept = beyond_front(new, np.arange(len(new)), front)
    for row in range(len(new)):
        dominated = ((front.step_time_s <= more[row][0]) & (front.memory_bytes <= more[row][1])).any()
        assert (row in kept) == (not dominated)


@given(pairs=rows, cut=st.integers(1, 20))
def test_bands_are_the_same_in_chunks_and_keep_the_best(pairs: list, cut: int) -> None:
    candidates = _candidates(pairs)
    kept = best_of_bands(candidates)
    assert _in_chunks(candidates, best_of_bands, cut) == candidates.take(kept).layouts.microbatch_size.tolist()
    best = min(pairs)
    assert candidates.objective[kept[0]] == best[0]
    assert candidates.memory_bytes[kept[0]] == best[1]
    assert (np.diff(candidates.objective[kept]) > 0).all()


@given(pairs=rows)
def test_every_candidate_is_near_a_kept_one(pairs: list) -> None:
    candidates = _candidates(pairs)
    kept = candidates.objective[best_of_bands(candidates)]
    for time, _ in pairs:
        assert ((kept <= time) & (kept > time * (1 - 2 * BAND))).any()


@given(pairs=rows, count=st.integers(1, 8))
def test_answers_are_more_than_a_tie_apart(pairs: list, count: int) -> None:
    candidates = _candidates(sorted(pairs))
    chosen = candidates.objective[distinct_best(candidates, count)]
    assert len(chosen) <= count
    assert chosen[0] == min(pairs)[0]
    assert (chosen[1:] > chosen[:-1] * (1 + TIE)).all()


@given(pairs=rows, keep=st.integers(0, 2**32))
@settings(max_examples=50)
def test_least_of_each_mesh(pairs: list, keep: int) -> None:
    candidates = _candidates(pairs)
    among = np.flatnonzero(np.random.default_rng(keep).random(len(pairs)) < 0.7)
    chosen = least_of_meshes(candidates.mesh, candidates.memory_bytes, among)
    assert candidates.mesh[chosen].tolist() == sorted(set(candidates.mesh[among].tolist()))
    for row in chosen:
        same = [r for r in among if candidates.mesh[r] == candidates.mesh[row]]
        assert candidates.memory_bytes[row] == pytest.approx(min(candidates.memory_bytes[same]), abs=0)
        assert row == next(r for r in same if candidates.memory_bytes[r] == candidates.memory_bytes[row])
