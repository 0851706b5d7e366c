"""Exports pinned as files, refused where they would mean nothing, and read back to what they were made from."""

import ast
import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster, load_model, model_names
from jaxscale.cost import count_parameters
from jaxscale.errors import LayoutError, SpecError
from jaxscale.export import TARGETS, read_deepspeed, read_maxtext, read_megatron
from jaxscale.types import Cluster, Layout, ModelShape, Workload, parse_layout, precision_named

GOLDENS = Path(__file__).with_name("goldens")
WORKLOAD = Workload(seq_len=8192, global_batch_size=128)
CASES = {
    "dense": ("llama3-8b", "v5p-64", "fsdp=8,tensor=4,sp=true,remat=dots,microbatch=2"),
    "sparse": ("mixtral-8x7b", "h100-sxm:64", "data=2,fsdp=4,expert=8,microbatch=1,remat=full"),
}
REFUSED = {("sparse", "levanter"), ("sparse", "easydel")}  # neither has experts on a part of the batch's devices
WRITTEN = [(case, target) for case in CASES for target in TARGETS if (case, target) not in REFUSED]


def problem(case: str) -> tuple[ModelShape, Workload, Cluster, Layout]:
    model, cluster, layout = CASES[case]
    return load_model(model), WORKLOAD, load_cluster(cluster), parse_layout(layout)


@pytest.mark.parametrize(("case", "target"), WRITTEN)
def test_export_is_as_pinned(case: str, target: str) -> None:
    """UPDATE_GOLDEN=1 rewrites the files."""
    made = TARGETS[target](*problem(case))
    said = made.text + "".join(f"## note: {note}\n" for note in made.notes)
    golden = GOLDENS / f"{case}_{target}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(said)
    assert said == golden.read_text()


@pytest.mark.parametrize("case", CASES)
def test_exports_are_well_formed(case: str) -> None:
    texts = {target: TARGETS[target](*problem(case)).text for name, target in WRITTEN if name == case}
    assert json.loads(texts["deepspeed"])["train_batch_size"] == WORKLOAD.global_batch_size
    assert yaml.safe_load(texts["accelerate"])["num_processes"] == problem(case)[2].num_devices
    ast.parse(texts["torchtitan"])
    ast.parse(texts["jax"])


@pytest.mark.parametrize("target", TARGETS)
def test_an_illegal_layout_is_refused(target: str) -> None:
    shape, workload, cluster, _ = problem("dense")
    with pytest.raises(LayoutError, match="devices"):
        TARGETS[target](shape, workload, cluster, Layout(fsdp=8))


@pytest.mark.parametrize(
    ("target", "layout", "precision", "word"),
    [
        ("accelerate", "pipeline=4,fsdp=8", "bf16", "pipeline=4"),
        ("deepspeed", "pipeline=4,fsdp=8,zero=3", "bf16", "ZeRO stage 3"),
        ("maxtext", "fsdp=32", "fp16", "precision='fp16'"),
        ("maxtext", "pipeline=3,fsdp=8", "bf16", "devices"),
        ("megatron", "fsdp=32", "bf16_pure", "precision='bf16_pure'"),
        ("megatron", "data=32,zero=0,offload_optimizer=true", "bf16", "set zero=1"),
        ("levanter", "fsdp=8,pipeline=4", "bf16", "pipeline=4"),
        ("levanter", "fsdp=32", "fp16", "precision='fp16'"),
        ("easydel", "fsdp=8,pipeline=4", "bf16", "pipeline=4"),
        ("easydel", "fsdp=32", "fp8", "precision='fp8'"),
        ("torchtitan", "fsdp=32", "fp8", "precision='fp8'"),
    ],
)
def test_what_would_mean_nothing_is_refused(target: str, layout: str, precision: str, word: str) -> None:
    shape, workload, cluster, _ = problem("dense")
    workload = dataclasses.replace(workload, precision=precision_named(precision))
    with pytest.raises(LayoutError, match=word):
        TARGETS[target](shape, workload, cluster, parse_layout(layout))


@pytest.mark.parametrize(
    ("layout", "word"),
    [
        ("fsdp=32,remat=attention,microbatch=2", "remat=attention"),
        ("fsdp=32,zero=1,microbatch=2", ""),
        ("fsdp=16,pipeline=2,schedule=gpipe,microbatch=2", "schedule=gpipe"),
    ],
)
def test_megatron_says_what_it_leaves_out(layout: str, word: str) -> None:
    shape, workload, cluster, _ = problem("dense")
    assert word in " ".join(TARGETS["megatron"](shape, workload, cluster, parse_layout(layout)).notes)


