"""What frameworks do differently, by their code: stages of modules, whole recompute, whole reductions, dispatch."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import estimate, problem
from jaxscale.cost.parts import price_parts
from jaxscale.cost.split import stage_layers
from jaxscale.types import LayoutBatch, ModelShape, Stack, Workload, default_stack, parse_layout

CLUSTER = load_cluster("a100-sxm-80gb:8x8")
WORKLOAD = Workload(seq_len=2048, global_batch_size=256)
EAGER = dataclasses.replace(default_stack("gpu"), name="eager", spmd=False)


def llama(layers: int, vocab: int = 128000) -> ModelShape:
    return ModelShape(
        name="llama", num_layers=layers, d_model=5120, num_heads=40, num_kv_heads=40, head_dim=128, d_ff=13824,
        vocab_size=vocab, mlp="swiglu",
    )  # fmt: skip


def run(layout: str, stack: Stack = EAGER, shape: ModelShape | None = None):
    return estimate(shape or llama(40), WORKLOAD, CLUSTER, parse_layout(layout), stack)


def split(layers: int, layout: str, before: float, after: float) -> tuple[float, float, float]:
    stack = dataclasses.replace(EAGER, modules_before=before, modules_after=after)
    p = problem(llama(layers), WORKLOAD, CLUSTER, stack)
    found = stage_layers(p, LayoutBatch.from_layouts([parse_layout(layout)]))
    return tuple(float(np.ravel(value)[0]) for value in (found.first, found.fullest, found.last))


@pytest.mark.parametrize(
    ("layers", "layout", "modules", "expected"),
    [
        (40, "pp=1,dp=64", (1, 2), (40, 40, 40)),
        (40, "pp=2,dp=32", (1, 2), (21, 21, 19)),  # 43 modules as 22 + 21: embedding + 21, 19 + norm + head
        (40, "pp=4,dp=16", (1, 2), (10, 11, 8)),  # 11 + 11 + 11 + 10
        (60, "pp=4,dp=16", (1, 2), (15, 16, 13)),  # 16 + 16 + 16 + 15
        (126, "pp=8,dp=8", (1, 1), (15, 16, 15)),  # torchtitan: 128 modules, 16 a stage
        (40, "pp=4,dp=16", (0, 0), (10, 10, 10)),
        (42, "pp=4,dp=16", (0, 0), (11, 11, 11)),  # padded
    ],
)
def test_layers_of_stages(layers, layout, modules, expected) -> None:
    assert split(layers, layout, *modules) == expected


@given(layers=st.integers(8, 130), power=st.integers(1, 3), before=st.integers(0, 1), after=st.integers(1, 2))
def test_stages_of_modules_hold_every_layer(layers, power, before, after) -> None:
    stages = 2**power
    first, fullest, last = split(layers, f"pp={stages},dp={64 // stages}", before, after)
    middle = layers - first - last
    assert middle <= (stages - 2) * fullest
    assert fullest - 1 <= max(first + before, last + after) <= fullest + max(before, after)


def test_a_heavy_head_costs_less_where_the_last_stage_has_fewer_layers() -> None:
    equal = run("pp=4,fsdp=16,zero=1,microbatch=1,remat=none")
    modules = run(
        "pp=4,fsdp=16,zero=1,microbatch=1,remat=none", dataclasses.replace(EAGER, modules_before=1.0, modules_after=2.0)
    )
    assert 0.85 * equal.step_time_s < modules.step_time_s < equal.step_time_s
    assert sum(modules.time_parts_s.values()) == pytest.approx(modules.step_time_s, rel=1e-9)


def test_whole_recompute_is_one_more_forward_pass() -> None:
    """Megatron-LM's full recompute runs the layer to its end: 4/3 of the model's FLOPs (arXiv 2104.04473, eq. 3)."""
    whole = dataclasses.replace(EAGER, whole_recompute=1.0)
    needed, all_of_it = (run("fsdp=64,zero=1,remat=full", stack) for stack in (EAGER, whole))
    head = 6.0 * 5120 * 128000 * WORKLOAD.seq_len * WORKLOAD.global_batch_size / 64
    layers = all_of_it.model_flops - head
    assert all_of_it.hardware_flops == pytest.approx(all_of_it.model_flops + layers / 3.0, rel=1e-6)
    assert needed.hardware_flops < all_of_it.hardware_flops
    assert needed.step_time_s < all_of_it.step_time_s
    kept = [run("fsdp=64,zero=1,remat=dots", stack).step_time_s for stack in (EAGER, whole)]
    assert kept[0] == kept[1]


def test_recompute_of_the_attention_core_adds_one_forward_of_it() -> None:
    plain, again = (
        run("fsdp=64,zero=1,remat=none", dataclasses.replace(EAGER, score_recompute=share)).time_parts_s["attention"]
        for share in (0.0, 1.0)
    )
    backward = 2.5 / EAGER.attention_backward_ratio
    assert again / plain == pytest.approx((2.0 + backward) / (1.0 + backward), rel=0.01)


def test_whole_reduction_moves_gradients_twice() -> None:
    split_, whole = (
        run("fsdp=64,zero=1", dataclasses.replace(EAGER, whole_reduction=share)).collectives for share in (0.0, 1.0)
    )
    moved = {
        kind: sum(c.wire_bytes for c in found if c.name == "gradients" and c.kind == kind)
        for kind, found in (("reduce-scatter", split_), ("all-reduce", whole))
    }
    assert moved["all-reduce"] == pytest.approx(2.0 * moved["reduce-scatter"])
    assert not any(c.kind == "reduce-scatter" for c in whole)


def test_a_handoff_is_waited_for_in_both_directions_of_every_microbatch() -> None:
    slow = dataclasses.replace(EAGER, handoff_s=0.01)
    layout = "pp=4,fsdp=16,zero=1,microbatch=1"
    microbatches = 256 / 16
    longer = run(layout, slow).step_time_s - run(layout).step_time_s
    assert 2 * 0.01 * microbatches <= longer <= 2 * 0.01 * (microbatches + 3) * 1.05
    assert run("fsdp=64,zero=1", slow).step_time_s == run("fsdp=64,zero=1").step_time_s


def test_gradients_of_microbatches_are_added_at_the_memorys_speed() -> None:
    """Read the sum and the new gradient, write the sum: twice float32 and once bf16 for every parameter."""
    shape = llama(8, vocab=32000)
    one, two = (
        run(f"fsdp=64,zero=1,microbatch={size},remat=none", shape=shape).time_parts_s["elementwise"] for size in (4, 2)
    )
    parameters = 8 * (4 * 5120**2 + 3 * 5120 * 13824) + 2 * 32000 * 5120
    speed = CLUSTER.chip.hbm_bytes_per_s * EAGER.memory_efficiency
    assert two - one == pytest.approx(2 * parameters * (2 * 4 + 2) / speed, rel=0.05)


def dispatched_bytes(shape: ModelShape, layout: str, stack: Stack) -> float:
    p = problem(shape, Workload(seq_len=4096, global_batch_size=256), CLUSTER, stack)
    pieces = price_parts(p, LayoutBatch.from_layouts([parse_layout(layout)]))
    each = [e for exchanges in pieces.exchanges for e in exchanges.each if e.name == "tokens"]
    return float(np.ravel(each[0].bytes_each)[0])


def test_a_token_goes_to_every_node_once() -> None:
    """Eight of 128 experts over four nodes: 4 (1 - 0.75^8) copies instead of 8; and one of two tensor ranks sends."""
    shape, layout = load_model("qwen3-30b-a3b"), "dp=2,ep=16,tp=2,sp=true,zero=1"
    nodes = 16 * 2 / 8
    copies = nodes * (1.0 - (1.0 - 1.0 / nodes) ** 8) / 8
    once = dispatched_bytes(shape, layout, dataclasses.replace(EAGER, split_dispatch=1.0))
    assert once / dispatched_bytes(shape, layout, EAGER) == pytest.approx(copies / 2)


def test_groups_limit_the_nodes_that_a_token_goes_to() -> None:
    """DeepSeek-V3 chooses 8 experts in 4 of 8 groups: of 8 nodes 4 (1 - 0.75^8), not 8 (1 - 0.875^8)."""
    shape = load_model("deepseek-v3")
    assert shape.moe is not None
    free = dataclasses.replace(shape, moe=dataclasses.replace(shape.moe, num_expert_groups=1, groups_per_token=1))
    stack = dataclasses.replace(EAGER, split_dispatch=1.0)
    limited, unlimited = (dispatched_bytes(each, "ep=64,zero=1", stack) for each in (shape, free))
    assert limited / unlimited == pytest.approx(4 * (1 - 0.75**8) / (8 * (1 - 0.875**8)))


def test_a_ring_of_blocks_computes_attention_slower() -> None:
    ring = dataclasses.replace(EAGER, ring_efficiency=0.8)
    whole, blocks = (run("fsdp=32,cp=2,zero=1", stack).time_parts_s["attention"] for stack in (EAGER, ring))
    assert blocks == pytest.approx(whole / 0.8, rel=5e-3)  # but for the gaps between kernels
    assert run("fsdp=64,zero=1", ring).step_time_s == run("fsdp=64,zero=1").step_time_s
