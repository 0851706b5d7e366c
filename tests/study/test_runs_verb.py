"""`jaxscale runs` through the command line."""

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jaxscale.cli.runs import command
from jaxscale.errors import StoreError
from jaxscale.study import Store
from tests.study.records import failed, measurement


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(str(tmp_path / "runs.db"))
    store.save(measurement("aaaa1111"))
    store.save(measurement("bbbb2222", step_times_s=(0.05, 0.05), num_devices=4))
    store.save(failed("cccc3333"))
    store.close()
    return tmp_path


def runs(folder: Path, *arguments: str, name: str = "runs.db") -> Result:
    environment = {"JAXSCALE_STORE": str(folder / name), "COLUMNS": "80"}
    return CliRunner().invoke(command, list(arguments), env=environment)


def test_list(folder: Path) -> None:
    answer = runs(folder, "list")
    assert answer.exit_code == 0
    assert answer.stdout.count("tiny") == 3
    listed = json.loads(runs(folder, "list", "--status", "out_of_memory", "--json").stdout)["runs"]
    assert [(run["identifier"], run["step_time_s"]) for run in listed] == [("cccc3333", None)]


def test_show_holds_all_that_is_needed_to_repeat(folder: Path) -> None:
    shown = json.loads(runs(folder, "show", "aaaa", "--json").stdout)
    assert shown["step_time_s"] == 0.2
    assert {"shape", "workload", "layout", "cluster", "seed", "num_steps"} <= set(shown["request"])
    assert "out_of_memory" in runs(folder, "show", "cccc").stdout


def test_compare(folder: Path) -> None:
    answer = json.loads(runs(folder, "compare", "aaaa", "bbbb", "--json").stdout)
    assert answer["speedup"] == pytest.approx(4.0)
    assert answer["differences"] == {"num_devices": [2, 4]}
    assert "4 times as fast" in runs(folder, "compare", "aaaa", "bbbb").stdout


def test_export_and_import(folder: Path) -> None:
    path = str(folder / "runs.csv")
    assert "3 runs written" in runs(folder, "export", path).stdout
    assert "3 of 3 runs are new" in runs(folder, "import", path, name="other.db").stdout
    assert "0 of 3 runs are new" in runs(folder, "import", path, name="other.db").stdout
    assert "3 runs, all as they were saved" in runs(folder, "check", name="other.db").stdout


def test_a_damaged_store_is_mended_by_export_and_import(folder: Path) -> None:
    connection = sqlite3.connect(folder / "runs.db")
    connection.execute("UPDATE measurements SET record = '{}' WHERE identifier = 'bbbb2222'")
    connection.commit()
    connection.close()
    path = str(folder / "runs.csv")
    answer = runs(folder, "export", path)
    assert "2 runs written" in answer.stdout
    assert "left out bbbb2222: run bbbb2222: the record is not what was saved" in answer.stderr
    assert "2 of 2 runs are new" in runs(folder, "import", path, name="mended.db").stdout
    assert runs(folder, "check", name="mended.db").exit_code == 0


def test_a_store_that_is_not_there(folder: Path) -> None:
    answer = runs(folder, "list", name="none.db")
    assert isinstance(answer.exception, StoreError)
    assert not (folder / "none.db").exists()
