"""Every layout that the search can propose trains, and computes what one device computes: random draws from its space.

A mesh is drawn first and one of its layouts then, so that pipelines, context and expert axes are as frequent as plain
data parallelism, which has most options.
"""

import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxscale.search.space import chunks, space
from jaxscale.types import Layout, LayoutBatch
from jaxscale.types.legality import illegal_reasons
from tests.runtime.parity import SHAPES, Case, check_parity

DEVICE_COUNTS = (2, 4, 8)
DRAWN_SHAPES = ("gqa", "tied", "window", "moe", "shared", "mla")
DRAWN_PRECISIONS = ("fp32", "fp32", "fp32", "bf16")


@functools.cache
def _listed(shape: str, num_devices: int) -> tuple[LayoutBatch, np.ndarray]:
    """Layouts that the search would rank, and which mesh each stands on."""
    workload = Case(shape=shape, layout="").workload
    (chunk,) = chunks(space(SHAPES[shape], workload, num_devices), rows=1 << 30)
    broken = illegal_reasons(SHAPES[shape], workload, chunk.layouts, num_devices).values()
    legal = ~np.logical_or.reduce(list(broken))
    return chunk.layouts.take(legal), chunk.mesh[legal]


def draw(seed: int) -> Case:
    """One layout of the search's space, of a shape, a number of devices and a precision, all by a seed."""
    rng = np.random.default_rng(seed)
    shape, precision = rng.choice(DRAWN_SHAPES), rng.choice(DRAWN_PRECISIONS)
    layouts, meshes = _listed(str(shape), int(rng.choice(DEVICE_COUNTS)))
    row = rng.choice(np.flatnonzero(meshes == rng.choice(np.unique(meshes))))
    layout: Layout = layouts.layout(int(row))
    return Case(shape=str(shape), layout=str(layout), precision=str(precision))


def test_draws_reach_every_choice_of_a_layout():
    cases = [draw(seed) for seed in range(400)]
    layouts = [case.parsed for case in cases]
    assert {case.shape for case in cases} == set(DRAWN_SHAPES)
    assert {layout.schedule for layout in layouts} == {"gpipe", "1f1b", "interleaved", "layered"}
    assert {layout.context_method for layout in layouts} == {"ring", "all_gather"}
    assert len({(layout.params_shard, layout.grads_shard, layout.optimizer_shard) for layout in layouts}) >= 6
    assert len({layout.remat for layout in layouts}) >= 7
    assert any(layout.offload_optimizer for layout in layouts)
    assert any(SHAPES[case.shape].num_layers % case.parsed.pipeline for case in cases)  # uneven stages


# New draws every time.
@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.integers(0, 2**32 - 1))
def test_a_layout_of_the_search_equals_one_device(seed):
    check_parity(draw(seed))
