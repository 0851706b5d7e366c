"""Ratios hold on a machine whose speed drifts; times do not."""

import pytest

import jaxscale.measure.pace as pace
from jaxscale.measure.pace import RunningStep, ratios, typical_s


class DriftingMachine:
    """Runs a piece of work at a speed that falls by a steady share of every second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def timed_step(self, work: float, state: int, batch: None) -> tuple[int, dict[str, float], float]:
        seconds = work * (1.0 + 0.01 * self.now_s)
        self.now_s += seconds
        return state + 1, {}, seconds


def test_a_ratio_is_free_of_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = DriftingMachine()
    monkeypatch.setattr(pace, "timed_step", machine.timed_step)
    step, reference = (RunningStep(compiled=work, state=0, batch=None) for work in (3.0, 1.0))
    found = ratios(step, reference, 10)
    assert found == pytest.approx([3.0] * 10, rel=0.01)
    assert max(step.times_s) > 1.3 * min(step.times_s)
    assert step.state == 10
    assert reference.state == 11
    assert typical_s(reference) == sorted(reference.times_s)[5]
