"""A few runs of one's own: they help where they prove it, and leave constants alone where they do not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import other_truth, synthetic_runs, times_and_peaks

from jaxscale.calibrate import CONSTANTS, prior_on
from jaxscale.calibrate.constants import constant_named
from jaxscale.calibrate.held_out import HeldOut
from jaxscale.calibrate.own_runs import KEPT, pace_of, paced_out, refit, shift, simplest, surely_better

START = prior_on("megatron", "a100")
TIMES = {c.name for c in CONSTANTS if c.part != "memory"}


def median_error(runs, calibration):
    seconds, _ = times_and_peaks(runs, calibration)
    return np.median(np.abs(np.log(seconds / np.array([run.step_time_s for run in runs]))))


def changed(calibration):
    """Constants of time that are not what they were."""
    return {n for n in TIMES if (c := constant_named(n)) and calibration.value(c) != pytest.approx(START.value(c))}


def five(runs):
    return runs[1::14][:5], [run for i, run in enumerate(runs) if i % 14 != 1]


def test_a_slower_cluster_is_learnt() -> None:
    runs = synthetic_runs(START, noise=0.02)
    mine, rest = five([dataclasses.replace(run, step_time_s=1.12 * run.step_time_s) for run in runs])
    assert median_error(rest, refit(mine, START)) < 0.5 * median_error(rest, START)


@pytest.mark.parametrize(
    ("paced", "whole", "taken"),
    [
        (0.2, 0.2, "pace"),  # both help: the simpler
        (0.5, 0.1, "all"),
        (1.0, 0.3, "all"),
        (1.0, 0.97, "none"),  # too little to matter
    ],
)
def test_the_simplest_change_that_no_other_surely_beats(paced: float, whole: float, taken: str) -> None:
    errors = np.array([0.10, 0.12, 0.09, 0.11, 0.10])
    answers = [
        HeldOut(errors=errors * share, folds=name) for share, name in ((1, "none"), (paced, "pace"), (whole, "all"))
    ]
    assert simplest(*answers).folds == taken


def test_a_pace_is_stated_as_a_constant() -> None:
    runs = synthetic_runs(START)[:6]
    slower = [dataclasses.replace(run, step_time_s=1.12 * run.step_time_s) for run in runs]
    seconds, _ = times_and_peaks(slower, START)
    errors = np.log(seconds / np.array([run.step_time_s for run in slower]))
    pace = pace_of(errors, START)["pace"]
    assert 1.09 < pace.value < 1.12
    assert pace.low < pace.value < pace.high


def test_another_stack_is_learnt() -> None:
    mine, rest = five(synthetic_runs(other_truth(), noise=0.01))
    found = refit(mine, START)
    assert median_error(rest, found) < 0.6 * median_error(rest, START)
    assert changed(found)


def test_scatter_alone_changes_nothing() -> None:
    mine, rest = five(synthetic_runs(START, noise=0.05, seed=3))
    found = refit(mine, START)
    assert found.provenance["held_out"]["left_out"] == KEPT
    assert changed(found) == set()
    assert median_error(rest, found) == median_error(rest, START)


def test_no_timed_run_leaves_times_alone() -> None:
    runs = [dataclasses.replace(run, outcome="oom", step_time_s=float("nan")) for run in synthetic_runs(START)[:3]]
    found = refit(runs, START)
    assert changed(found) == set()
    assert found.sigma_log == START.sigma_log


@given(common=st.floats(-0.5, 0.5), count=st.integers(2, 30))
def test_a_shift_is_shrunk_the_less_the_more_runs_agree(common: float, count: int) -> None:
    few, spread = shift(np.full(count, common))
    more, narrower = shift(np.full(2 * count, common))
    assert abs(few) <= abs(more) <= abs(common)
    assert narrower < spread


def test_each_run_is_judged_by_the_others() -> None:
    errors = np.array([0.1, 0.1, 0.1, 0.1, -0.4])
    left = paced_out(errors).errors
    assert np.all(np.abs(left[:4]) < 0.1)
    assert left[4] == pytest.approx(-0.4 - shift(errors[:4])[0])
    assert not surely_better(left, errors)