LEVANTER_MAPS = {
    "fsdp=8,tensor=4": {"shared": {"mlp": ["model"], "heads": ["model"], "kv_head": ["model"]},
                        "compute": {"batch": ["data"]}, "param": {"embed": ["data"], "vocab": ["model"]}},
    "data=4,fsdp=4,context=2": {"shared": {"position": ["context"]}, "compute": {"batch": ["replica", "data"]},
                                "param": {"embed": ["data", "context"]}},
    "data=8,tensor=4,zero=0": {"shared": {"mlp": ["model"], "heads": ["model"], "kv_head": ["model"]},
                               "compute": {"batch": ["replica"]}, "param": {"vocab": ["model"]}},
}  # fmt: skip


@pytest.mark.parametrize("layout", LEVANTER_MAPS)
def test_levanter_is_told_what_each_axis_splits(layout: str) -> None:
    shape, workload, cluster, _ = problem("dense")
    mesh = yaml.safe_load(TARGETS["levanter"](shape, workload, cluster, parse_layout(layout)).text)["trainer"]["mesh"]
    assert {kind: mesh[f"{kind}_mapping"] for kind in ("shared", "compute", "param")} == LEVANTER_MAPS[layout]
    assert math.prod((mesh["axes"] | mesh["dcn_axes"]).values()) == cluster.num_devices


def test_levanter_has_an_axis_of_its_own_for_what_crosses_nodes() -> None:
    shape, workload, cluster, _ = problem("sparse")
    made = TARGETS["levanter"](shape, workload, cluster, parse_layout("data=2,fsdp=32"))
    mesh = yaml.safe_load(made.text)["trainer"]["mesh"]
    assert (mesh["axes"]["data"], mesh["dcn_axes"]) == (8, {"replica_dcn": 2, "data_dcn": 4})
    assert mesh["compute_mapping"]["token"] == ["replica_dcn", "data_dcn", "data"]
    with pytest.raises(LayoutError, match="expert=8"):
        TARGETS["levanter"](*problem("sparse"))


def test_easydel_spreads_experts_over_its_fsdp_axis() -> None:
    shape, workload, cluster, layout = problem("sparse")
    with pytest.raises(LayoutError, match="num_experts=8"):
        TARGETS["easydel"](shape, workload, cluster, layout)
    made = TARGETS["easydel"](shape, workload, cluster, parse_layout("data=8,expert=8"))
    sharding = yaml.safe_load(made.text)["config"]["sharding"]
    assert (sharding["axis_dims"], sharding["fsdp_is_ep_bound"]) == ([8, 8, 1, 1, 1], True)
    with pytest.raises(LayoutError, match="zero=3"):
        TARGETS["easydel"](shape, workload, cluster, parse_layout("data=8,expert=8,zero=0"))
    across = TARGETS["easydel"](shape, workload, cluster, parse_layout("data=4,fsdp=8,tensor=2"))
    assert any("puts all 8 on fsdp" in note for note in across.notes)


def test_easydel_keeps_what_it_has_a_name_for_and_says_the_rest() -> None:
    shape, workload, cluster, _ = problem("dense")
    made = TARGETS["easydel"](shape, workload, cluster, parse_layout("fsdp=32,remat=save:attention+mlp_up+q@host"))
    values = yaml.safe_load(made.text)["config"]["base_config"]["values"]
    assert values["gradient_checkpointing_targets"] == ["mlp_up"]
    assert any("also keeps attention, q" in note for note in made.notes)


@pytest.mark.parametrize("target", TARGETS)
def test_the_layered_schedule_is_said_not_dropped(target: str) -> None:
    shape, workload, cluster, _ = problem("dense")
    made = TARGETS[target](shape, workload, cluster, parse_layout("data=4,fsdp=8,schedule=layered"))
    assert any("schedule=layered" in note for note in made.notes)


def test_degrees_across_nodes_are_dcn() -> None:
    config = yaml.safe_load(TARGETS["maxtext"](*problem("sparse")).text)
    inner = [value for key, value in config.items() if key.startswith("ici_")]
    outer = [value for key, value in config.items() if key.startswith("dcn_")]
    assert (_product(inner), _product(outer)) == (8, 8)


def _product(values: list[int]) -> int:
    result = 1
    for value in values:
        result *= value
    return result


layouts = st.builds(
    Layout,
    data=st.sampled_from((1, 2)),
    fsdp=st.just(4),
    tensor=st.sampled_from((1, 2)),
    context=st.sampled_from((1, 2)),
    microbatch_size=st.sampled_from((1, 2, 4)),
    sequence_parallel=st.just(False),
    remat=st.sampled_from(("none", "full")),
    context_method=st.just("ring"),
    offload_optimizer=st.booleans(),
)


