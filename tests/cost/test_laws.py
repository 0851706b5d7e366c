"""Conservation laws, bounds and monotonicity that every estimate keeps, whatever the layout."""

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import estimate, estimate_batch, problem
from jaxscale.types import REMAT_POLICIES, Layout, LayoutBatch, Workload
from jaxscale.types.legality import illegal_reasons

MODELS = {"dense": load_model("llama3-8b"), "moe": load_model("mixtral-8x7b"), "mla": load_model("deepseek-v2-lite")}
CLUSTERS = {"tpu": load_cluster("v5p-128"), "gpu": load_cluster("h100-sxm:64")}
DEVICES = 64
WORKLOAD = Workload(seq_len=4096, global_batch_size=128)


@st.composite
def layouts(draw, model: str) -> Layout:
    """A legal layout of 64 devices."""
    left, degrees = 6, {}
    for axis in draw(st.permutations(["fsdp", "expert", "context", "tensor", "pipeline"])):
        most = 0 if axis == "expert" and model == "dense" else {"tensor": 3, "pipeline": 2, "expert": 3}.get(axis, 6)
        power = draw(st.integers(0, min(most, left)))
        left, degrees[axis] = left - power, 2**power
    shards = draw(
        st.sampled_from(
            [("none",) * 3, ("none", "none", "fsdp"), ("none", "fsdp", "fsdp"), ("fsdp",) * 3, ("data",) * 3]
        )
    )
    layout = Layout(
        data=2**left,
        **degrees,
        microbatch_size=draw(st.sampled_from([1, 2])),
        sequence_parallel=draw(st.booleans()),
        params_shard=shards[0],
        grads_shard=shards[1],
        optimizer_shard=shards[2],
        remat=draw(st.sampled_from(sorted(REMAT_POLICIES))),
        schedule=draw(st.sampled_from(["gpipe", "1f1b"])),
        context_method=draw(st.sampled_from(["ring", "all_gather"])),
        offload_optimizer=draw(st.booleans()),
    )
    broken = illegal_reasons(MODELS[model], WORKLOAD, LayoutBatch.from_layouts([layout]), DEVICES)
    assume(not any(reason[0] for reason in broken.values()))
    return layout


CASES = [(m, c) for m in MODELS for c in CLUSTERS]


@pytest.mark.parametrize(("model", "cluster"), CASES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_parts_sum_and_bounds_hold(model: str, cluster: str, data: st.DataObject) -> None:
    layout = data.draw(layouts(model))
    e = estimate(MODELS[model], WORKLOAD, CLUSTERS[cluster], layout)
    assert sum(e.time_parts_s.values()) == pytest.approx(e.step_time_s, rel=1e-9)
    assert sum(e.memory_parts_bytes.values()) == pytest.approx(e.memory_bytes, rel=1e-9)
    assert 0 < e.lower_s <= e.step_time_s <= e.upper_s
    assert all(seconds >= 0 for seconds in e.time_parts_s.values())
    assert all(size >= 0 for size in e.memory_parts_bytes.values())
    # A ring leaves out pairs that the causal mask hides and MFU's convention counts.
    leaves_out = layout.context > 1 and layout.context_method == "ring"
    assert 0 < (0.5 if leaves_out else 1.0) * e.mfu <= e.hfu < 1
    assert sum(e.comm_bytes.values()) == pytest.approx(sum(c.wire_bytes for c in e.collectives))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_batch_is_its_rows(data: st.DataObject) -> None:
    rows = [data.draw(layouts("moe")) for _ in range(4)]
    p = problem(MODELS["moe"], WORKLOAD, CLUSTERS["gpu"])
    batch = estimate_batch(p, LayoutBatch.from_layouts(rows))
    for i, layout in enumerate(rows):
        one = estimate(MODELS["moe"], WORKLOAD, CLUSTERS["gpu"], layout)
        assert batch.step_time_s[i] == pytest.approx(one.step_time_s, rel=1e-12)
        assert batch.memory_bytes[i] == pytest.approx(one.memory_bytes, rel=1e-12)


@given(data=st.data(), field=st.sampled_from(["peak_flops_per_s", "hbm_bytes_per_s", "link"]))
@settings(max_examples=25, deadline=None)
def test_faster_hardware_is_never_slower(data: st.DataObject, field: str) -> None:
    cluster = CLUSTERS["gpu"]
    layout = data.draw(layouts("dense"))
    chip = cluster.chip
    if field == "peak_flops_per_s":
        chip = dataclasses.replace(chip, peak_flops_per_s={k: 2 * v for k, v in chip.peak_flops_per_s.items()})
        faster = dataclasses.replace(cluster, chip=chip)
    elif field == "hbm_bytes_per_s":
        faster = dataclasses.replace(cluster, chip=dataclasses.replace(chip, hbm_bytes_per_s=2 * chip.hbm_bytes_per_s))
    else:
        tiers = tuple(dataclasses.replace(t, bytes_per_s=2 * t.bytes_per_s) for t in cluster.tiers)
        faster = dataclasses.replace(cluster, tiers=tiers)
    before = estimate(MODELS["dense"], WORKLOAD, cluster, layout)
    after = estimate(MODELS["dense"], WORKLOAD, faster, layout)
    # Overlap can expose communication that used to hide behind slower compute, but never more than was saved.
    assert after.step_time_s <= before.step_time_s * (1 + 1e-9)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_sharding_more_never_stores_more_state(data: st.DataObject) -> None:
    layout = data.draw(layouts("dense"))
    whole = dataclasses.replace(layout, params_shard="none", grads_shard="none", optimizer_shard="none")
    split = dataclasses.replace(layout, params_shard="fsdp", grads_shard="fsdp", optimizer_shard="fsdp")

    def state(e) -> float:
        return sum(e.memory_parts_bytes[part] for part in ("parameters", "gradients", "optimizer"))

    before = estimate(MODELS["dense"], WORKLOAD, CLUSTERS["gpu"], whole)
    after = estimate(MODELS["dense"], WORKLOAD, CLUSTERS["gpu"], split)
    assert state(after) <= state(before) * (1 + 1e-12)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_saving_less_never_keeps_more_activations(data: st.DataObject) -> None:
    layout = data.draw(layouts("dense"))
    by_policy = {
        remat: estimate(MODELS["dense"], WORKLOAD, CLUSTERS["gpu"], dataclasses.replace(layout, remat=remat))
        for remat in ("none", "dots", "attention", "flash", "full")
    }
    kept = [e.memory_parts_bytes["activations"] for e in by_policy.values()]
    assert kept == sorted(kept, reverse=True)
    recomputed = [e.hardware_flops for e in by_policy.values()]
    assert recomputed == sorted(recomputed)
