"""Errors, ranks, regret, fits or not, coverage: against definitions and against scipy."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_table import SWEEP, table
from scipy import stats

from jaxscale.validate import predict, read_runs, residual_levels, scores_by_source
from jaxscale.validate.metrics import rank_correlation, ranks, regret, scores


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "runs.csv"
    path.write_text(table(*SWEEP))
    return read_runs(path)[0]


def perfect(runs):
    """Predictions that are what was measured."""
    seconds = np.array([run.step_time_s for run in runs])
    return dataclasses.replace(
        predict(runs), step_time_s=seconds, lower_s=0.9 * seconds, upper_s=1.1 * seconds,
        fits=np.array([run.outcome == "ok" for run in runs]),
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20))
def test_rank_correlation_is_spearmans(pairs):
    one, other = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert np.isnan(rank_correlation(one, other))
    else:
        assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
    np.testing.assert_allclose(ranks(one), stats.rankdata(one))


def test_regret_averages_ties():
    measured = np.array([1.0, 1.2, 1.4])
    assert regret(measured, np.array([5.0, 5.0, 9.0])) == pytest.approx(0.1)
    assert regret(measured, np.array([1.0, 2.0, 3.0])) == 0.0


def test_perfect_predictions_score_perfectly(runs):
    score = scores("all", runs, perfect(runs), np.arange(len(runs)), 0)
    assert (score.median_error, score.bias, score.spearman, score.regret) == (0.0, 0.0, pytest.approx(1.0), 0.0)
    assert (score.oom_precision, score.oom_recall, score.fit_accuracy, score.coverage) == (1.0, 1.0, 1.0, 1.0)
    assert (score.timed, score.fit_rows, score.sweeps) == (6, 7, 1)


def test_errors_are_relative_to_what_was_measured(runs):
    slow = perfect(runs)
    slow = dataclasses.replace(slow, step_time_s=slow.step_time_s * 1.2)
    score = scores("all", runs, slow, np.arange(len(runs)), 0)
    assert score.median_error == pytest.approx(0.2)
    assert score.bias == pytest.approx(0.2)


def test_missed_and_false_out_of_memory(runs):
    predictions = perfect(runs)
    all_fit = dataclasses.replace(predictions, fits=np.ones(len(runs), dtype=bool))
    score = scores("all", runs, all_fit, np.arange(len(runs)), 0)
    assert score.oom_recall == 0.0
    assert np.isnan(score.oom_precision)
    assert score.fit_accuracy == pytest.approx(6 / 7)


def test_sources_add_up(runs):
    others = [dataclasses.replace(run, group="other") for run in runs[:2]]
    rows = scores_by_source([*runs, *others], predict([*runs, *others]), [])
    assert [row.name for row in rows] == ["mine", "other", "all"]
    assert rows[-1].predicted == sum(row.predicted for row in rows[:-1])


def test_every_prediction_is_inside_its_interval_and_by_parts(runs):
    predictions = predict(runs)
    assert np.all(predictions.lower_s < predictions.step_time_s)
    assert np.all(predictions.step_time_s < predictions.upper_s)
    np.testing.assert_allclose(sum(predictions.time_parts_s.values()), predictions.step_time_s)


def test_a_table_is_predicted_row_by_row(runs):
    """Rows of a table share nothing: alone or together a run is predicted alike."""
    together = predict(runs)
    for i, run in enumerate(runs):
        alone = predict([run])
        assert alone.step_time_s[0] == pytest.approx(together.step_time_s[i])
        assert alone.peak_memory_bytes[0] == pytest.approx(together.peak_memory_bytes[i])


def test_residuals_cover_every_run_of_a_factor(runs):
    levels = residual_levels(runs, predict(runs))
    tensor = [level for level in levels if level.factor == "tensor"]
    assert [level.label for level in tensor] == ["1", "2", "4"]
    assert sum(level.runs for level in tensor) == 6
    assert not [level for level in levels if level.factor == "chip"]  # it does not vary