@settings(deadline=None)
@given(layout=layouts)
def test_maxtext_reads_back(layout: Layout) -> None:
    shape = load_model("llama3-8b")
    cluster = load_cluster("cpu", num_chips=layout.num_devices)
    made = TARGETS["maxtext"](shape, WORKLOAD, cluster, layout)
    back = read_maxtext(made.text, num_devices=layout.num_devices)
    # On CPUs MaxText has no ring.
    expected = dataclasses.replace(layout, context_method="all_gather") if layout.context > 1 else layout
    assert dataclasses.replace(back.layout, schedule=layout.schedule) == expected
    assert back.workload == dataclasses.replace(WORKLOAD, capacity_factor=0.0)
    assert back.shape is not None
    assert _sizes(back.shape) == _sizes(shape)


@pytest.mark.parametrize("cluster", ["v5p-64", "h100-sxm:32"])
@pytest.mark.parametrize("method", ["ring", "all_gather"])
def test_the_context_method_survives_maxtext(method: str, cluster: str) -> None:
    layout = parse_layout(f"fsdp=8,context=4,context_method={method}")
    made = TARGETS["maxtext"](load_model("llama3-8b"), WORKLOAD, load_cluster(cluster), layout)
    back = read_maxtext(made.text, num_devices=32, num_slices=1 if cluster == "v5p-64" else 4)
    assert (back.layout.context, back.layout.context_method) == (4, method)


def test_a_ring_that_maxtext_cannot_run_is_refused() -> None:
    workload = dataclasses.replace(WORKLOAD, seq_len=8)
    with pytest.raises(LayoutError, match="context=4"):
        TARGETS["maxtext"](load_model("llama3-8b"), workload, load_cluster("v5p-64"), parse_layout("fsdp=8,context=4"))


FULL_SHAPES = {"maxtext": read_maxtext, "megatron": read_megatron}


@pytest.mark.parametrize("target", FULL_SHAPES)
def test_every_preset_is_refused_or_reads_back_with_its_parameters(target: str) -> None:
    """But for what the notes say is not exported."""
    cluster, layout = load_cluster("h100-sxm:8"), Layout(fsdp=8)
    workload = Workload(seq_len=512, global_batch_size=8)
    read = 0
    for name in model_names():
        shape = load_model(name)
        try:
            made = TARGETS[target](shape, workload, cluster, layout)
        except LayoutError:
            continue
        back = FULL_SHAPES[target](made.text, num_devices=8).shape
        if back is None and any("from its own file" in note for note in made.notes):
            continue
        read += 1
        assert back is not None
        if not any("not exported" in note and "bias" in note for note in made.notes):
            assert count_parameters(back).total == count_parameters(shape).total, name
    assert read > 40


@settings(deadline=None)
@given(layout=layouts)
def test_megatron_reads_back(layout: Layout) -> None:
    layout = dataclasses.replace(layout, data=1)  # Megatron FSDP has one shard group
    shape = load_model("llama3-8b")
    cluster = load_cluster("cpu", num_chips=layout.num_devices)
    back = read_megatron(TARGETS["megatron"](shape, WORKLOAD, cluster, layout).text, num_devices=layout.num_devices)
    assert back.notes == ()
    assert back.layout == layout
    assert back.workload == dataclasses.replace(WORKLOAD, capacity_factor=0.0)
    assert back.shape is not None
    assert _sizes(back.shape) == _sizes(shape)


@settings(deadline=None)
@given(layout=layouts)
def test_deepspeed_reads_back(layout: Layout) -> None:
    layout = dataclasses.replace(layout, data=1)  # ZeRO has one shard group
    cluster = load_cluster("cpu", num_chips=layout.num_devices)
    made = TARGETS["deepspeed"](load_model("llama3-8b"), WORKLOAD, cluster, layout)
    back = read_deepspeed(made.text, num_devices=layout.num_devices, seq_len=WORKLOAD.seq_len)
    assert back.layout == dataclasses.replace(layout, remat="none")
    assert back.workload == WORKLOAD


def _sizes(shape: ModelShape) -> tuple:
    return (shape.num_layers, shape.d_model, shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.d_ff,
            shape.vocab_size, shape.mlp, shape.tied_embeddings, shape.moe, shape.mla, shape.rope.theta)  # fmt: skip


