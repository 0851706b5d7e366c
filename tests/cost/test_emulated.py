"""Emulated devices share the cores of one machine: what a step there costs, as laws."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate
from jaxscale.cost.emulated import runs
from jaxscale.cost.network import cluster_levels, collective_s
from jaxscale.types import (
    PRECISIONS,
    SHARED_MEMORY_PASSES,
    LayoutBatch,
    ModelShape,
    Workload,
    default_stack,
    parse_layout,
)

SHAPE = ModelShape(
    name="tiny", num_layers=8, d_model=64, num_heads=8, num_kv_heads=8, head_dim=8, d_ff=128, vocab_size=256
)
WORKLOAD = Workload(seq_len=64, global_batch_size=16, precision=PRECISIONS["fp32"])
CLUSTER = load_cluster("cpu:8")
FREE = dataclasses.replace(  # of everything but arithmetic
    default_stack("cpu"), kernel_gap_s=0.0, collective_latency_s=0.0, tile_quantisation=0.0
)
INSTANT = dataclasses.replace(CLUSTER, tiers=(dataclasses.replace(CLUSTER.tiers[0], bytes_per_s=1e18, latency_s=0.0),))


def parts(layout: str, stack=FREE, cluster=INSTANT):
    return estimate(SHAPE, WORKLOAD, cluster, parse_layout(f"{layout},remat=none,zero=0"), stack).time_parts_s


def test_a_bubble_costs_nothing() -> None:
    """All devices together do the same arithmetic with a pipeline as without."""
    flat, piped = parts("data=8"), parts("data=2,pipeline=4,schedule=gpipe")
    layers_and_head = flat["matmul"]
    # gpipe recomputes the loss of every microbatch, and with it the head's forward pass.
    assert layers_and_head <= piped["matmul"] <= 1.1 * layers_and_head


def count(layout: str, batch: int = 16):
    parsed = parse_layout(layout)
    found = runs(LayoutBatch.from_layouts([parsed]), parsed.num_microbatches(batch))
    return {f.name: float(np.ravel(getattr(found, f.name))[0]) for f in dataclasses.fields(found)}


def test_passes_of_each_schedule() -> None:
    """Counted on the loops of `runtime.program.pipeline` for 4 stages and 8 microbatches."""
    alone = count("data=2,microbatch_size=1")
    assert alone == {"ticks": 8, "forward": 8, "backward": 8, "head_forward": 8, "head_backward": 8, "stacked": 8}
    gpipe = count("data=2,pipeline=4,schedule=gpipe")
    assert (gpipe["ticks"], gpipe["forward"], gpipe["backward"]) == (11, 8, 8)
    assert (gpipe["head_forward"], gpipe["head_backward"]) == (4, 2)  # on one stage of four, and once more
    assert gpipe["stacked"] == 8 + 11
    one = count("data=2,pipeline=4,schedule=1f1b")
    assert (one["ticks"], one["backward"]) == (14, 8)
    assert one["forward"] == 8 + 6  # within backward on all stages, and apart on all but the last
    interleaved = count("data=2,pipeline=4,schedule=interleaved,virtual_stages=2")
    assert (interleaved["ticks"], interleaved["forward"]) == (9.5, 8)  # of whole stages: 19 ticks of half a stage


def test_a_ring_never_rests() -> None:
    """Its permutes have no groups, so that stages without work do it all the same."""
    ring = count("data=2,context=2,pipeline=2,schedule=gpipe")
    assert ring["forward"] == ring["backward"] == ring["ticks"] == 9
    gathered = count("data=2,context=2,pipeline=2,schedule=gpipe,context_method=all_gather")
    assert gathered["forward"] == 8
    one = count("data=2,context=2,pipeline=2,schedule=1f1b")
    assert (one["ticks"], one["forward"], one["backward"], one["head_backward"]) == (10, 20, 10, 5)


@given(st.sampled_from(sorted(SHARED_MEMORY_PASSES)), st.floats(1.0, 1e9), st.sampled_from([2, 4, 8]))
def test_collectives_pass_over_their_payload(kind: str, payload: float, size: int) -> None:
    [level] = cluster_levels(CLUSTER)
    seconds = collective_s(kind, payload, [size], [level], latency_s=1e-5, xp=np)
    met = 8 if kind == "collective-permute" else size
    expected = 1e-5 + met * level.latency_s + SHARED_MEMORY_PASSES[kind] * payload / level.bytes_per_s
    assert float(seconds) == pytest.approx(expected)
    assert float(collective_s(kind, payload, [1], [level], latency_s=1e-5, xp=np)) == 0.0


@pytest.mark.parametrize("constant", ["weight_passes", "saved_passes", "kernel_gap_s", "microbatch_overhead_s"])
def test_what_small_operations_cost_only_adds(constant: str) -> None:
    cheap, dear = (dataclasses.replace(FREE, **{constant: value}) for value in (0.0, 1.0))
    before, after = (sum(parts("data=4,tensor=2", stack).values()) for stack in (cheap, dear))
    assert after > before


def test_parts_sum_to_the_step() -> None:
    found = estimate(SHAPE, WORKLOAD, CLUSTER, parse_layout("context=2,pipeline=2,fsdp=2,remat=full"))
    assert sum(found.time_parts_s.values()) == pytest.approx(found.step_time_s)
    assert found.lower_s <= found.step_time_s <= found.upper_s


def test_small_arrays_stay_in_caches() -> None:
    """Twice the tokens take more than twice the passes' time, and arrays far beyond the caches just twice."""

    def elementwise_s(seq_len: int) -> float:
        workload = dataclasses.replace(WORKLOAD, seq_len=seq_len)
        layout = parse_layout("data=8,remat=none,zero=0")
        return estimate(SHAPE, workload, INSTANT, layout, FREE).time_parts_s["elementwise"]

    assert elementwise_s(2048) > 2.1 * elementwise_s(1024)
    assert elementwise_s(2**20) == pytest.approx(2.0 * elementwise_s(2**19), rel=0.01)
