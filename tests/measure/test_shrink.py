"""The twin keeps the axes and features of what it stands for, and is always legal."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_model
from jaxscale.measure import shrink
from jaxscale.types import AXES, REMAT_POLICIES, Layout, Workload
from jaxscale.types.legality import check_layout

MODELS = ("llama3-8b", "mixtral-8x7b", "deepseek-v3", "gemma-2-9b", "gpt2-774m", "qwen3-30b-a3b", "gpt-oss-20b")


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_twin_is_legal_and_alike(model: str, data: st.DataObject) -> None:
    shape = load_model(model)
    degrees = {axis: data.draw(st.sampled_from([1, 2, 4])) for axis in ("data", "fsdp", "context", "tensor")}
    if shape.moe:
        degrees["expert"] = data.draw(st.sampled_from([1, 2, 4]))
    schedule = data.draw(st.sampled_from(["gpipe", "1f1b", "interleaved", "layered"]))
    pipeline = data.draw(st.sampled_from([1, 2]))
    layout = Layout(
        **degrees,
        pipeline=pipeline,
        schedule=schedule if pipeline > 1 or schedule == "layered" else "1f1b",
        virtual_stages=2 if schedule in ("interleaved", "layered") and pipeline > 1 else 1,
        sequence_parallel=data.draw(st.booleans()),
        remat=data.draw(st.sampled_from(sorted(REMAT_POLICIES))),
    )
    twin = shrink(shape, Workload(seq_len=4096, global_batch_size=256), layout)
    check_layout(twin.shape, twin.workload, twin.layout, twin.layout.num_devices)
    for axis in AXES:
        assert (getattr(twin.layout, axis) > 1) == (getattr(layout, axis) > 1)
    assert twin.layout.num_devices <= min(64, layout.num_devices)
    same = ("sequence_parallel", "remat", "schedule", "context_method", "params_shard", "offload_optimizer")
    assert all(getattr(twin.layout, field) == getattr(layout, field) for field in same)
    kept = ("mlp", "norm", "norm_placement", "qk_norm", "parallel_block", "positions", "tied_embeddings")
    assert all(getattr(twin.shape, field) == getattr(shape, field) for field in kept)
    assert bool(twin.shape.moe) == bool(shape.moe)
    assert bool(twin.shape.mla) == bool(shape.mla)


def test_twin_is_float32_and_drops_no_token() -> None:
    shape = load_model("mixtral-8x7b")
    twin = shrink(shape, Workload(seq_len=4096, global_batch_size=256), Layout(fsdp=8, expert=8))
    assert twin.workload.precision.name == "fp32"
    assert twin.shape.moe is not None
    assert twin.workload.capacity_factor * twin.shape.moe.experts_per_token >= twin.shape.moe.num_experts


def test_a_shape_smaller_than_its_twin_is_left_alone() -> None:
    shape = dataclasses.replace(load_model("llama3-8b"), num_layers=1)
    assert shrink(shape, Workload(seq_len=4096, global_batch_size=8), Layout(fsdp=8)).shape.num_layers == 1
