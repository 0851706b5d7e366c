"""The timeline of a layer's backward pass, and the peaks that it gives against those of the compiler."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import compute, estimate, problem
from jaxscale.cost.liveness import TensorBytes, backward_lives, fused_bytes, peak_bytes
from jaxscale.cost.remat import remat_plan
from jaxscale.types import REMAT_POLICIES, LayoutBatch, Workload, parse_layout

MIB = 2.0**20
MODELS = ("llama3-8b", "mixtral-8x7b", "deepseek-v2-lite", "gemma2-9b", "gpt2-1.5b")


def layer_of(name: str):
    p = problem(load_model(name), Workload(seq_len=4096, global_batch_size=8), load_cluster("v5p-16"))
    return p, p.inventory.layer("moe" if p.inventory.moe else "dense")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("remat", sorted(REMAT_POLICIES))
def test_what_is_needed_is_alive_when_it_is_needed(model, remat):
    """Every value made again or fetched lives at some point, and every gradient dies where its op is done."""
    _, ops = layer_of(model)
    policy = REMAT_POLICIES[remat]
    lives, plan = backward_lives(ops, policy), remat_plan(ops, policy)
    for column, op in enumerate(ops):
        made = op.name in plan.recomputed or op.name in plan.offloaded
        assert bool(lives.values[:, column].any()) == made
        for rows in (lives.values[:, column], lives.gradients[:, column]):
            assert np.count_nonzero(np.diff(rows, prepend=0, append=0)) in (0, 2)  # one stretch of time


def test_full_remat_of_a_dense_layer_peaks_in_its_mlp():
    """With everything made again, four tensors of the MLP's width are alive at once, and what attention waits with."""
    p, ops = layer_of("llama3-8b")
    batch = LayoutBatch.from_layouts([parse_layout("fsdp=8")])
    costs = compute.op_costs(p, ops, batch)
    tokens = compute.local_tokens(p, batch)
    stream = tokens.full * p.inventory.numbers.d_model * p.compute_bytes
    tensors = fused_bytes(ops, costs, stream, tokens.split, lane_wide=True)
    peak = peak_bytes(backward_lives(ops, REMAT_POLICIES["full"]), ops, tensors)[0]
    mlp = 4 * 14336 / 4096
    # q, k, v, the output of attention with its log-sum-exp in float32 on 128 lanes, and the stream between the halves.
    attention = 1 + 0.25 + 0.25 + 1 + 2 + 1
    assert peak / stream[0] == pytest.approx(mlp + attention)


@given(sizes=st.lists(st.floats(0.1, 10), min_size=2, max_size=6), scale=st.floats(0.5, 4))
def test_peaks_scale_with_tensors_and_reach_the_largest(sizes, scale):
    _, ops = layer_of("gpt2-1.5b")
    lives = backward_lives(ops, REMAT_POLICIES["full"])
    size_of = {op.name: sizes[i % len(sizes)] for i, op in enumerate(ops)}
    scaled = {name: size * scale for name, size in size_of.items()}
    peak = peak_bytes(lives, ops, TensorBytes(values=size_of, gradients=size_of))
    assert peak >= max(size_of[op.name] for i, op in enumerate(ops) if lives.values[:, i].any())
    assert peak_bytes(lives, ops, TensorBytes(values=scaled, gradients=scaled)) == pytest.approx(scale * peak)


# llama3-8b with 8 layers, 4096 tokens; peaks that libtpu 0.0.52 reports for jaxscale's step (MiB), each at another
# moment or policy.
COMPILED = (
    ("v5p-16", "fsdp=8,microbatch_size=8,remat=full", 16251),
    ("v5p-16", "fsdp=8,microbatch_size=8,remat=none", 49051),
    ("v5p-64", "fsdp=8,tensor=4,sp=true,microbatch_size=16,remat=full", 7279),
)


@pytest.mark.parametrize(("cluster", "text", "compiled_mib"), COMPILED)
def test_peaks_are_the_compilers(cluster, text, compiled_mib):
    shape = dataclasses.replace(load_model("llama3-8b"), num_layers=8)
    layout = parse_layout(text)
    workload = Workload(seq_len=4096, global_batch_size=layout.batch_shards * layout.microbatch_size)
    predicted = estimate(shape, workload, load_cluster(cluster), layout).memory_bytes / MIB
    assert predicted == pytest.approx(compiled_mib, rel=0.01)
