"""Rows of a table become runs; what is wrong with a row is told, and the others go on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_table import ROW, SWEEP, table

from jaxscale.errors import SpecError
from jaxscale.validate import read_runs


def read(tmp_path, text):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    return read_runs(path)


def test_every_column_arrives(tmp_path):
    (run,), refusals = read(tmp_path, table({"tp": 2, "sp": True, "recompute": "full", "zero_stage": 1}))
    assert refusals == []
    assert str(run.layout) == (
        "fsdp=8,tensor=2,microbatch_size=1,sequence_parallel=true,params_shard=none,grads_shard=none,remat=full"
    )
    assert run.software.stack == "megatron"
    assert run.cluster.chip.name == "a100-sxm-80gb"
    assert run.cluster.tiers[-1].bytes_per_s == 25e9
    assert run.workload.global_batch_size == 64
    assert run.chip == "a100"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hardware": "a100-sxm-81gb-x"}, "hardware"),
        ({"dp": 4}, "num_chips"),
        ({"global_batch_seqs": 60}, "global_batch_seqs=60"),
        ({"num_layers": 16.5}, "num_layers"),
        ({"num_layers": -3}, "num_layers"),
        ({"num_layers": ""}, "num_layers is missing"),
        ({"seq_len": "long"}, "seq_len"),
        ({"mlp_type": "maxout"}, "mlp_type"),
        ({"num_kv_heads": 5}, "num_kv_heads"),
        ({"zero_stage": 7}, "zero_stage=7"),
        ({"step_time_s": -1}, "step_time_s"),
        ({"step_time_s": "fast"}, "step_time_s"),
        ({"step_time_s": "inf"}, "step_time_s"),
        ({"recompute": "sometimes"}, "recompute"),
        ({"attention_kernel": "magic"}, "attention_kernel"),
        ({"precision": "int3"}, "precision"),
        ({"outcome": "great"}, "outcome"),
        ({"chips_per_node": 5}, "chips_per_node"),
        ({"weight": "heavy"}, "weight"),
        ({"tp": 3, "num_chips": 24}, "tensor"),
        ({"ep": 4}, "ep=4 must divide num_experts=0"),
        ({"ep": 3, "num_experts": 8, "experts_per_token": 2}, "ep=3 must divide num_experts=8"),
        ({"peak_memory_gb": -1}, "peak_memory_gb"),
        ({"micro_batch_seqs": 0}, "micro_batch_seqs=0"),
        ({"pp": 0}, "pp=0"),
        ({"tp": 0, "dp": ""}, "tp=0"),
        ({"sp": "perhaps"}, "sp='perhaps'"),
        ({"tied_embeddings": 7}, "tied_embeddings='7'"),
    ],
)
def test_a_bad_row_is_refused_and_the_rest_goes_on(tmp_path, change, words):
    runs, (refusal,) = read(tmp_path, table({}, change))
    assert [run.id for run in runs] == ["run-0"]
    assert refusal.id == "run-1"
    assert words in refusal.reason


# A bare carriage return or newline would end the row: no cell can hold one unquoted.
_TEXT = st.characters(exclude_categories=["Cc", "Cs"])


@given(
    field=st.sampled_from(sorted(ROW)), value=st.one_of(st.integers(-5, 10**6), st.floats(), st.text(_TEXT, max_size=8))
)
@settings(max_examples=40, deadline=None)
def test_no_cell_breaks_the_table(tmp_path_factory, field, value):
    """Whatever one cell holds, the row is a run or a refusal with a reason, and the row beside it is read."""
    path = tmp_path_factory.mktemp("cells") / "runs.csv"
    path.write_text(table({"id": "good"}, {field: value}))
    runs, refusals = read_runs(path)
    assert len(runs) + len(refusals) == 2
    assert runs[0].id == "good"
    assert all(refusal.reason for refusal in refusals)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,hardware\n1,a100\n", "are missing"), ("", "cannot be read"),
        (table({"hardware": "abacus"}), "no row can be used"),
    ],
)  # fmt: skip
def test_a_file_without_a_usable_row_is_an_error(tmp_path, text, words):
    with pytest.raises(SpecError, match=words):
        read(tmp_path, text)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        read_runs(tmp_path / "none.csv")


def test_a_run_that_cannot_have_held_its_activations_recomputes(tmp_path):
    """A blank recompute column of a run that fitted: everything is recomputed where nothing else can explain it."""
    large = {"recompute": "", "num_layers": 64, "micro_batch_seqs": 8, "seq_len": 8192, "tp": 2, "zero_stage": 3}
    (stated, blank, small), _ = read(tmp_path, table(large | {"recompute": "none"}, large, {"recompute": ""}))
    assert [run.layout.remat for run in (stated, blank, small)] == ["none", "full", "none"]


def test_sweep_is_complete(tmp_path):
    runs, refusals = read(tmp_path, table(*SWEEP))
    assert (len(runs), refusals) == (len(SWEEP), [])


def test_a_row_without_a_name_is_called_by_its_number(tmp_path):
    runs, (refusal,) = read(tmp_path, table({"id": ""}, {"id": "", "hardware": "quantum-9"}))
    assert [run.id for run in runs] == ["row 1"]
    assert refusal.id == "row 2"


@pytest.mark.parametrize(
    ("hardware", "framework", "stack"),
    [
        ("a100-sxm-80gb", "Megatron-LM", "megatron"),
        ("h100-sxm-80gb", "Megatron-LM", "megatron_core"),
        ("a100-sxm-80gb", "NeMo 24.07 / Megatron-Core", "megatron_core"),
        ("a100-sxm-80gb", "Aleph Alpha scaling (AA-Scaling)", "megatron_aa"),
        ("h100-sxm-80gb", "mcore 0.9", "megatron_core"),
        ("a100-sxm-80gb", "GPT-NeoX", "megatron_deepspeed"),
        ("h100-sxm-80gb", "MosaicML LLM stack", "torch_fsdp"),
        ("a100-sxm-80gb", "HF Accelerate FSDP", "torch_fsdp"),
        ("h100-sxm-80gb", "praxis", "xla_gpu"),
        ("h100-sxm-80gb", "nanotron", "torch"),
        ("h100-sxm-80gb", "torchtitan (PyTorch FSDP2/DTensor)", "torch_titan"),
    ],
)
def test_the_stack_of_a_framework(tmp_path, hardware, framework, stack):
    (run,), _ = read(tmp_path, table({"hardware": hardware, "framework": framework}))
    assert run.software.stack == stack


JAX = {"framework": "MaxText/JAX", "hardware": "h100-sxm-80gb", "tp": 1, "dp": 16, "inter_node_gbps_per_chip": ""}


@pytest.mark.parametrize(
    ("words", "gigabits"), [("A3 network (GPUDirect-TCPX)", 100), ("GPUDirect-TCPXO", 200), ("fast", 400)]
)
def test_a_network_that_is_named(tmp_path, words, gigabits):
    (run,), _ = read(tmp_path, table(JAX | {"variant": words}))
    assert run.cluster.tiers[-1].bytes_per_s == gigabits * 1e9 / 8


def test_a_stated_bandwidth_counts_more_than_a_named_network(tmp_path):
    (run,), _ = read(tmp_path, table(JAX | {"inter_node_gbps_per_chip": 50, "variant": "GPUDirect-TCPX"}))
    assert run.cluster.tiers[-1].bytes_per_s == 50e9 / 8


def test_hybrid_sharding_replicates_between_nodes(tmp_path):
    (plain, hybrid), _ = read(tmp_path, table(JAX, JAX | {"variant": "hybrid sharding"}))
    assert (plain.layout.data, plain.layout.fsdp) == (1, 16)
    assert (hybrid.layout.data, hybrid.layout.fsdp) == (2, 8)


def test_a_pipeline_of_torchtitan_has_as_many_microbatches_as_stages(tmp_path):
    """Its default; and an interleaved schedule has two stages on each rank."""
    titan = {"framework": "torchtitan", "num_layers": 30, "tp": 1, "pp": 4, "dp": 4, "micro_batch_seqs": ""}
    titan |= {"virtual_pp": "", "num_chips": 16}
    (plain, interleaved), _ = read(tmp_path, table(titan, titan | {"variant": "Interleaved1F1B"}))
    assert (plain.layout.virtual_stages, plain.num_microbatches) == (1, 4)
    assert (interleaved.layout.virtual_stages, interleaved.num_microbatches) == (2, 8)
    assert interleaved.layout.schedule == "interleaved"


@pytest.mark.parametrize(
    ("framework", "kernel", "expected", "fused_softmax"),
    [
        ("PaxML/JAX", "flash (TE/cuDNN)", "naive", False),
        ("PaxML/JAX + TransformerEngine", "flash (TE/cuDNN)", "flash3", True),
        ("PaxML/JAX + TransformerEngine", "naive", "naive", True),
        ("MaxText/JAX", "flash (TE/cuDNN)", "flash3", False),
    ],
)
def test_a_kernel_of_an_engine_that_was_not_used(tmp_path, framework, kernel, expected, fused_softmax):
    (run,), _ = read(tmp_path, table(JAX | {"framework": framework, "attention_kernel": kernel}))
    assert run.software.attention_kernel == expected
    assert run.software.fused_softmax == fused_softmax


def test_selective_recompute_by_framework(tmp_path):
    core = {"framework": "Megatron-Bridge/Megatron-Core", "recompute": "selective"}
    titan = {"framework": "torchtitan", "recompute": "selective"}
    (one, two), _ = read(tmp_path, table(core, titan))
    assert one.software.score_recompute
    assert one.layout.remat == "none"
    assert two.layout.remat == "save:attention+mlp_gate+q+v"
    assert not two.software.score_recompute