@pytest.mark.parametrize("remat", ["none", "dots", "attention", "flash", "full", "offload_attention", "offload_inputs"])
def test_every_remat_policy_survives_maxtext(remat: str) -> None:
    shape, workload, cluster, layout = problem("dense")
    layout = dataclasses.replace(layout, remat=remat)
    back = read_maxtext(TARGETS["maxtext"](shape, workload, cluster, layout).text, num_devices=cluster.num_devices)
    assert back.layout.remat == ("none" if remat == "dots" else remat)  # the two differ in element-wise ops only


@pytest.mark.parametrize(
    ("frequency", "leading", "interval"),
    [("([0]*3+[1]*5)", 3, 1), ("'([1]*8)'", 0, 1), ("[0,1,1,1,1,1,1,1]", 1, 1), ("2", 0, 2)],
)
def test_megatrons_patterns_of_sparse_layers_are_read(frequency: str, leading: int, interval: int) -> None:
    text = (
        "--num-layers 8 --hidden-size 512 --num-attention-heads 8 --seq-length 128 --global-batch-size 8 --swiglu "
        "--micro-batch-size 1 --vocab-size 1000 --position-embedding-type rope --num-experts 8 --moe-router-topk 2 "
        f"--moe-ffn-hidden-size 64 --moe-router-pre-softmax --moe-layer-freq {frequency}"
    )
    shape = read_megatron(text, num_devices=8).shape
    assert shape is not None
    assert shape.moe is not None
    assert (shape.moe.num_leading_dense_layers, shape.moe.layer_interval) == (leading, interval)
    assert not shape.moe.renormalize_top_k
    assert shape.d_ff == 1344  # Megatron's own default: 4 x 512 x 2/3, down to a multiple of 64


def test_megatron_is_read_with_pytorchs_fsdp_and_stages_in_turn() -> None:
    text = (
        "--num-layers 8 --hidden-size 512 --num-attention-heads 8 --seq-length 128 --global-batch-size 8 "
        "--micro-batch-size 1 --vocab-size 1000 --position-embedding-type rope"
    )
    fsdp = read_megatron(f"{text} --use-torch-fsdp2", num_devices=8).layout
    assert (fsdp.fsdp, fsdp.params_shard) == (8, "fsdp")
    turns = "--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 4"
    staged = read_megatron(f"{text} {turns}", num_devices=8).layout
    assert (staged.pipeline, staged.virtual_stages, staged.schedule) == (2, 4, "interleaved")


def test_a_mixture_of_experts_survives_megatron() -> None:
    shape, workload, cluster, _ = problem("sparse")
    layout = parse_layout("fsdp=4,expert=8,pipeline=2,schedule=interleaved,virtual_stages=4,zero=1,remat=full")
    made = TARGETS["megatron"](shape, workload, cluster, layout)
    back = read_megatron(made.text, num_devices=64)
    assert back.layout == layout
    assert back.shape is not None
    assert back.shape.moe == shape.moe


@pytest.mark.parametrize(
    ("read", "text", "word"),
    [
        (read_megatron, "--num-layers two --hidden-size 8 --num-attention-heads 2", "--num-layers"),
        (read_megatron, "pretrain", "does not follow"),
        (
            read_megatron,
            "--num-layers 8 --hidden-size 512 --num-attention-heads 8 --vocab-size 9 --seq-length 8 --num-experts 8 "
            "--global-batch-size 8 --position-embedding-type rope --moe-layer-freq every",
            "--moe-layer-freq",
        ),
        (read_maxtext, "- a", "mapping"),
        (read_maxtext, "ici_tensor_parallelism: 3", "multiply"),
        (read_maxtext, "ici_sequence_parallelism: 2", "ici_sequence_parallelism"),
    ],
)
def test_bad_files_are_named(read, text: str, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        read(text, num_devices=8)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ('{"train_batch_size": "auto"}', "train_batch_size='auto'"),
        ('{"train_batch_size": 9}', "is not train_micro_batch_size_per_gpu"),
        ('{"zero_optimization": {"stage": 4}}', "stage=4"),
    ],
)
def test_bad_deepspeed_files_are_named(text: str, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        read_deepspeed(text, num_devices=8, seq_len=128)


def test_the_jax_script_runs(tmp_path: Path) -> None:
    shape, workload, _, _ = problem("dense")
    workload = dataclasses.replace(workload, seq_len=512, global_batch_size=8)
    made = TARGETS["jax"](shape, workload, load_cluster("cpu:8"), parse_layout("fsdp=2,tensor=2,pipeline=2,sp=true"))
    script = tmp_path / made.filename
    script.write_text(made.text)
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, script], env=os.environ | flags, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "q: (32, 4096, 4096) -> (16, 2048, 2048) on each device" in done.stdout
    assert "each device gets [(1, 256, 4096), (2048, 7168), (7168, 2048)]" in done.stdout
