"""Adaptive search on objectives that are known: no step is run and nothing is timed."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.errors import SpecError
from jaxscale.study.tuning import Candidate, Trial, effects, tune
from jaxscale.study.tuning.candidates import feature_names, features
from jaxscale.study.tuning.surrogate import believe
from jaxscale.types import Layout

DEGREES = [(a, b, c, 32 // (a * b * c)) for a in (1, 2, 4, 8) for b in (1, 2, 4) for c in (1, 2, 4) if a * b * c <= 32]
LAYOUTS = [
    Layout(fsdp=a, tensor=b, pipeline=c, data=d, sequence_parallel=sp, remat=remat)
    for a, b, c, d in DEGREES
    for sp in ((False, True) if b > 1 else (False,))
    for remat in ("none", "full")
]


def predicted_s(layout: Layout) -> float:
    """What a predictor might say: a smooth bowl over the degrees."""
    point = features([layout])[0]
    return 0.1 * float(np.exp(0.05 * np.sum((point[:6] - 1.0) ** 2)) + 0.02 * point[8])


def true_s(layout: Layout, *, seed: int = 0) -> float:
    """The predictor with an error that depends on the layout's features, and a scale that it got wrong."""
    point = features([layout])[0]
    slopes = np.random.default_rng(seed).normal(0.0, 0.08, len(point))
    return 1.9 * predicted_s(layout) * float(np.exp(point @ slopes + 0.03 * np.sin(point[1] * point[4])))


CANDIDATES = [Candidate(layout=layout, predicted_s=predicted_s(layout)) for layout in LAYOUTS]


def measured(layouts: Sequence[Layout], *, seed: int = 0) -> list[Trial]:
    return [Trial(layout=layout, seconds=true_s(layout, seed=seed)) for layout in layouts]


@pytest.mark.parametrize("seed", range(4))
def test_twelve_runs_end_near_the_best(seed: int) -> None:
    result = tune(CANDIDATES, lambda asked: measured(asked, seed=seed), budget_runs=12, min_gain=0.0)
    times = sorted(true_s(layout, seed=seed) for layout in LAYOUTS)
    assert len(result.trials) == 12
    assert result.best is not None
    assert result.best.seconds is not None
    assert result.best.seconds <= 1.01 * times[0]
    # The predictor alone would have been worse: its favourite was tried first.
    first = min(CANDIDATES, key=lambda c: c.predicted_s)
    assert result.trials[0].layout == first.layout


def test_a_predictor_that_is_right_but_for_its_scale_is_believed_at_once() -> None:
    result = tune(
        CANDIDATES,
        lambda asked: [Trial(layout=layout, seconds=3.0 * predicted_s(layout)) for layout in asked],
        budget_runs=30, min_gain=0.005, sigma_log=0.05,
    )  # fmt: skip
    assert result.stopped == "gain"
    assert len(result.trials) < 15
    assert result.best == result.trials[0]
    assert result.effects == ()


def test_a_predictor_that_is_seen_to_be_wrong_is_not_believed() -> None:
    """Two trials a factor of four apart where the predictor saw no difference: nothing is settled yet."""
    apart = [Trial(layout=c.layout, seconds=s * c.predicted_s) for c, s in zip(CANDIDATES, (1.0, 4.0), strict=False)]
    close = [Trial(layout=c.layout, seconds=s * c.predicted_s) for c, s in zip(CANDIDATES, (1.0, 1.1), strict=False)]
    unsure, sure = (believe(CANDIDATES, trials, sigma_log=0.05).deviation.max() for trials in (apart, close))
    assert unsure > 0.3
    assert sure < 0.1


def test_what_does_not_run_is_learned() -> None:
    """The predictor's favourites all die: they are left alone after few tries, and their neighbours too."""

    def ask(layouts: Sequence[Layout]) -> list[Trial]:
        return [
            Trial(layout=layout, seconds=None if layout.remat == "none" else true_s(layout), message="out of memory")
            for layout in layouts
        ]

    favoured = [
        Candidate(layout=c.layout, predicted_s=c.predicted_s * (0.8 if c.layout.remat == "none" else 1.0),
                  memory_frac=0.9 if c.layout.remat == "none" else 0.4)
        for c in CANDIDATES
    ]  # fmt: skip
    result = tune(favoured, ask, budget_runs=12, min_gain=0.0)
    best = min(true_s(layout) for layout in LAYOUTS if layout.remat == "full")
    assert result.best is not None
    assert result.best.seconds is not None
    assert result.best.seconds <= 1.02 * best
    before = result.trials[: result.trials.index(result.best)]
    assert 1 <= sum(t.seconds is None for t in before) <= 3
    # With nothing left to win among those that run, the odds that a favourite does after all are not worth a run.
    assert tune(favoured, ask, budget_runs=12, min_gain=0.01).stopped == "gain"


