"""The replay: exact, on unequal stages, with a critical path that explains the makespan."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.errors import LayoutError
from jaxscale.schedule import FAMILIES, build, critical_path, in_flight_steps, replay


def test_times_of_a_small_pipeline_by_hand() -> None:
    timeline = replay(build("1f1b", stages=2, microbatches=2), [1, 2], [2, 4], send_s=1)
    stage_0, stage_1 = timeline.slices
    assert [(x.start_s, x.end_s) for x in stage_0] == [(0, 1), (1, 2), (9, 11), (15, 17)]  # F0 F1 B0 B1
    assert [(x.start_s, x.end_s) for x in stage_1] == [(2, 4), (4, 8), (8, 10), (10, 14)]  # F0 B0 F1 B1
    assert timeline.makespan_s == 17
    assert timeline.work_s == (6, 12)
    assert timeline.idle_s == (11, 5)
    assert timeline.peak_in_flight == (2, 1)
    assert in_flight_steps(timeline, 1) == ((2, 1), (8, 0), (8, 1), (14, 0))
    assert critical_path(timeline) == ((0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (0, 3))


def test_fractions_stay_exact() -> None:
    timeline = replay(build("gpipe", stages=3, microbatches=7), Fraction(1, 3), Fraction(2, 7))
    assert timeline.makespan_s == 9 * (Fraction(1, 3) + Fraction(2, 7))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.integers(0, 9), min_size=10, max_size=10),
    st.integers(0, 4),
)
def test_critical_path_is_a_chain_that_fills_the_makespan(
    family: str, stages: int, groups: int, seconds: list[int], send_s: int
) -> None:
    forward_s, backward_s = seconds[:stages], seconds[5 : 5 + stages]
    timeline = replay(build(family, stages=stages, microbatches=stages * groups), forward_s, backward_s, send_s=send_s)
    path = critical_path(timeline)
    pieces = [timeline.slices[s][k] for s, k in path]
    assert pieces[0].start_s == 0
    for (source, _), before, (stage, _), after in zip(path, pieces, path[1:], pieces[1:], strict=False):
        exchanged = source != stage or timeline.schedule.slots_per_tick
        assert after.start_s - before.end_s in ((0, send_s) if exchanged else (0,))
    assert max(row[-1].end_s for row in timeline.slices) == pieces[-1].end_s


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 5), st.integers(1, 3), st.integers(0, 4), st.integers(1, 5))
def test_slower_is_never_faster(family: str, stages: int, groups: int, slow: int, more_s: int) -> None:
    schedule = build(family, stages=stages, microbatches=stages * groups)
    forward_s = [3] * stages
    base_s = replay(schedule, forward_s, 5, send_s=1).makespan_s
    forward_s[slow % stages] += more_s
    assert replay(schedule, forward_s, 5, send_s=1).makespan_s >= base_s
    assert replay(schedule, 3, 5, send_s=1 + more_s).makespan_s >= base_s


def test_durations_of_the_wrong_shape_or_sign_are_refused() -> None:
    schedule = build("interleaved", stages=2, microbatches=2, chunks=2)
    with pytest.raises(LayoutError, match=r"forward_s must be one number, 2 \(stages\), or 2 x 2"):
        replay(schedule, [1, 2, 3], 1)
    with pytest.raises(LayoutError, match="backward_s must be one number"):
        replay(schedule, 1, [[1], [2]])
    with pytest.raises(LayoutError, match="must not be negative"):
        replay(schedule, -1, 1)
