"""Counts that papers print: ZeRO's memory table, Megatron's communication and activation formulas, remat's FLOPs."""

import numpy as np
import pytest

from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate, inventory, problem
from jaxscale.cost.memory import weight_bytes
from jaxscale.cost.metrics import model_flops_per_token
from jaxscale.cost.network import Level, collective_s, place
from jaxscale.types import Layout, LayoutBatch, ModelShape, Workload, parse_layout


def gpt(layers: int, width: int, heads: int, vocab: int = 51200) -> ModelShape:
    return ModelShape(
        name="gpt",
        num_layers=layers,
        d_model=width,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=4 * width,
        vocab_size=vocab,
        mlp="gelu",
        tied_embeddings=True,
        positions="none",
    )


def test_zero_memory_table() -> None:
    """ZeRO (arXiv 1910.02054, figure 1): 7.5B parameters, 64-way, 2+2+12 bytes: 120, 31.4, 16.6, 1.88 GB."""
    shape = gpt(46, 3648, 24, vocab=50304)
    cluster = load_cluster("h100-sxm:64")
    workload = Workload(seq_len=1024, global_batch_size=64)
    parameters = sum(
        op.params * (shape.num_layers if op in inventory(shape).layer("dense") else 1)
        for op in (*inventory(shape).layer("dense"), *inventory(shape).head)
    )
    parameters += inventory(shape).embedding_params
    printed = {
        "none,none,none": 16.0,
        "none,none,fsdp": 4 + 12 / 64,
        "none,fsdp,fsdp": 2 + 14 / 64,
        "fsdp,fsdp,fsdp": 16 / 64,
    }
    for shards, bytes_per_parameter in printed.items():
        params, grads, optim = shards.split(",")
        layout = Layout(fsdp=64, params_shard=params, grads_shard=grads, optimizer_shard=optim, remat="full")
        held = weight_bytes(problem(shape, workload, cluster), LayoutBatch.from_layouts([layout]))
        stored = held.state
        # Ours keeps float32 master weights and gradients: 2+2+12 becomes 4 (or 2 with a split master) + 4 + 8 (+ 4).
        if optim == "none" or params == "fsdp":
            expected = 16.0 / (64 if params == "fsdp" else 1)
        else:
            expected = 2.0 + 4.0 / (64 if grads == "fsdp" else 1) + 12.0 / 64
        state = float(stored.parameters[0] + stored.gradients[0] + stored.optimizer[0])
        if params != optim:  # gathered from the master copy at the start of a step
            state += float(held.cast[0] + held.ends_cast[0])
        assert state / parameters == pytest.approx(expected, rel=4e-3)  # norms are not split
        assert expected == pytest.approx(bytes_per_parameter, abs=2.01)


@pytest.mark.parametrize(
    ("sequence_parallel", "kinds"), [(False, {"all-reduce"}), (True, {"all-gather", "reduce-scatter"})]
)
def test_tensor_parallel_volume(sequence_parallel: bool, kinds: set[str]) -> None:
    """Megatron (arXiv 2104.04473, section 3.2): 8 b s h (t-1)/t elements a layer, sequence-parallel or not."""
    shape, tp, b, s = gpt(8, 4096, 32), 4, 2, 2048
    layout = Layout(tensor=tp, microbatch_size=b, sequence_parallel=sequence_parallel, remat="none")
    e = estimate(shape, Workload(seq_len=s, global_batch_size=b), load_cluster("h100-sxm:4"), layout)
    layer = [c for c in e.collectives if c.name == "activations"]
    assert {c.kind for c in layer} == kinds
    elements = sum(c.wire_bytes for c in layer) / 2 / shape.num_layers
    expected = 8 * b * s * 4096 * (tp - 1) / tp
    if sequence_parallel:  # the gathered input of each half is gathered again instead of kept
        expected *= 1.25
    assert elements == pytest.approx(expected)


