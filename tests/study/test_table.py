"""Exported and imported back, a store is the same."""

import dataclasses
import importlib.util
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.errors import StoreError
from jaxscale.study import Store, read_table, write_table
from jaxscale.study.record import to_row
from tests.study.records import failed, measurement

ROWS = [to_row(measurement("007")), to_row(measurement("1e5", model="NA")), to_row(failed("f1"))]
HAS_PARQUET = importlib.util.find_spec("pyarrow") is not None
needs_parquet = pytest.mark.skipif(not HAS_PARQUET, reason="pyarrow is not installed")


@pytest.mark.parametrize("ending", ["csv", pytest.param("parquet", marks=needs_parquet)])
def test_a_table_reads_back_as_it_was(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"runs.{ending}"
    write_table(ROWS, path)
    assert read_table(path) == ROWS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@given(
    times_s=st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=5).map(tuple),
    message=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
)
def test_no_digit_and_no_character_is_lost(times_s: tuple[float, ...], message: str, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    row = to_row(dataclasses.replace(measurement("a"), step_times_s=times_s, message=message))
    write_table([row], path)
    assert read_table(path) == [row]


def test_an_empty_store_has_a_table(tmp_path: Path) -> None:
    write_table([], tmp_path / "runs.csv")
    assert read_table(tmp_path / "runs.csv") == []


def test_an_import_adds_what_is_new(tmp_path: Path) -> None:
    write_table(ROWS, tmp_path / "runs.csv")
    store = Store(str(tmp_path / "other.db"))
    assert store.add_rows(read_table(tmp_path / "runs.csv")) == 3
    assert store.add_rows(read_table(tmp_path / "runs.csv")) == 0
    assert store.check() == []


def test_a_table_of_an_older_version_has_no_programs(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    write_table(ROWS, path)
    pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="program").to_csv(path, index=False)
    assert read_table(path) == ROWS


def test_an_edited_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    write_table(ROWS, path)
    path.write_text(path.read_text().replace("0.30000000000000004", "0.3"))
    with pytest.raises(StoreError, match=r"row 1: .*SHA-256"):
        read_table(path)


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(StoreError, match=r"identifier.* missing"):
        read_table(tmp_path / "runs.csv")
    with pytest.raises(StoreError, match=r"must be \.csv or \.parquet"):
        read_table(tmp_path / "runs.xlsx")


@pytest.mark.skipif(HAS_PARQUET, reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="pip install pyarrow"):
        write_table(ROWS, tmp_path / "runs.parquet")
