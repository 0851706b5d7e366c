"""Legality rules: the scalar check and the batch mask are one thing, and each sentence names field, value, allowed."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.errors import LayoutError
from jaxscale.types import Layout, LayoutBatch, MLAShape, ModelShape, MoEShape, RopeShape, Workload
from jaxscale.types.legality import RULES, check_layout, illegal_reasons

DENSE = ModelShape(
    name="dense", num_layers=6, d_model=64, num_heads=16, num_kv_heads=8, head_dim=8, d_ff=192, vocab_size=250
)
MOE = ModelShape(
    name="moe",
    num_layers=4,
    d_model=64,
    num_heads=8,
    num_kv_heads=8,
    head_dim=8,
    d_ff=64,
    vocab_size=256,
    moe=MoEShape(num_experts=8, experts_per_token=2, expert_d_ff=48, num_shared_experts=1, shared_expert_d_ff=32),
)
ODD = dataclasses.replace(DENSE, name="odd", head_dim=9)
PARTLY = dataclasses.replace(DENSE, name="partly", head_dim=12, rope=RopeShape(fraction=0.25))
LATENT = dataclasses.replace(
    DENSE,
    name="latent",
    mla=MLAShape(kv_lora_rank=16, q_lora_rank=0, qk_nope_head_dim=8, qk_rope_head_dim=5, v_head_dim=8),
)
WORKLOAD = Workload(seq_len=48, global_batch_size=24)

BROKEN = [
    (DENSE, dict(tensor=3, fsdp=1), 4, "devices", "3 devices, but there are 4"),
    (DENSE, dict(tensor=6), 6, "tensor", "tensor=6 does not divide num_heads=16; divisors: 1, 2, 4, 8, 16"),
    (DENSE, dict(tensor=16), 16, "tensor", "tensor=16 does not divide num_kv_heads=8; divisors: 1, 2, 4, 8"),
    (ODD, dict(tensor=2), 2, "rotary", "head_dim=9 cannot rotate in pairs; allowed with positions=rope: even widths"),
    (PARTLY, dict(tensor=2), 2, "rotary", "head_dim=12 x rope.fraction=0.25 = 3 cannot rotate in pairs"),
    (LATENT, dict(tensor=2), 2, "rotary", "mla.qk_rope_head_dim=5 cannot rotate in pairs"),
    (MOE, dict(tensor=8, expert=3), 24, "expert", "expert=3 does not divide num_experts=8; divisors: 1, 2, 4, 8"),
    (DENSE, dict(expert=2), 2, "expert", "expert=2 needs a mixture of experts, but dense is dense; allowed: 1"),
    (DENSE, dict(fsdp=5), 5, "batch", "5 batch shards do not divide global_batch_size=24"),
    (DENSE, dict(fsdp=4, microbatch_size=4), 4, "batch", "microbatch_size=4 does not divide the 6 sequences"),
    (DENSE, dict(context=16), 16, "context", "2 x context=16 does not divide seq_len=48; allowed: 1, 2, 3, 4, 6, 8,"),
    (DENSE, dict(context=3, tensor=32, sequence_parallel=True), 96, "sequence_parallel", "3 x tensor=32 = 96"),
    (DENSE, dict(pipeline=8), 8, "pipeline", "pipeline may be at most 6"),
    (DENSE, dict(pipeline=2, virtual_stages=2), 2, "virtual_stages", "needs schedule=interleaved or layered"),
    (DENSE, dict(fsdp=2, schedule="layered", virtual_stages=2), 2, "virtual_stages", "pipeline above 1"),
    (DENSE, dict(pipeline=5, schedule="interleaved"), 5, "microbatches", "multiples of pipeline=5, got 24"),
    (DENSE, dict(pipeline=2, schedule="zero_bubble"), 2, "zero_bubble", "allowed: gpipe, 1f1b, interleaved, layered"),
]


@pytest.mark.parametrize(("shape", "fields", "num_devices", "rule", "sentence"), BROKEN)
def test_each_broken_rule_says_what_is_wrong(shape, fields, num_devices, rule, sentence):
    layout = Layout(**fields)
    assert illegal_reasons(shape, WORKLOAD, LayoutBatch.from_layouts([layout]), num_devices)[rule].tolist() == [True]
    with pytest.raises(LayoutError) as caught:
        check_layout(shape, WORKLOAD, layout, num_devices)
    assert sentence in str(caught.value)


def test_odd_heads_are_legal_where_nothing_rotates():
    check_layout(dataclasses.replace(ODD, positions="alibi"), WORKLOAD, Layout(tensor=2), 2)


def test_every_rule_has_a_case():
    assert {case[3] for case in BROKEN} == {rule.name for rule in RULES}


degrees = st.sampled_from([1, 2, 3, 4, 8])
layouts = st.builds(
    Layout,
    data=degrees,
    fsdp=degrees,
    expert=degrees,
    context=degrees,
    tensor=degrees,
    pipeline=degrees,
    microbatch_size=degrees,
    virtual_stages=st.sampled_from([1, 2]),
    sequence_parallel=st.booleans(),
    schedule=st.sampled_from(["gpipe", "1f1b", "interleaved"]),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(layouts, min_size=1, max_size=20), st.sampled_from([DENSE, MOE]))
def test_a_batch_row_is_legal_exactly_where_the_scalar_check_passes(batch, shape):
    reasons = illegal_reasons(shape, WORKLOAD, LayoutBatch.from_layouts(batch), 16)
    for row, layout in enumerate(batch):
        if any(mask[row] for mask in reasons.values()):
            with pytest.raises(LayoutError):
                check_layout(shape, WORKLOAD, layout, 16)
        else:
            check_layout(shape, WORKLOAD, layout, 16)