def test_fsdp_moves_three_times_the_weights() -> None:
    """ZeRO-3 (arXiv 1910.02054, section 7.2.2): two gathers and one reduce-scatter of every weight."""
    shape = gpt(8, 4096, 32)
    e = estimate(shape, Workload(seq_len=2048, global_batch_size=64), load_cluster("h100-sxm:64"), Layout(fsdp=64))
    matrices = sum(op.params for op in inventory(shape).layer("dense")) * shape.num_layers
    embedding = inventory(shape).embedding_params
    moved = sum(c.wire_bytes for c in e.collectives if c.name in ("weights", "gradients"))
    assert moved >= 3 * matrices * 2 * 63 / 64
    assert moved <= (3 * matrices + 4.01 * embedding) * 2 * 63 / 64


def test_model_flops_are_those_of_megatron() -> None:
    """Narayanan et al. (arXiv 2104.04473, appendix): 72 B s L h^2 (1 + s/(6h) + V/(12 h L)), without recompute."""
    layers, h, s, v = 24, 2048, 2048, 51200
    p = problem(gpt(layers, h, 16), Workload(seq_len=s, global_batch_size=1), load_cluster("h100-sxm:8"))
    printed = 72 * layers * h**2 * (1 + s / (6 * h) + v / (12 * h * layers))
    assert model_flops_per_token(p) == pytest.approx(printed, rel=1e-9)


def test_full_remat_is_less_than_one_more_forward() -> None:
    """The last matmul of a layer is never repeated: nothing in the backward pass reads its output."""
    shape = gpt(8, 1024, 8)
    w, c = Workload(seq_len=128, global_batch_size=1), load_cluster("h100-sxm:1")
    full, none = (estimate(shape, w, c, parse_layout(f"remat={remat}")) for remat in ("full", "none"))
    forward = none.model_flops / 3
    again = full.hardware_flops - none.hardware_flops
    down = 2 * 4 * 1024**2 * 128 * 8
    head = 2 * 1024 * 51200 * 128
    assert again == pytest.approx(forward - down - head)


def switch(size: float, bandwidth: float, name: str = "nvlink") -> Level:
    return Level(name=name, torus=False, size=size, bytes_per_s=bandwidth, latency_s=0.0)


def test_ring_collectives_on_a_switch() -> None:
    """NCCL's bus bandwidth: (n-1)/n of the payload for all-gather, twice that for all-reduce."""
    levels = (switch(8, 100e9),)
    for kind, factor in (("all-gather", 1), ("reduce-scatter", 1), ("all-reduce", 2), ("all-to-all", 1)):
        seconds = collective_s(kind, 8e9, [8.0], levels, latency_s=0.0, xp=np)
        assert float(seconds) == pytest.approx(factor * 8e9 * 7 / 8 / 100e9)


def test_a_wrapped_torus_dim_is_twice_as_fast_as_a_line() -> None:
    """How To Scale Your Model, part 3: a ring uses both directions of its links."""
    ring = Level(name="ici", torus=True, size=4.0, bytes_per_s=90e9, latency_s=0.0, wrap=1.0)
    line = Level(name="ici", torus=True, size=4.0, bytes_per_s=90e9, latency_s=0.0, wrap=0.0)
    fast, slow = (collective_s("all-gather", 1e9, [4.0], (level,), latency_s=0.0, xp=np) for level in (ring, line))
    assert float(slow) == pytest.approx(2 * float(fast))


def test_axes_spill_from_node_to_network() -> None:
    levels = (switch(8, 450e9), switch(16, 50e9, "ib"))
    members = place({"tensor": 4.0, "fsdp": 16.0, "data": 2.0}, ("tensor", "fsdp", "data"), levels, np)
    assert [float(m) for m in members["tensor"]] == [4, 1]
    assert [float(m) for m in members["fsdp"]] == [2, 8]
    assert [float(m) for m in members["data"]] == [1, 2]
