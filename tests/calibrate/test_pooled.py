"""What all stacks share: a stack left out is told better by the others than by priors."""

import dataclasses

import numpy as np
import pytest
from synthetic_runs import SOFTWARE, other_truth, synthetic_runs

from jaxscale.calibrate import CONSTANTS, calibration_for, prior_on
from jaxscale.calibrate.calibration import pooled
from jaxscale.calibrate.pooled import MOST_WEIGHT, leave_stacks_out, measured_stacks, pooled_calibration


@pytest.fixture(scope="module")
def stacks():
    one = synthetic_runs(other_truth(), noise=0.01)[::4]
    other = [dataclasses.replace(run, software=dataclasses.replace(SOFTWARE, stack="another")) for run in one[::2]]
    return measured_stacks([*one, *other])


def test_a_stack_is_told_by_others(stacks):
    left_out = leave_stacks_out(stacks)
    assert set(left_out) == {("another", "a100"), ("megatron", "a100")}
    for key, errors in left_out.items():
        priors = stacks[key].goal.log_errors(stacks[key].goal.centres)
        assert np.median(np.abs(errors)) < 0.5 * np.median(np.abs(priors))
    shared = pooled_calibration(stacks, left_out)
    assert shared.provenance["rows"] == {"synthetic": sum(len(s.runs) for s in stacks.values())}
    assert 0 < shared.sigma_log < 0.1


def test_stacks_count_the_same(stacks):
    for measured in stacks.values():
        assert measured.weights.sum() == pytest.approx(min(MOST_WEIGHT, len(measured.runs)))


def test_what_ships_serves_stacks_that_were_not_measured():
    shared = pooled()
    named = {constant.name: constant for constant in CONSTANTS}
    assert set(shared.fitted) == {constant.name for constant in CONSTANTS if constant.part == "time"}
    assert all(fitted.spread == named[name].spread for name, fitted in shared.fitted.items())
    here, there = (calibration_for("a new framework", chip) for chip in ("a100", "h100"))
    assert here.fitted == shared.fitted
    assert here.stack == "a new framework"
    assert "none of this one" in here.describe()
    assert there.value(named["attention_flash2"]) < here.value(named["attention_flash2"])
    assert there.value(named["kernel_gap_s"]) == here.value(named["kernel_gap_s"])


def test_an_unmeasured_stack_on_a_tpu_is_its_prior():
    assert calibration_for("another compiler", "v5p") == prior_on("another compiler", "v5p")
