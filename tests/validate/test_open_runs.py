"""What ships, against the table of measured runs it was fitted to; skipped where the table is not there."""

import os
from pathlib import Path

import pytest

from jaxscale.validate import predict, read_runs, scores_by_source

TABLE = Path(os.environ.get("JAXSCALE_RUNS", Path(__file__).parents[3] / "shared" / "truth" / "runs_open.csv"))
pytestmark = pytest.mark.skipif(not TABLE.is_file(), reason=f"no table of measured runs at {TABLE} (set JAXSCALE_RUNS)")


@pytest.fixture(scope="module")
def rows():
    runs, refusals = read_runs(TABLE)
    return {row.name: row for row in scores_by_source(runs, predict(runs), refusals)}


def test_few_rows_are_refused(rows):
    assert rows["all"].refused <= 10


@pytest.mark.parametrize(
    ("source", "median"),
    [
        ("aleph-main", 0.035), ("aleph-seqpara", 0.035), ("foundry-a100", 0.05), ("foundry-a100-40", 0.03),
        ("sc21-table1", 0.02), ("korthikanti", 0.025), ("maxtext-v5e", 0.04), ("maxtext-v4", 0.03),
        ("torchtitan", 0.03), ("nemo2407", 0.06), ("vtrain-multi", 0.045),
    ],
)  # fmt: skip
def test_median_error_of_step_time(rows, source, median):
    assert rows[source].median_error < median


def test_out_of_memory_is_foreseen(rows):
    assert rows["all"].fit_accuracy > 0.97
    assert rows["aleph-main"].fit_accuracy > 0.95


def test_intervals_hold_about_what_they_say(rows):
    assert 0.75 < rows["all"].coverage < 0.90
