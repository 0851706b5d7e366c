"""`jaxscale models` and `jaxscale clusters`: what they print, in 80 columns, and what they answer to bad names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jaxscale.catalog import chip_names, cluster_names, model_names
from jaxscale.cli import cli
from jaxscale.errors import JaxscaleError

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments, env={"COLUMNS": "80"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_models_lists_every_preset() -> None:
    output = run("models").output
    assert all(f"\n{name} " in f"\n{output}" for name in model_names())
    assert max(map(len, output.splitlines())) <= 80
    assert "8.03B" in output


def test_one_model() -> None:
    output = run("models", "gemma3-27b").output
    assert "27,009,346,304" in output
    assert "one layer in 6 sees everything" in output
    assert "8 of 256 of d_ff 2048, 1 shared of 2048" in run("models", "deepseek-v3").output


def test_models_json() -> None:
    listed = json.loads(run("models", "--json").output)
    assert [model["name"] for model in listed] == list(model_names())
    one = json.loads(run("models", "llama3-8b", "--json").output)
    assert one["parameters"]["total"] == 8_030_261_248
    assert one["shape"]["num_kv_heads"] == 8


def test_a_model_from_a_file(tmp_path: Path) -> None:
    hub = json.loads(Path(__file__).with_name("hub_configs.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(hub["pythia-6.9b"]))
    assert "6,857,302,016" in run("models", str(tmp_path / "config.json")).output
    assert "6,857,302,016" in run("models", str(tmp_path)).output


def test_clusters_lists_every_chip_and_slice() -> None:
    output = run("clusters").output
    assert all(f"\n{name} " in f"\n{output}" for name in chip_names())
    assert max(map(len, output.splitlines())) <= 80
    assert "v5p-    2 8 16 32 64 128" in output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v5p-64", "64 TensorCores = 32 chips, 2x4x4 (no wraparound), on 8 hosts"),
        ("v5p-256", "torus 4 (ring) x 4 (ring) x 8 (ring): 90 GB/s a link one way"),
        ("a100-sxm-80gb:8x16", "8 chips a node over nvlink x 16 nodes over ib = 128 chips"),
        ("tpu_configs/v6e-256.yaml", "v6e:16x16"),
        ("cpu:8", "8 emulated devices in one process"),
        ("h100-sxm", "NVIDIA H100 Tensor Core GPU datasheet, 2023-07"),
        ("v5p", "limit that libtpu"),
    ],
)
def test_one_cluster(name: str, expected: str) -> None:
    output = run("clusters", str(ROOT / name) if name.endswith(".yaml") else name).output
    assert expected in output
    assert max(map(len, output.splitlines())) <= 80


def test_clusters_json() -> None:
    listed = json.loads(run("clusters", "--json").output)
    assert [chip["name"] for chip in listed["chips"]] == list(chip_names())
    assert listed["clusters"] == list(cluster_names())
    one = json.loads(run("clusters", "2xv5p-64", "--json").output)
    assert (one["num_chips"], one["num_slices"], one["tiers"][1]["name"]) == (64, 2, "dcn")
    chip = json.loads(run("clusters", "h100-sxm", "--json").output)
    assert chip["sources"].keys() >= {"hbm_bytes", "inner.bytes_per_s"}


@pytest.mark.parametrize(("verb", "name"), [("models", "lama3-8b"), ("models", "x.json"), ("clusters", "v5p-65")])
def test_bad_names_raise_what_main_turns_into_exit_2(verb: str, name: str) -> None:
    with pytest.raises(JaxscaleError) as caught:
        run(verb, name)
    assert caught.value.exit_code == 2


def test_a_bad_name_is_one_sentence_and_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jaxscale", "clusters", "v5p-65"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jaxscale: cluster: no v5p slice has 65 TensorCores")
    assert done.stderr.count("\n") == 1


def test_listing_imports_neither_jax_nor_pandas() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom jaxscale.cli import cli\n"
        "CliRunner().invoke(cli, ['models'])\nCliRunner().invoke(cli, ['clusters'])\n"
        "print(sorted({'jax', 'flax', 'pandas', 'torch', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
