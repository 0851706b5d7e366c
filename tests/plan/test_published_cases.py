"""Numeric cases from the papers, read from a file beside the repository where it is present.

The file is not part of the repository, so that a clone elsewhere skips them; `experiments/planner` has its own.
"""

import csv

import pytest

from tests.plan.conftest import PUBLIC_CASES


def _rows() -> list:
    if not PUBLIC_CASES.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"no file of cases at {PUBLIC_CASES}"))]
    with open(PUBLIC_CASES, newline="", encoding="utf-8") as file:
        return [pytest.param(row, id=f"{i}-{row['law']}") for i, row in enumerate(csv.DictReader(file))]


@pytest.mark.parametrize("row", _rows())
def test_case_within_tolerance(row, law_cases):
    result = law_cases.check(row, PUBLIC_CASES.parent / "data")
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.passed, f"{result.description}: expected {result.expected}, got {result.got}, {result.tolerance}"
