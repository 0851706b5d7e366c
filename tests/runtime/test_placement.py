"""Where things live: stages, shards and meshes, without running a step."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost.memory import weight_bytes
from jaxscale.cost.problem import problem
from jaxscale.errors import LayoutError
from jaxscale.runtime import TrainOptions, build_step
from jaxscale.runtime.placement.mesh import build_mesh, split_over_slices
from jaxscale.runtime.placement.params import cut_storage, is_plan, local_shape, pad_storage
from jaxscale.runtime.placement.stages import pack, plan_stages, split_layers, unpack
from jaxscale.runtime.program.program import make_program
from jaxscale.types import (
    AXES,
    Layout,
    LayoutBatch,
    MLAShape,
    ModelShape,
    MoEShape,
    Workload,
    parse_layout,
    precision_named,
)
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
        assert math.prod(local_shape(plan, level, program.rules)) * parts == math.prod(plan.shape_at(level))


@pytest.mark.parametrize("layout", ["fsdp=24", "data=3,fsdp=8,optimizer_shard=data", "fsdp=96,tensor=8"])
def test_devices_that_divide_nothing_store_parts_too(layout):
    program = _program(load_model("llama3-8b"), layout)
    for plan in jax.tree.leaves(program.plans, is_leaf=is_plan):
        if plan.is_matrix:
            assert set(program.rules.live(("data", "fsdp"))) <= set(plan.split_axes("data"))
            assert math.prod(plan.shape) <= math.prod(plan.stored) < 1.01 * math.prod(plan.shape)


def test_padding_is_of_storage_only():
    q = _plans(SHAPES["gqa"], "data=3,fsdp=2,optimizer_shard=data")[
        "['segments'][0][0]['attention']['q']"
    ]  # [4 layers, 32, 4, 8]
    assert q.shape_at("none") == (4, 32, 4, 8)
    assert q.shape_at("fsdp") == q.shape_at("data") == (4, 36, 4, 8)  # 2 x 3 parts of 6 rows
    assert q.spec("data") == P(None, ("fsdp", "data"), None, None)
    whole = np.arange(math.prod(q.shape), dtype=np.float32).reshape(q.shape)
    stored = pad_storage(whole, q)
    assert stored.shape == q.stored
    assert not np.any(stored[:, 32:])
    np.testing.assert_array_equal(cut_storage(stored, q), whole)


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


flag = st.booleans()
moes = st.builds(
    MoEShape,
    num_experts=st.just(4),
    experts_per_token=st.just(2),
    expert_d_ff=st.sampled_from([16, 32]),
    num_shared_experts=st.integers(0, 2),
    shared_expert_d_ff=st.just(16),
    shared_expert_gate=flag,
    num_leading_dense_layers=st.integers(0, 1),
    router=st.sampled_from(["softmax", "sigmoid"]),
    router_bias=flag,
    expert_bias=flag,
)
grouped_query = st.fixed_dictionaries(
    {
        "qkv_bias": flag,
        "attention_out_bias": flag,
        "attention_sinks": flag,
        "qk_norm": st.sampled_from(["none", "head", "full"]),
        "norm": st.sampled_from(["rmsnorm", "layernorm"]),
        "norm_bias": flag,
        "positions": st.sampled_from(["rope", "learned"]),
    }
)
latent = MLAShape(kv_lora_rank=16, q_lora_rank=32, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16)
shapes = st.builds(
    lambda attention, **others: ModelShape(
        name="drawn",
        num_layers=2,
        d_model=64,
        num_heads=8,
        d_ff=64,
        vocab_size=64,
        max_seq_len=32,
        **attention,
        **others,
    ),
    attention=st.one_of(grouped_query, st.just({"mla": latent})),
    num_kv_heads=st.sampled_from([2, 4, 8]),
    head_dim=st.sampled_from([8, 16]),
    moe=st.one_of(st.none(), moes),
    mlp=st.sampled_from(["swiglu", "gelu"]),
    mlp_bias=flag,
    norm_placement=st.sampled_from(["pre", "post", "sandwich"]),
    tied_embeddings=flag,
)


@settings(max_examples=12, deadline=None)
@given(
    shapes,
    st.sampled_from(["data=2,fsdp=2", "fsdp=4,tensor=2", "expert=2,fsdp=2,tensor=2", "data=2,expert=4", "context=2"]),
    st.sampled_from(["zero=0", "zero=1", "zero=2", "zero=3", "optimizer_shard=data"]),
    st.sampled_from(["bf16", "bf16_pure", "fp32"]),
)
def test_the_state_takes_the_predicted_bytes(shape, degrees, zero, precision):
    layout = parse_layout(f"{degrees},{zero}")
    if shape.moe is None:
        layout = dataclasses.replace(layout, expert=1)
    workload = Workload(seq_len=32, global_batch_size=8, precision=precision_named(precision))
    state = build_step(shape, workload, layout, jax.devices()[: layout.num_devices]).abstract_state()
    arrays = [x for x in jax.tree.leaves((state.master, state.optimizer)) if x.ndim]  # step counts are no state
    held = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in arrays)
    priced = problem(shape, workload, load_cluster("cpu:8"))
    predicted = weight_bytes(priced, LayoutBatch.from_layouts([layout])).state
    assert float((predicted.parameters + predicted.optimizer)[0]) == held
