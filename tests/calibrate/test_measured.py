"""Measurements of the own step as runs, and the calibration of a store."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from jaxscale.calibrate import load_calibration, own_stack
from jaxscale.calibrate.measured import runs_of
from jaxscale.catalog import load_cluster, load_model
from jaxscale.cli.calibrate import command
from jaxscale.cost import estimate
from jaxscale.errors import SpecError
from jaxscale.study import Store
from jaxscale.types import Workload, parse_layout
from jaxscale.types.measurement import Measurement, MeasureRequest

LAYOUTS = ("fsdp=8,remat=none", "fsdp=8,remat=full", "fsdp=4,tensor=2,remat=full", "data=8,zero=1,remat=full")


def measured(layout: str, seq_len: int, *, slower: float = 1.0, **fields) -> Measurement:
    """An H100 node that takes `slower` times what is predicted."""
    asked = MeasureRequest(
        shape=load_model("gpt2-124m"), workload=Workload(seq_len=seq_len, global_batch_size=64),
        layout=parse_layout(layout), cluster=load_cluster("h100-sxm:8"),
    )  # fmt: skip
    stack = own_stack(asked.cluster, asked.workload)
    seconds = slower * estimate(asked.shape, asked.workload, asked.cluster, asked.layout, stack).step_time_s
    made = Measurement(
        identifier=f"{layout}-{seq_len}", started_at="2026-01-02T03:04:05+00:00", request=asked, status="ok",
        step_times_s=(seconds,), peak_memory_bytes=1e9, memory_source="device",
    )  # fmt: skip
    return dataclasses.replace(made, **fields)


def test_a_measurement_is_a_run() -> None:
    good = measured(LAYOUTS[0], 512)
    full = measured(LAYOUTS[1], 512, status="out_of_memory", step_times_s=(), memory_source="none")
    hung = measured(LAYOUTS[2], 512, status="hang")
    runs = runs_of([good, good, full, hung])
    assert [run.outcome for run in runs] == ["ok", "ok", "oom", "other_error"]
    assert [run.weight for run in runs] == [0.5, 0.5, 1.0, 1.0]
    assert (runs[0].step_time_s, runs[0].peak_memory_bytes) == (good.median_s, 1e9)
    assert math.isnan(runs[2].step_time_s)
    assert math.isnan(runs[2].peak_memory_bytes)
    assert math.isnan(runs[3].step_time_s)  # of the steps before it hung
    assert (runs[0].chip, runs[0].software.stack) == ("h100", "xla_gpu")
    assert len({run.comparable for run in runs}) == 1


def test_out_of_memory_of_an_emulated_mesh_says_nothing_about_a_device() -> None:
    full = measured(LAYOUTS[0], 512, status="out_of_memory", step_times_s=())
    emulated = dataclasses.replace(full, request=dataclasses.replace(full.request, cluster=load_cluster("cpu:8")))
    assert [run.outcome for run in runs_of([emulated])] == ["other_error"]


def test_a_store_calibrates_the_own_step(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs.db"))
    for layout in LAYOUTS:
        for seq_len in (512, 2048):
            store.save(measured(layout, seq_len, slower=1.5))
    out = tmp_path / "mine.yaml"
    here = tmp_path / "here.yaml"
    arguments = ["--store", str(tmp_path / "runs.db"), "--out", str(out), "--as-cluster", str(here), "--json"]
    answer = CliRunner().invoke(command, arguments)
    assert answer.exception is None
    told = json.loads(answer.stdout)
    assert told["errors"]["before"]["runs"] == 8
    assert told["errors"]["before"]["bias"] == pytest.approx(1 / 1.5 - 1, abs=0.02)
    assert told["errors"]["after"]["median"] < 0.1 < told["errors"]["before"]["median"]
    calibration = load_calibration(out)
    assert (calibration.stack, calibration.chip) == ("xla_gpu", "h100")
    # What was learned is what is predicted on the cluster that was written.
    asked, cluster = measured(LAYOUTS[0], 512, slower=1.5), load_cluster(str(here))
    shape, workload, layout = asked.request.shape, asked.request.workload, asked.request.layout
    predicted = estimate(shape, workload, cluster, layout, own_stack(cluster, workload))
    assert predicted.step_time_s == pytest.approx(asked.median_s, rel=0.1)


def test_what_can_be_calibrated(tmp_path: Path) -> None:
    empty = str(tmp_path / "runs.db")
    Store(empty)
    for arguments, message in (
        ([], "give either RUNS.csv or --store"),
        (["runs.csv", "--store", empty], "give either RUNS.csv or --store"),
        (["--store", empty], "none of its 0 measurements has a step time"),
        (["runs.csv", "--as-cluster", str(tmp_path / "here.yaml")], "needs --store"),
    ):
        answer = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "mine.yaml")])
        assert isinstance(answer.exception, SpecError)
        assert message in str(answer.exception)
