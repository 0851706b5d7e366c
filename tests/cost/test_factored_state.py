"""Adafactor's state: a number for every row and column of a matrix and every element of a vector (arXiv 1804.04235)."""

import pytest

from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate_batch, problem
from jaxscale.types import LayoutBatch, ModelShape, MoEShape, Workload, optimizer_named, parse_layout

D, HEADS, HEAD, FF, VOCAB, LAYERS = 256, 4, 64, 512, 1000, 6
DENSE = ModelShape(
    name="small", num_layers=LAYERS, d_model=D, num_heads=HEADS, num_kv_heads=2, head_dim=HEAD, d_ff=FF,
    vocab_size=VOCAB,
)  # fmt: skip
EXPERTS = ModelShape(
    name="experts", num_layers=LAYERS, d_model=D, num_heads=HEADS, num_kv_heads=2, head_dim=HEAD, d_ff=FF,
    vocab_size=VOCAB, moe=MoEShape(num_experts=8, experts_per_token=2, expert_d_ff=FF),
)  # fmt: skip
# A matrix for each head, as flax holds them: d_model x head_dim for Q, 2 K and 2 V, the reverse for the output.
ATTENTION = (D * HEADS + HEADS * HEAD) + 2 * (D * 2 + 2 * HEAD) + (D * HEADS + HEADS * HEAD)
MLP = 3 * (D + FF)
TABLES = 2 * (VOCAB + D) + D  # embedding, head, final norm


def state_bytes(shape, layout, optimizer="adafactor"):
    workload = Workload(seq_len=128, global_batch_size=8, optimizer=optimizer_named(optimizer))
    parsed = parse_layout(layout)
    p = problem(shape, workload, load_cluster("v5e-4", num_chips=parsed.num_devices))
    (optimizer_bytes,) = estimate_batch(p, LayoutBatch.from_layouts([parsed])).memory_parts_bytes["optimizer"]
    return optimizer_bytes


@pytest.mark.parametrize("layout", ["", "fsdp=4,zero=3", "tensor=2,fsdp=2"])
def test_rows_and_columns_are_held_whole(layout):
    layer = ATTENTION + MLP + 2 * D
    assert state_bytes(DENSE, layout) == 4 * (LAYERS * layer + TABLES)


def test_experts_hold_their_own():
    router = D + 8
    layers = [LAYERS * (ATTENTION + experts * MLP + router + 2 * D) for experts in (8, 2)]
    assert [state_bytes(EXPERTS, layout) for layout in ("", "expert=4")] == [4 * (n + TABLES) for n in layers]


def test_it_is_little_beside_moments():
    assert state_bytes(DENSE, "") < 0.02 * state_bytes(DENSE, "", "adamw")
