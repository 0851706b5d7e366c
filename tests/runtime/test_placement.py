"""Where things live: stages, shards and meshes, without running a step."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from jaxscale.errors import LayoutError
from jaxscale.runtime import TrainOptions, build_step
from jaxscale.runtime.placement.mesh import build_mesh, split_over_slices
from jaxscale.runtime.placement.params import is_plan, local_shape
from jaxscale.runtime.placement.stages import pack, plan_stages, split_layers, unpack
from jaxscale.runtime.program.program import make_program
from jaxscale.types import AXES, Layout, Workload, parse_layout
from jaxscale.zoo import Execution, parameter_info
from tests.runtime.parity import SHAPES

WORKLOAD = Workload(seq_len=32, global_batch_size=8)


def _program(shape, layout):
    return make_program(shape, WORKLOAD, parse_layout(layout), options=TrainOptions(), execution=Execution())


def _plans(shape, layout):
    leaves = jax.tree_util.tree_leaves_with_path(_program(shape, layout).plans, is_leaf=is_plan)
    return {jax.tree_util.keystr(path): plan for path, plan in leaves}


@given(st.integers(1, 40), st.integers(1, 40))
def test_chunks_hold_every_layer_once_in_order_and_evenly(num_layers, num_chunks):
    chunks = split_layers(num_layers, num_chunks)
    assert [layer for chunk in chunks for layer in chunk] == list(range(num_layers))
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["gqa", "window", "shared", "moe"]), st.integers(1, 4), st.integers(1, 2))
def test_unpack_undoes_pack(name, stages, chunks):
    shape = dataclasses.replace(SHAPES[name], num_layers=9)
    layout = Layout(pipeline=stages, virtual_stages=chunks, schedule="interleaved")
    plan = plan_stages(shape, layout)
    counter = iter(range(10**6))
    tree = jax.tree.map(
        lambda info: np.arange(math.prod(info.shape[:1])).reshape(-1, 1) + 1000 * next(counter), parameter_info(shape)
    )
    packed = pack(shape, plan, tree)
    assert {x.shape[0] for x in jax.tree.leaves(packed["segments"])} == {
        len(rows) for segment in plan.stacks for rows in segment
    }
    jax.tree.map(np.testing.assert_array_equal, unpack(shape, plan, packed), tree)


def test_each_level_of_sharding_by_the_table():
    plans = _plans(SHAPES["moe"], "data=2,fsdp=2,expert=2,tensor=2,sp=true")
    q = plans["['segments'][0][0]['attention']['q']"]
    assert [q.spec(level) for level in ("none", "fsdp", "data")] == [
        P(None, None, ("tensor",), None),
        P(None, ("fsdp", "expert"), ("tensor",), None),
        P(None, ("fsdp", "expert", "data"), ("tensor",), None),
    ]
    up = plans["['segments'][0][0]['mlp']['experts']['up']"]
    assert up.spec("fsdp") == P(None, ("expert", "fsdp"), None, ("tensor",))
    assert up.partial_axes == ("data", "fsdp")
    norm = plans["['segments'][0][0]['attention_norm']['scale']"]
    assert norm.spec("data") == P(None, None)
    assert norm.partial_axes == ("data", "fsdp", "expert", "tensor")


def test_ends_are_stored_over_the_stages_too():
    table = _plans(SHAPES["gqa"], "fsdp=2,pipeline=2")["['embedding']['table']"]
    assert table.spec("fsdp") == P(None, ("fsdp", "pipeline"))  # 61 tokens cannot be split, 32 dims can
    assert table.partial_axes == ("fsdp", "pipeline")


@pytest.mark.parametrize("level", ["none", "fsdp", "data"])
def test_shards_of_a_level_make_the_whole(level):
    program = _program(SHAPES["shared"], "data=2,fsdp=2,context=2,tensor=2,pipeline=2")
    for plan in jax.tree.leaves(program.plans, is_leaf=is_plan):
        parts = math.prod(program.rules.size((axis,)) for axis in plan.split_axes(level))
        assert math.prod(local_shape(plan, level, program.rules)) * parts == math.prod(plan.shape)


def test_innermost_axis_has_neighbouring_devices():
    layout = Layout(
        fsdp=2, tensor=2, pipeline=2, axis_order=("fsdp", "tensor", "context", "expert", "data", "pipeline")
    )
    mesh = build_mesh(layout, jax.devices())
    assert mesh.axis_names == AXES
    ids = np.vectorize(lambda d: d.id)(mesh.devices).reshape(2, 2, 2)  # fsdp, tensor, pipeline
    assert ids[:, 0, 0].tolist() == [0, 1]
    assert ids[0, :, 0].tolist() == [0, 2]
    assert ids[0, 0, :].tolist() == [0, 4]


def test_slices_are_split_by_the_outermost_axes():
    assert split_over_slices((4, 8, 2), 8) == ((4, 2, 1), (1, 4, 2))
    with pytest.raises(ValueError, match="cannot be split over 3 slices"):
        split_over_slices((4, 8), 3)


def test_an_illegal_layout_is_refused_with_its_reason():
    with pytest.raises(LayoutError, match="tensor=8 does not divide num_heads=4; divisors: 1, 2, 4"):
        build_step(SHAPES["gqa"], WORKLOAD, Layout(tensor=8), jax.devices())
