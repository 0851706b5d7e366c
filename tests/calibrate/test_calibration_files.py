"""Calibration files: round trip, refusals, what ships, and what carries over to another chip."""

import dataclasses

import pytest
from synthetic_runs import SOFTWARE, other_truth

from jaxscale.calibrate import (
    Software,
    calibration_for,
    load_calibration,
    prior_on,
    shipped,
    shipped_names,
    to_text,
)
from jaxscale.calibrate.generations import GENERATIONS, moved
from jaxscale.calibrate.habits import HABITS
from jaxscale.errors import SpecError
from jaxscale.types import Stack


def test_a_file_reads_back(tmp_path):
    truth = dataclasses.replace(other_truth(), sigma_log=0.05, provenance={"rows": {"mine": 7}})
    path = tmp_path / "mine.yaml"
    path.write_text(to_text(truth))
    back = load_calibration(path)
    assert back.stack_for(SOFTWARE) == truth.stack_for(SOFTWARE)
    assert back.describe() == "megatron on a100: 7 runs of mine"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("- 1", "mapping"),
        ("stack: a\nchip: b", "sigma_log"),
        ("stack: a\nchip: b\nsigma_log: 0.1\nconstants: {matmul_eficiency: {}}", "Did you mean matmul_efficiency"),
        ("stack: a\nchip: b\nsigma_log: 0.1\nconstants: {matmul_k_half: {value: x}}", "matmul_k_half"),
        ("{", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_with_the_field(tmp_path, text, field):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=field):
        load_calibration(path)


def test_what_ships_says_where_it_comes_from():
    assert shipped_names()
    for calibration in (shipped(*names) for names in shipped_names()):
        assert calibration.provenance["rows"]
        assert calibration.provenance["command"].startswith("jaxscale calibrate")
        assert calibration.provenance["held_out"]["median"] > 0
        assert 0.01 < calibration.sigma_log < 0.6
        for name, fitted in calibration.fitted.items():
            assert fitted.low <= fitted.value <= fitted.high, name


def test_another_chip_inherits_with_a_wider_interval():
    known = calibration_for("torch_fsdp", "a100")
    other = calibration_for("torch_fsdp", "h100")
    assert other.sigma_log > known.sigma_log
    assert "carried over" in other.describe()
    assert other.stack_for(SOFTWARE).matmul_efficiency < known.stack_for(SOFTWARE).matmul_efficiency


@pytest.mark.parametrize("chip", sorted(GENERATIONS))
def test_there_and_back_is_the_same(chip):
    start = prior_on("megatron", "a100")
    back = moved(moved(start, "a100", chip), chip, "a100")
    assert back.stack_for(SOFTWARE).matmul_efficiency == pytest.approx(start.stack_for(SOFTWARE).matmul_efficiency)


def test_habits_are_fields_of_a_stack_and_reach_it() -> None:
    fields = {field.name for field in dataclasses.fields(Stack)}
    assert all(set(habits) <= fields for habits in HABITS.values())
    stack = calibration_for("megatron_aa", "a100").stack_for(Software(stack="megatron_aa", score_recompute=True))
    assert (stack.modules_before, stack.whole_recompute, stack.whole_reduction, stack.score_recompute) == (0, 1, 1, 1)
    titan = calibration_for("torch_titan", "h100").stack_for(Software(stack="torch_titan"))
    assert (titan.modules_before, titan.modules_after) == (1, 1)
    assert calibration_for("torch_fsdp", "a100").stack_for(Software(stack="torch_fsdp")).whole_recompute == 0
