"""The run spec file: what it gives, and what it says about its faults."""

import json
from pathlib import Path

import pytest

from jaxscale.catalog import is_spec, load_cluster, load_model, load_spec
from jaxscale.errors import JaxscaleError
from jaxscale.types import OPTIMIZERS, PRECISIONS, Layout, Workload

SPEC = """
model: llama3-8b
workload: {seq_len: 8192, global_batch_size: 128, precision: fp8, optimizer: lion, training_tokens: 15T}
cluster: v5p-64
search:
  top: 3
  objective: money
  limits: ["tensor<=8", "remat=full|dots"]
  check: [compile, twin]
  headroom: 0.1
output: {json: true, report: report.html}
"""


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return written


def test_whole_spec(write) -> None:
    spec = load_spec(write(SPEC))
    assert spec.model == load_model("llama3-8b")
    assert spec.workload == Workload(
        seq_len=8192, global_batch_size=128, precision=PRECISIONS["fp8"], optimizer=OPTIMIZERS["lion"],
        training_tokens=15 * 10**12,
    )  # fmt: skip
    assert spec.clusters == (load_cluster("v5p-64"),)
    assert (spec.layout, spec.search.top, spec.search.objective, spec.search.headroom) == (None, 3, "money", 0.1)
    assert spec.search.limits == ("tensor<=8", "remat=full|dots")
    assert spec.search.check == ("compile", "twin")
    assert (spec.output.json, spec.output.report) == (True, "report.html")


def test_shortest_spec(write) -> None:
    spec = load_spec(write("model: llama3-8b\nworkload: {seq_len: 8, global_batch_size: 2}\ncluster: cpu:8"))
    assert (spec.search.top, spec.search.limits, spec.search.check, spec.output.report) == (3, (), (), "")


LAYOUTS = [
    'layout: "fsdp=16,tensor=2,sp=true"',
    "layout: {fsdp: 16, tensor: 2, sequence_parallel: true}",
    "layout: {fsdp: 16, tp: 2, sp: true, zero: 3}",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_instead_of_search(write, layout: str) -> None:
    text = SPEC[: SPEC.index("search")] + layout
    assert load_spec(write(text)).layout == Layout(fsdp=16, tensor=2, sequence_parallel=True)


def test_one_limit_and_one_check_without_a_list(write) -> None:
    text = SPEC.replace('["tensor<=8", "remat=full|dots"]', '"tensor<=8"').replace("[compile, twin]", "twin")
    assert load_spec(write(text)).search.limits == ("tensor<=8",)
    assert load_spec(write(text)).search.check == ("twin",)


def test_several_clusters_and_descriptions_in_place(write) -> None:
    tiers = "[{name: ib, kind: switch, shape: 4, bytes_per_s: 50 GB/s, latency_s: 4 us}]"
    text = SPEC.replace("cluster: v5p-64", f"cluster: [v5p-64, 'h100-sxm:64', {{chip: h200, tiers: {tiers}}}]")
    assert [cluster.name for cluster in load_spec(write(text)).clusters] == ["v5p-64", "h100-sxm:64", "run"]
    shape = "{num_layers: 2, d_model: 64, num_heads: 4, num_kv_heads: 2, head_dim: 16, d_ff: 128, vocab_size: 256}"
    text = SPEC.replace("model: llama3-8b", f"model: {shape}")
    assert (load_spec(write(text)).model.name, load_spec(write(text)).model.d_model) == ("run", 64)


def test_paths_are_meant_from_the_specs_folder(write, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    hub = json.loads(Path(__file__).with_name("hub_configs.json").read_text())
    (folder / "config.json").write_text(json.dumps(hub["gpt2-1.5b"]))
    cluster = Path(__file__).parents[2] / "tpu_configs" / "v5p-64.yaml"
    (tmp_path / "slice.yaml").write_text(cluster.read_text())
    for model in ("model", "model/config.json"):
        text = SPEC.replace("model: llama3-8b", f"model: {model}").replace("cluster: v5p-64", "cluster: slice.yaml")
        spec = load_spec(write(text))
        assert (spec.model.num_layers, spec.clusters) == (48, (load_cluster("v5p-64"),))


def test_a_spec_is_told_from_a_shape(write) -> None:
    assert is_spec(str(write(SPEC)))
    assert not is_spec(str(write("num_layers: 2")))
    assert not is_spec("config.json")
    assert not is_spec("llama3-8b")


FAULTS = [
    ("model: llama3-8b", "modle: llama3-8b", "'modle' is unknown; known: .*Did you mean model"),
    ("model: llama3-8b", "model:", "section model is missing"),
    ("model: llama3-8b", "model: llama3-9b", "model 'llama3-9b' is unknown.*Did you mean .*llama3-8b"),
    ("model: llama3-8b", "model: [a]", "model must be a mapping"),
    ("cluster: v5p-64", "cluster: []", "empty list"),
    ("cluster: v5p-64", "cluster: v5p-66", "nearby sizes"),
    ("cluster: v5p-64", "cluster: 8", "cluster must be a mapping"),
    ("seq_len: 8192", "seq_len: 0", "seq_len=0 must be between 1"),
    ("seq_len: 8192", "seq_len: 8k", "seq_len='8k' must be a whole number"),
    ("seq_len: 8192", "seqlen: 8192", "'seqlen' is unknown.*Did you mean seq_len"),
    ("seq_len: 8192, ", "", "workload: seq_len missing"),
    ("global_batch_size: 128", "global_batch_size: 1e30", "must be a whole number"),
    ("precision: fp8", "precision: fp4", "precision='fp4' is not one of .*Did you mean fp"),
    ("precision: fp8", "precision: 8", "precision must be text"),
    ("optimizer: lion", "optimizer: adam", "Did you mean adamw"),
    ("training_tokens: 15T", "training_tokens: many", "training_tokens='many' must be a whole number"),
    ("top: 3", "top: 0", "top=0 must be between 1"),
    ("objective: money", "objective: mony", "Did you mean money"),
    ("check: [compile, twin]", "check: [compil]", "check='compil' is not one of compile, twin"),
    ("headroom: 0.1", "headroom: 10", "must be a share below 1"),
    ("json: true", "json: yes please", "json='yes please' must be true or false"),
    ("output:", "layout: fsdp=2\noutput:", "give either layout .* or search"),
]


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_faults(write, old: str, new: str, message: str) -> None:
    assert old in SPEC
    with pytest.raises(JaxscaleError, match=message):
        load_spec(write(SPEC.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("{fsdp: 1.5}", "layout: fsdp=1.5 must be a number or a word"),
        ("{fspd: 4}", "'fspd' is unknown.*Did you mean fsdp"),
        ("[1]", "layout must be text, got a list"),
        ("{remat: some}", "remat='some' is not one of"),
    ],
)
def test_layout_faults(write, layout: str, message: str) -> None:
    with pytest.raises(JaxscaleError, match=message):
        load_spec(write(SPEC[: SPEC.index("search")] + f"layout: {layout}"))
