"""Calls of the Python API that ask a compiler, devices or a table of runs: end to end, on emulated devices."""

from pathlib import Path

import pytest

from jaxscale import ModelShape, Workload, calibrate_stack, compile_step, measure_step, validate_runs
from jaxscale.errors import LayoutError
from jaxscale.types import parse_layout

from .examples import runs_table

SHAPE = ModelShape(
    name="tiny", num_layers=2, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=128, vocab_size=256
)
WORKLOAD = Workload(seq_len=64, global_batch_size=4)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXSCALE_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_a_step_is_compiled_beside_its_prediction_and_only_once(tmp_path: Path) -> None:
    first = compile_step(SHAPE, WORKLOAD, "cpu:2", "fsdp=2,remat=full")
    assert first.step.status == "compiled"
    assert first.compiled.tier == "compiled"
    assert first.compiled.layout == first.predicted.layout == parse_layout("fsdp=2,remat=full")
    frame = first.to_pandas()
    assert frame.tier.tolist() == ["predicted", "compiled"]
    assert (frame.step_time_s > 0).all()
    assert set(first.compiled.comm_bytes) == {"fsdp"}
    assert first.compiled.hardware_flops == pytest.approx(first.predicted.hardware_flops, rel=0.05)
    again = compile_step(SHAPE, WORKLOAD, "cpu:2", "fsdp=2,remat=full")
    assert again.step.cached
    assert again.compiled == first.compiled
    assert "compile" in again.write_report(tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_step_is_measured_beside_its_prediction() -> None:
    measured = measure_step(SHAPE, WORKLOAD, "cpu:2", "data=2,zero=0", num_steps=3, num_warmup_steps=1)
    m = measured.measurement
    assert m.status == "ok", m.message
    frame = measured.to_pandas()
    assert frame.warmup.tolist() == [True, False, False, False]
    assert (frame.seconds > 0).all()
    assert frame.loss.notna().all()
    assert frame.loss.iloc[-1] < frame.loss.iloc[0]
    record = measured.to_json()
    assert record["step_time_s"] == m.median_s
    assert 0 < record["mfu"] <= record["hfu"] < 1
    assert record["predicted"]["step_time_s"] == measured.predicted.step_time_s


@pytest.mark.parametrize("call", [compile_step, measure_step])
def test_a_layout_that_does_not_fit_the_devices_is_refused_before_anything_starts(call) -> None:
    with pytest.raises(LayoutError, match="3"):
        call(SHAPE, WORKLOAD, "cpu:2", "fsdp=3")


@pytest.mark.slow
def test_a_stack_is_calibrated_from_a_table_of_runs(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(runs_table())
    fitted = calibrate_stack(table, chip="a100-sxm-80gb")
    assert {run.cluster.chip.name for run in fitted.runs} == {"a100-sxm-80gb"}
    constants = fitted.to_pandas()
    assert (constants.low_80 <= constants.high_80).all()
    mine = fitted.write_yaml(tmp_path / "mine.yaml")
    before, after = validate_runs(table), validate_runs(table, calibrations=[mine])
    assert after.to_pandas().error.abs().median() < before.to_pandas().error.abs().median()