def test_nothing_runs() -> None:
    dead = tune(
        CANDIDATES[:5], lambda asked: [Trial(layout=layout, seconds=None) for layout in asked], budget_runs=12
    )  # fmt: skip
    assert (dead.best, dead.stopped, len(dead.trials)) == (None, "exhausted", 5)
    assert len({t.layout for t in dead.trials}) == 5


def test_asks_at_once_are_different_and_together_keep_the_budget() -> None:
    asked: list[int] = []

    def ask(layouts: Sequence[Layout]) -> list[Trial]:
        asked.append(len(layouts))
        assert len(set(layouts)) == len(layouts)
        return measured(layouts)[::-1]  # they may come back in any order

    result = tune(CANDIDATES, ask, budget_runs=10, parallel=4, min_gain=0.0)
    assert asked == [4, 4, 2]
    assert len({t.layout for t in result.trials}) == 10
    assert result.best is not None
    assert result.best.seconds is not None
    assert result.best.seconds <= 1.05 * min(map(true_s, LAYOUTS))


def test_a_run_that_was_cut_off_goes_on_where_it_was() -> None:
    whole = tune(CANDIDATES, measured, budget_runs=9, min_gain=0.0)
    again = tune(CANDIDATES, measured, budget_runs=9, min_gain=0.0, known=whole.trials[:5])
    assert again.num_known == 5
    assert again.trials == whole.trials
    done = tune(CANDIDATES, pytest.fail, budget_runs=9, min_gain=0.0, known=whole.trials)
    assert (done.stopped, done.trials) == ("budget", whole.trials)


def test_known_runs_of_other_layouts_do_not_count() -> None:
    stranger = Trial(layout=Layout(fsdp=1024), seconds=1e-9)
    result = tune(CANDIDATES, measured, budget_runs=2, known=[stranger], min_gain=0.0)
    assert result.num_known == 0
    assert stranger not in result.trials


def test_the_predictor_s_error_is_named() -> None:
    """A predictor that is blind to what a pipeline costs."""
    slow = {c.layout: c.predicted_s * 1.3 ** np.log2(c.layout.pipeline) for c in CANDIDATES}
    trials = [Trial(layout=layout, seconds=slow[layout]) for layout in LAYOUTS[::7]]
    largest = effects(CANDIDATES, trials)[0]
    assert largest.feature == "pipeline"
    # A doubling of one degree halves another: a part of the effect goes to the others with the opposite sign.
    assert 0.6 * np.log(1.3) <= largest.log_time <= np.log(1.3)
    assert largest.share > 0.5
    assert effects(CANDIDATES, trials[:2]) == ()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, len(LAYOUTS) - 1), min_size=1, max_size=8, unique=True), st.floats(0.05, 20.0))
def test_beliefs_are_certain_where_measured_and_scale_with_time(rows: list[int], scale: float) -> None:
    trials = measured([LAYOUTS[row] for row in rows])
    scaled = [Trial(layout=t.layout, seconds=scale * t.seconds) for t in trials if t.seconds is not None]
    belief, other = (believe(CANDIDATES, some, sigma_log=0.12) for some in (trials, scaled))
    assert np.all(belief.deviation[rows] <= 0.02)
    assert np.allclose(belief.log_s[rows], [np.log(t.seconds) for t in trials if t.seconds], atol=0.03)
    assert np.all((belief.feasible > 0) & (belief.feasible <= 1))
    if len(rows) < 5:  # later the kernel is fitted, which rounds
        assert np.allclose(other.log_s - belief.log_s, np.log(scale), atol=1e-6)


def test_one_doubling_is_one_step_of_a_feature() -> None:
    one, two = features([Layout(fsdp=4), Layout(fsdp=8)])
    assert one.shape == (len(feature_names()),)
    assert dict(zip(feature_names(), two - one, strict=True))["fsdp"] == 1.0
    assert np.abs(two - one).sum() == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget_runs": 0}, "budget_runs=0"),
        ({"budget_runs": 1, "parallel": 0}, "parallel=0"),
        ({"budget_runs": 1, "min_gain": 1.0}, "min_gain=1.0"),
    ],
)
def test_bad_input_is_named(changes: dict, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        tune(CANDIDATES, measured, **changes)
    with pytest.raises(SpecError, match="no candidate"):
        tune([], measured, budget_runs=1)
