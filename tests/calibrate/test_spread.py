"""Intervals by where a prediction lies: kind of model, and doublings outside of what was measured."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import SHAPE, synthetic_runs

from jaxscale.calibrate import load_calibration, prior_on, shipped, shipped_names, to_text
from jaxscale.calibrate.held_out import HeldOut, stated
from jaxscale.calibrate.spread import OTHER_KIND_SIGMA, OUTSIDE_SIGMA, joined, prior_sigma, ranges_of, widened
from jaxscale.errors import SpecError
from jaxscale.types import MoEShape

START = prior_on("megatron", "a100")
EXPERTS = dataclasses.replace(
    SHAPE, moe=MoEShape(num_experts=8, experts_per_token=2, expert_d_ff=SHAPE.d_ff), name="experts"
)
KNOWN = dataclasses.replace(
    START,
    sigma_log=0.05,
    ranges={"num_chips": (8.0, 64.0), "seq_len": (2048.0, 4096.0), "layer_elements": (1e8, 1e12)},
)


def test_inside_of_what_was_measured_it_is_the_stacks() -> None:
    assert KNOWN.sigma_at(num_chips=16, seq_len=4096, shape=SHAPE) == 0.05


@pytest.mark.parametrize(("chips", "seq_len", "doublings"), [(256, 4096, 2), (4, 2048, 1), (128, 16384, 3)])
def test_each_doubling_outside_adds_its_variance(chips: int, seq_len: int, doublings: int) -> None:
    expected = math.hypot(0.05, OUTSIDE_SIGMA * doublings)
    assert KNOWN.sigma_at(num_chips=chips, seq_len=seq_len, shape=SHAPE) == pytest.approx(expected)


def test_experts_have_a_spread_of_their_own_or_a_wider_one() -> None:
    unseen = KNOWN.sigma_at(num_chips=16, seq_len=2048, shape=EXPERTS)
    assert unseen == pytest.approx(math.hypot(0.05, OTHER_KIND_SIGMA))
    seen = dataclasses.replace(KNOWN, sigma_log_experts=0.08)
    assert seen.sigma_at(num_chips=16, seq_len=2048, shape=EXPERTS) == 0.08


@given(sigma=st.floats(0.02, 0.6), doublings=st.floats(0.0, 30.0))
def test_it_never_narrows_and_ends_at_the_priors(sigma: float, doublings: float) -> None:
    found = widened(sigma, doublings=doublings, ceiling=prior_sigma("megatron"))
    assert sigma <= found <= max(sigma, prior_sigma("megatron"))


def test_errors_of_both_kinds_are_stated_apart() -> None:
    """Dense models within 2%, experts within 20%: one spread would be wrong for both."""
    dense = synthetic_runs(START)[:20]
    sparse = [dataclasses.replace(run, shape=EXPERTS) for run in dense]
    errors = np.tile(np.linspace(-1.0, 1.0, 20), 2) * np.repeat([0.02, 0.2], 20)
    found = stated(START, {}, [*dense, *sparse], HeldOut(errors=errors, folds="run"))
    assert found.sigma_log < 0.06
    assert 0.1 < found.sigma_log_experts < 0.2
    few = stated(START, {}, [*dense, *sparse[:3]], HeldOut(errors=errors[:23], folds="run"))
    assert few.sigma_log_experts is None


def test_ranges_are_of_all_runs_and_come_back_from_a_file(tmp_path) -> None:
    runs = synthetic_runs(START)
    found = ranges_of(runs)
    assert found["seq_len"] == (2048.0, 4096.0)
    assert found["layer_elements"] == (16 * 4096.0**2,) * 2
    assert joined(found, {"seq_len": (512.0, 1024.0)})["seq_len"] == (512.0, 4096.0)
    path = tmp_path / "mine.yaml"
    path.write_text(to_text(dataclasses.replace(START, ranges=found, sigma_log_experts=0.1)))
    back = load_calibration(path)
    assert (back.ranges, back.sigma_log_experts) == (found, 0.1)


@pytest.mark.parametrize("ranges", ["[1, 2]", "{num_chips: 8}", "{num_chips: [8, x]}", "{num_chips: [64, 8]}"])
def test_ranges_that_are_none_are_refused(tmp_path, ranges: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"stack: a\nchip: b\nsigma_log: 0.1\nranges: {ranges}\nconstants: {{}}")
    with pytest.raises(SpecError, match="ranges"):
        load_calibration(path)


def test_every_stack_that_ships_knows_its_range() -> None:
    for name in shipped_names():
        assert set(shipped(*name).ranges) == {"num_chips", "seq_len", "layer_elements"}
