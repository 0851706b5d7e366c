"""`jaxscale compile` and `jaxscale cache`, through the command line."""

import json

import pytest
from click.testing import CliRunner

import jaxscale.aot.compile as compile_module
from jaxscale.cli.cache import command as cache_command
from jaxscale.cli.compile import command as compile_command
from jaxscale.errors import InfeasibleError, SpecError

SHAPE_YAML = """name: tiny
num_layers: 2
d_model: 64
num_heads: 4
num_kv_heads: 2
head_dim: 16
d_ff: 128
vocab_size: 256
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli")
    (path / "tiny.yaml").write_text(SHAPE_YAML)
    return path


@pytest.fixture(autouse=True)
def _own_cache(folder, monkeypatch):
    monkeypatch.setenv("JAXSCALE_CACHE", str(folder / "cache"))


def run(folder, *more: str):
    arguments = [
        str(folder / "tiny.yaml"), "--cluster", "cpu:2", "--seq-len", "64", "--global-batch-size", "4",
        "--layout", "fsdp=2,remat=full", *more,
    ]  # fmt: skip
    return CliRunner().invoke(compile_command, arguments, catch_exceptions=False)


def test_compile_then_again_from_the_cache_then_clear(folder, monkeypatch):
    dump = folder / "dump"
    record = json.loads(run(folder, "--json", "--dump", str(dump)).stdout)
    assert (dump / "step.optimized_hlo.txt").exists()
    events = json.loads((dump / "step.trace.json").read_text())["traceEvents"]
    slices, counters = ([e for e in events if e["ph"] == kind] for kind in "XC")
    assert max(s["ts"] + s["dur"] for s in slices) == pytest.approx(record["step_time_s"] * 1e6)
    assert {c["name"] for c in counters} == {"memory of stage 0 (bytes)"}
    assert max(c["args"]["value"] for c in counters) == pytest.approx(record["memory_bytes"]["total"])
    assert len({c["args"]["value"] for c in counters}) > 10
    assert record["tier"] == "compiled"
    assert record["status"] == "compiled"
    assert record["compiler"]["cached"] is False
    assert record["memory_bytes"]["total"] == sum(record["memory_bytes"]["parts"].values())
    assert set(record["comm_bytes"]) == {"fsdp"}
    assert record["step_time_lower_s"] <= record["step_time_s"] <= record["step_time_upper_s"]
    assert sum(record["time_parts_s"].values()) == pytest.approx(record["step_time_s"])

    monkeypatch.setattr(compile_module, "CHILD_MODULE", "tests.aot.no_such_module")  # nothing may be compiled
    text = run(folder).stdout
    for said in ("kept from before", "Memory per device", "Collectives of a step", "all-gather", "CPU backend"):
        assert said in text

    runner = CliRunner()
    assert json.loads(runner.invoke(cache_command, ["--json"]).stdout)["entries"] == 1
    assert "cleared 1 compiled steps" in runner.invoke(cache_command, ["clear"]).stdout
    assert json.loads(runner.invoke(cache_command, ["--json"]).stdout)["entries"] == 0


def test_what_does_not_fit_is_told_before_the_exit(folder, monkeypatch):
    monkeypatch.setattr(compile_module, "CHILD_MODULE", "tests.aot.oom_child")
    with pytest.raises(InfeasibleError, match="exceeds available HBM") as refused:
        run(folder)
    assert refused.value.exit_code == 3


def test_flags_are_written_name_equals_value(folder):
    with pytest.raises(SpecError, match="--flag: 'xla_dump'"):
        run(folder, "--flag", "xla_dump")
