"""FLOPs and bytes of the step against what libtpu 0.0.52 made of it: where the program is more than its model's ops."""

import pytest

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import estimate, program_flops
from jaxscale.types import Workload, parse_layout

# model, cluster, tokens, layout, microbatches, FLOPs of a device: `experiments/agreement/held_out*.csv`
FLOPS = (
    # a shared expert's gate: its gradient needs the expert's output, made again
    ("qwen1.5-moe-a2.7b", "v5p-32", 3072, "fsdp=16,microbatch_size=2,remat=full", 1, 1.43662e14),
    # a window of 2047 tokens: a kernel's text does not tell
    ("phi3-mini", "v5e-32", 4096, "fsdp=32,zero=2,microbatch_size=2,remat=flash", 4, 1.15406e15),
)
# model, cluster, tokens, layout, group, bytes that a device sends
SENT = (
    # all 64 devices of a torus of three dims: weights are gathered by all-reduces
    ("olmo2-7b", "v5p-128", 6144, "fsdp=64,remat=dots", "fsdp", 8.2976e10),
    # 64 of a flat one: gathered
    ("qwen3-30b-a3b", "v5e-64", 4096, "fsdp=64,remat=full", "fsdp", None),
)


def _case(model, cluster, seq_len, text, microbatches=1):
    layout = parse_layout(text)
    batch = layout.batch_shards * layout.microbatch_size * microbatches
    return load_model(model), Workload(seq_len=seq_len, global_batch_size=batch), load_cluster(cluster), layout


@pytest.mark.parametrize(("model", "cluster", "seq_len", "text", "microbatches", "compiled"), FLOPS)
def test_flops_are_the_programs(model, cluster, seq_len, text, microbatches, compiled):
    assert program_flops(*_case(model, cluster, seq_len, text, microbatches)) == pytest.approx(compiled, rel=0.01)


@pytest.mark.parametrize(("model", "cluster", "seq_len", "text", "group", "compiled"), SENT)
def test_whole_slices_of_three_dims_gather_by_sums(model, cluster, seq_len, text, group, compiled):
    step = estimate(*_case(model, cluster, seq_len, text))
    gathered = {c.kind for c in step.collectives if c.name == "weights"}
    assert gathered == ({"all-reduce"} if compiled else {"all-gather"})
    if compiled:
        assert step.comm_bytes[group] == pytest.approx(compiled, rel=0.01)


def test_a_part_of_a_slice_gathers():
    step = estimate(*_case("llama3-8b", "v5p-256", 2048, "fsdp=64,tensor=2,remat=full"))
    assert {c.kind for c in step.collectives if c.name == "weights"} == {"all-gather"}


def test_heads_of_96_take_128():
    """What remat="attention" saves of phi3-mini, whose heads are 96 wide, is as large as with heads of 128."""
    shape, workload, cluster, layout = _case("phi3-mini", "v5p-32", 4096, "fsdp=16,remat=attention")
    other = parse_layout("fsdp=16,remat=full")
    saved = [estimate(shape, workload, cluster, one).memory_parts_bytes["activations"] for one in (layout, other)]
    tensors = 4  # queries, keys, values, attention
    padded = shape.num_layers * workload.seq_len * shape.num_heads * 128 * 2
    statistics = shape.num_layers * workload.seq_len * shape.num_heads * 4
    assert saved[0] - saved[1] == pytest.approx(tensors * padded + statistics, rel=1e-6)
