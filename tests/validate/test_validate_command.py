"""`jaxscale validate` and `jaxscale calibrate` from the outside."""

import csv
import json
import subprocess
import sys

import pytest
from measured_table import SWEEP, table


def jaxscale(*arguments):
    return subprocess.run([sys.executable, "-m", "jaxscale", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate")
    (folder / "runs.csv").write_text(table(*SWEEP, {"hardware": "abacus"}))
    return folder


def test_predictions_scores_and_report_are_written(folder):
    out, report = folder / "pred.csv", folder / "report.html"
    done = jaxscale("validate", folder / "runs.csv", "--json", "--out", out, "--report", report)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["name"] for row in document["scores"]] == ["mine", "all"]
    assert document["scores"][0]["refused"] == 1
    assert "abacus" in document["refused"][0]["reason"]
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == len(SWEEP) + 1
    assert rows[-1]["refused"]
    assert rows[-1]["step_time_s"] == ""
    for row in rows[:-1]:
        assert float(row["step_time_lower_s"]) < float(row["step_time_s"]) < float(row["step_time_upper_s"])
        assert row["fits"] in ("true", "false")
        assert 0 < float(row["mfu"]) < 1
        assert float(row["peak_memory_bytes"]) > 1e9
        assert row["refused"] == ""
    assert "By factor" in report.read_text()


def test_text_has_a_line_for_every_source_and_residuals(folder):
    done = jaxscale("validate", folder / "runs.csv", "--residuals")
    assert done.returncode == 0, done.stderr
    assert "1 rows refused" in done.stdout
    assert "microbatch size" in done.stdout


@pytest.mark.parametrize(
    ("text", "words"), [("id\n1\n", "are missing"), (table({"hardware": "abacus"}), "no row can be used")]
)
def test_no_usable_row_exits_2(tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text)
    done = jaxscale("validate", tmp_path / "bad.csv")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_calibration_that_cannot_be_read_exits_2(folder):
    done = jaxscale("validate", folder / "runs.csv", "--calibration", folder / "none.yaml")
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


def test_a_calibration_changes_the_predictions_of_its_stack(folder):
    """Twice the efficiency of matmuls, half the time of what they take."""
    mine = folder / "mine.yaml"
    mine.write_text(
        "stack: megatron\nchip: a100\nsigma_log: 0.03\n"
        "constants: {matmul_efficiency: {value: 0.95, low: 0.9, high: 0.99, spread: 0.1}}\n"
    )
    shipped = json.loads(jaxscale("validate", folder / "runs.csv", "--json").stdout)["scores"][-1]
    changed = json.loads(jaxscale("validate", folder / "runs.csv", "--json", "--calibration", mine).stdout)["scores"][
        -1
    ]
    assert changed["bias"] < shipped["bias"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--chip", "h100"), "no run is on it"), (("--stack", "megatrom"), "Did you mean megatron?")],
)
def test_calibrate_refuses_what_the_table_does_not_have(folder, arguments, words):
    done = jaxscale("calibrate", folder / "runs.csv", "--out", folder / "x.yaml", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_calibrate_writes_a_file_that_validate_reads(folder):
    mine = folder / "fitted.yaml"
    done = jaxscale("calibrate", folder / "runs.csv", "--chip", "a100-sxm-80gb", "--out", mine, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stack"] == "megatron"
    before = json.loads(jaxscale("validate", folder / "runs.csv", "--json").stdout)["scores"][-1]
    after = json.loads(jaxscale("validate", folder / "runs.csv", "--json", "--calibration", mine).stdout)["scores"][-1]
    assert after["median_error"] <= before["median_error"] + 1e-9
