"""The fit: the gradient, recovery of known constants, robustness, and a handful of runs that help."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from synthetic_runs import other_truth, synthetic_runs, times_and_peaks

from jaxscale.calibrate import prior_on
from jaxscale.calibrate.fit import maximise, times_objective
from jaxscale.calibrate.held_out import fit_stack, fold_labels

START = prior_on("megatron", "a100")


@pytest.fixture(scope="module")
def runs():
    return synthetic_runs(other_truth(), noise=0.01)


@pytest.fixture(scope="module")
def goal(runs):
    return times_objective(runs, START)


def error(runs, calibration):
    seconds, _ = times_and_peaks(runs, calibration)
    return np.abs(np.log(seconds / np.array([run.step_time_s for run in runs])))


def test_both_namespaces_price_alike(goal, runs):
    with jax.enable_x64(True):
        traced = np.asarray(goal.residuals(jnp.asarray(goal.centres), jnp.ones(len(runs)), jnp))
    np.testing.assert_allclose(traced, goal.residuals(goal.centres, np.ones(len(runs)), np), rtol=1e-9)


def test_the_gradient_is_that_of_the_prices(goal, runs):
    ones = np.ones(len(runs))
    with jax.enable_x64(True):
        slopes = np.asarray(goal.slopes(goal.centres, ones))
    step = 1e-5
    for j in range(len(goal.constants)):
        up, down = goal.centres.copy(), goal.centres.copy()
        up[j], down[j] = up[j] + step, down[j] - step
        finite = (goal.residuals(up, ones, np) - goal.residuals(down, ones, np)) / (2 * step)
        np.testing.assert_allclose(slopes[:, j], finite, atol=2e-3, err_msg=goal.constants[j].name)


def test_runs_of_known_constants_are_predicted_to_their_noise(goal, runs):
    posterior = maximise(goal, np.ones(len(runs)))
    assert np.median(np.abs(goal.log_errors(posterior.free))) < 0.01
    assert np.median(np.abs(goal.log_errors(goal.centres))) > 0.05
    assert np.all(np.linalg.eigvalsh(posterior.covariance) > 0)


def test_a_disturbed_run_moves_little(goal, runs):
    """The loss grows linearly: one run that took twice as long does not spoil the others."""
    slow = [dataclasses.replace(runs[0], step_time_s=2.0 * runs[0].step_time_s), *runs[1:]]
    posterior = maximise(times_objective(slow, START), np.ones(len(slow)))
    assert np.median(np.abs(goal.log_errors(posterior.free))) < 0.012


def test_weights_of_zero_leave_a_run_out(goal, runs):
    weights = np.ones(len(runs))
    weights[5:] = 0.0
    few = maximise(goal, weights)
    assert np.abs(goal.log_errors(few.free))[:5].mean() < np.abs(goal.log_errors(goal.centres))[:5].mean()


@pytest.mark.parametrize("seed", range(3))
def test_five_runs_help_the_others(goal, runs, seed):
    """What five runs teach must show on those they left out."""
    chosen = np.random.default_rng(seed).permutation(len(runs))[:5]
    weights = np.zeros(len(runs))
    weights[chosen] = 1.0
    posterior = maximise(goal, weights)
    others = weights == 0.0
    before, after = (np.abs(goal.log_errors(x))[others] for x in (goal.centres, posterior.free))
    assert np.median(after) < 0.7 * np.median(before)


def test_memory_follows_outcomes_and_peaks(runs):
    calibration = fit_stack(runs, START, folds=False)
    _, peaks = times_and_peaks(runs, calibration)
    known = np.array([run.peak_memory_bytes for run in runs])
    assert np.median(np.abs(peaks / known - 1.0)) < 0.03
    assert calibration.sigma_log == START.sigma_log  # nothing was left out, so nothing is claimed


def test_held_out_error_is_stated(runs):
    calibration = fit_stack(runs[::2], START)
    held = calibration.provenance["held_out"]
    assert held["median"] < 0.03
    assert calibration.sigma_log < START.sigma_log
    assert calibration.provenance["rows"] == {"synthetic": len(runs[::2])}
    assert np.median(error(runs[1::2], calibration)) < 0.02


def test_folds_leave_whole_sweeps_out(runs):
    sweeps = [dataclasses.replace(run, comparable=f"sweep {i % 4}") for i, run in enumerate(runs)]
    labels, what = fold_labels(sweeps)
    assert what == "sweep"
    assert all(len({labels[i] for i in range(len(runs)) if i % 4 == k}) == 1 for k in range(4))
