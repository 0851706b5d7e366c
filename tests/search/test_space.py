"""The space holds every layout that makes a difference, once."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.cost import estimate_batch, problem
from jaxscale.search.limits import parse_limits
from jaxscale.search.space import all_meshes, chunks, schedules_of, space
from jaxscale.types import AXES, LayoutBatch
from jaxscale.types.layout import BATCH_FIELDS

from .examples import DENSE, SPARSE, WORKLOAD, cluster, every_layout


def _rows(layouts: LayoutBatch) -> np.ndarray:
    return np.stack([getattr(layouts, name) for name in BATCH_FIELDS], axis=1)


@given(num_devices=st.integers(1, 96))
@settings(max_examples=30, deadline=None)
def test_meshes_are_all_factorizations(num_devices: int) -> None:
    meshes = all_meshes(num_devices)
    degrees = [d for d in range(1, num_devices + 1) if num_devices % d == 0]
    expected = {m for m in itertools.product(degrees, repeat=3) if num_devices % math.prod(m) == 0}
    assert (meshes.prod(axis=1) == num_devices).all()
    assert len({tuple(m) for m in meshes.tolist()}) == len(meshes)
    assert {tuple(m[:3]) for m in meshes.tolist()} == expected


@pytest.mark.parametrize("shape", [DENSE, SPARSE], ids=lambda shape: shape.name)
def test_no_layout_is_listed_twice(shape) -> None:
    rows = np.concatenate([_rows(chunk.layouts) for chunk in chunks(space(shape, WORKLOAD, 8))])
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("shape", [DENSE, SPARSE], ids=lambda shape: shape.name)
def test_every_layout_left_out_has_an_equal_that_is_listed(shape) -> None:
    """Time and memory of any legal layout occur in the space: what is left out makes no difference."""
    p = problem(shape, WORKLOAD, cluster())
    known = set()
    for chunk in chunks(space(shape, WORKLOAD, 8)):
        e = estimate_batch(p, chunk.layouts, bounds=False)
        for shifts in itertools.product((-1e-11, 1e-11), repeat=2):  # whichever way the last digits round
            known |= set(_figures(e.step_time_s * (1 + shifts[0]), e.memory_bytes * (1 + shifts[1])))
    layouts = every_layout(shape, WORKLOAD, 8)
    everything = estimate_batch(p, layouts, bounds=False)
    listed_chunks = _listed_chunks(layouts, shape.num_layers)
    for row, figures in enumerate(_figures(everything.step_time_s, everything.memory_bytes)):
        # The one kind that is left out and differs: virtual stages that only add empty layers to as deep chunks.
        assert figures in known or not listed_chunks[row], layouts.layout(row)


def _listed_chunks(layouts: LayoutBatch, num_layers: int) -> list[bool]:
    pairs = {
        int(p): set(schedules_of(int(p), num_layers)) | {(s, 1) for s in range(5)} for p in np.unique(layouts.pipeline)
    }
    rows = zip(layouts.pipeline.tolist(), layouts.schedule.tolist(), layouts.virtual_stages.tolist(), strict=True)
    return [(schedule, v) in pairs[pipeline] for pipeline, schedule, v in rows]


def _figures(times_s: np.ndarray, memories_bytes: np.ndarray) -> list[tuple[str, str]]:
    return [(f"{t:.9e}", f"{m:.9e}") for t, m in zip(times_s.tolist(), memories_bytes.tolist(), strict=True)]


def test_meshes_that_break_a_rule_are_counted_with_it() -> None:
    found = space(DENSE, WORKLOAD, 8)
    assert found.rejected_meshes["expert"] == sum(m[2] > 1 for m in all_meshes(8).tolist())
    assert found.num_rejected_meshes + len(found.meshes) == len(all_meshes(8))


def test_chunk_size_does_not_change_the_space() -> None:
    found = space(SPARSE, WORKLOAD, 8)
    whole = np.concatenate([_rows(chunk.layouts) for chunk in chunks(found)])
    parts = np.concatenate([_rows(chunk.layouts) for chunk in chunks(found, rows=100)])
    assert (whole == parts).all()
    assert found.num_layouts == len(whole)


@given(axis=st.sampled_from(AXES), low=st.integers(1, 4), high=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_limits_hold_for_every_layout(axis: str, low: int, high: int) -> None:
    limits = parse_limits(f"{axis}>={low},{axis}<={high},remat=full|dots,microbatch_size<=2")
    for chunk in chunks(space(SPARSE, WORKLOAD, 8, limits)):
        degrees = getattr(chunk.layouts, axis)
        assert ((degrees >= low) & (degrees <= high)).all()
        assert {layout.remat for layout in chunk.layouts.layouts()} <= {"full", "dots"}
        assert (chunk.layouts.microbatch_size <= 2).all()


def test_unused_choices_are_not_held_against_a_layout() -> None:
    limits = parse_limits("schedule=gpipe,context_method=all_gather,sequence_parallel=true,fsdp=8")
    layouts = [layout for chunk in chunks(space(DENSE, WORKLOAD, 8, limits)) for layout in chunk.layouts.layouts()]
    assert layouts
    assert all(layout.fsdp == 8 for layout in layouts)


def test_sharding_limits_find_the_layout_that_was_meant() -> None:
    limits = parse_limits("fsdp=8,zero=0")
    layouts = [layout for chunk in chunks(space(DENSE, WORKLOAD, 8, limits)) for layout in chunk.layouts.layouts()]
    assert layouts
    assert all(layout.params_shard == layout.optimizer_shard == "none" for layout in layouts)
