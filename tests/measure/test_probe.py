"""A probe of two emulated devices, and its cluster file in use."""

import dataclasses
import json
from collections import Counter

import pytest
from click.testing import CliRunner

import jaxscale.measure.probe as probe_module
from jaxscale.catalog import load_cluster
from jaxscale.cli.probe import command
from jaxscale.cost import estimate
from jaxscale.errors import MeasurementError
from jaxscale.measure import probe_plan, run_probe
from jaxscale.measure.probe import COLLECTIVES
from jaxscale.measure.probe_steps import probe_steps
from jaxscale.types import PRECISIONS
from tests.measure.requests import request


def test_a_probed_machine_is_a_cluster_like_any_other(tmp_path) -> None:
    path = tmp_path / "here.yaml"
    arguments = ["--cluster", "cpu:2", "--output", str(path), "--quick", "--quiet", "--json"]
    answer = CliRunner().invoke(command, arguments, catch_exceptions=False)
    printed = json.loads(answer.stdout)
    taken = Counter(sample["what"] for sample in printed["probe"]["samples"])
    assert taken["matmul"] == 2  # one shape in two types
    assert {kind: taken[kind] for kind in COLLECTIVES} == dict.fromkeys(COLLECTIVES, 2)  # two payloads, one axis
    assert taken["copy"] == taken["vector"] == taken["host_copy"] == taken["dispatch"] == 1
    assert all(sample["seconds"] > 0 for sample in printed["probe"]["samples"])
    cluster = load_cluster(str(path))
    assert cluster.num_devices == 2
    assert cluster.chip.source.startswith("jaxscale probe of cpu")
    asked = request()
    assert estimate(asked.shape, asked.workload, cluster, asked.layout).step_time_s > 0


def test_a_small_step_is_timed() -> None:
    """One of the steps, alone: all of them take minutes."""
    [step] = [s for s in probe_steps(2, PRECISIONS["fp32"]) if s.layout.tensor == 2 and s.layout.sequence_parallel]
    bare = probe_plan(2, emulated=True, quick=True)
    plan = dataclasses.replace(
        bare, dtypes=(), stream_elements=(), payload_bytes=(), steps=(step,), num_trials=1
    )  # fmt: skip
    news: list[str] = []
    found = run_probe(plan, on_news=news.append)
    assert [s.what for s in found.samples] == ["dispatch"]
    assert found.steps[0].seconds > 0
    assert dataclasses.replace(found.steps[0], seconds=0.0) == step
    assert news[-1].startswith("step of probe as ")


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(MeasurementError, match="4096 devices are needed"):
        run_probe(probe_plan(4096, emulated=False))


def test_a_process_that_dies_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "CHILD_MODULE", "jaxscale.no_such_module")
    with pytest.raises(MeasurementError, match=r"exited with code 1.*no_such_module"):
        run_probe(probe_plan(2, emulated=True))
