"""Laws of every action table: complete, in an order that can run, and refused where it is not."""

import dataclasses
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.errors import LayoutError
from jaxscale.schedule import CHUNKED, FAMILIES, IDLE, Action, Schedule, build, replay

GROUPED = ("interleaved", "circular")  # with chunks, microbatches pass in groups of one per stage


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any family at any size that it allows, up to 8 stages, 16 microbatches, 4 chunks."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    stages = draw(st.integers(1, 8))
    chunks = draw(st.integers(1, 4)) if family in CHUNKED else 1
    grouped = family == "interleaved" or (family in GROUPED and chunks > 1)
    microbatches = stages * draw(st.integers(1, 16 // stages)) if grouped else draw(st.integers(1, 16))
    return build(family, stages=stages, microbatches=microbatches, chunks=chunks)


@settings(max_examples=100, deadline=None)
@given(schedules())
def test_every_action_runs_once_on_every_stage(schedule: Schedule) -> None:
    kinds = "FBW" if schedule.family == "zero_bubble" else "FB"
    every = {(k, i, c) for k in kinds for i in range(schedule.microbatches) for c in range(schedule.chunks)}
    for row in schedule.actions:
        counts = Counter(tuple(action) for action in row if not action.idle)
        assert set(counts) == every
        assert set(counts.values()) == {1}


@settings(max_examples=60, deadline=None)
@given(schedules(), st.data())
def test_replay_finishes_and_respects_every_dependency(schedule: Schedule, data: st.DataObject) -> None:
    p, v, m = schedule.stages, schedule.chunks, schedule.microbatches
    forward_s, backward_s = (
        data.draw(st.lists(st.lists(st.integers(0, 9), min_size=v, max_size=v), min_size=p, max_size=p)) for _ in "FB"
    )
    send_s = data.draw(st.integers(0, 5))
    timeline = replay(schedule, forward_s, backward_s, weight_s=2, send_s=send_s)
    when = {(s, piece.action): piece for s, row in enumerate(timeline.slices) for piece in row if not piece.action.idle}
    for i in range(m):
        for part in range(p * v):
            stage, chunk = schedule.holder(part)
            assert schedule.part(stage, chunk) == part
            forward, backward = (when[stage, Action(kind, i, chunk)] for kind in ("F", "B"))
            assert forward.end_s <= backward.start_s
            if part + 1 < p * v:
                after, after_chunk = schedule.holder(part + 1)
                delay_s = send_s if after != stage else 0
                assert forward.end_s + delay_s <= when[after, Action("F", i, after_chunk)].start_s
                assert when[after, Action("B", i, after_chunk)].end_s + delay_s <= backward.start_s
            if schedule.splits_backward:
                assert backward.end_s <= when[stage, Action("W", i, chunk)].start_s
    for row in timeline.slices:
        assert all(a.end_s <= b.start_s for a, b in pairwise(row))


def text(schedule: Schedule, stage: int) -> str:
    """A row as `F0.1`: kind, microbatch and, with several chunks, chunk."""
    dot = schedule.chunks > 1
    return " ".join(
        "--" if a.idle else f"{a.kind}{a.microbatch}" + (f".{a.chunk}" if dot else "") for a in schedule.actions[stage]
    )


def test_tables_as_printed_in_the_papers() -> None:
    one = build("1f1b", stages=4, microbatches=8)  # Narayanan et al. 2021, figure 4, top: devices 1 and 4
    assert text(one, 0) == "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7"
    assert text(one, 3) == "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5 F6 B6 F7 B7"
    looped = build("interleaved", stages=4, microbatches=8, chunks=2)  # the same, bottom: device 1
    assert text(looped, 0).startswith("F0.0 F1.0 F2.0 F3.0 F0.1 F1.1 F2.1 F3.1 F4.0 F5.0 F6.0 B0.1 F7.0 B1.1 F4.1 B2.1")
    split = build("zero_bubble", stages=4, microbatches=8)  # Qi et al. 2024, figure 3, top: devices 1 and 4
    assert text(split, 0).startswith("F0 F1 F2 F3 B0 W0 F4 B1 W1")
    assert text(split, 3).startswith("F0 B0 F1 B1 F2 B2 F3 B3 W0 F4 B4 W1")


def test_scans_skip_the_slots_of_fill_and_drain() -> None:
    assert text(build("scan_1f1b", stages=2, microbatches=2), 0) == "F0 -- F1 -- -- B0 -- B1"
    assert text(build("scan_1f1b", stages=2, microbatches=2), 1) == "-- -- F0 B0 F1 B1 -- --"
    assert text(build("circular", stages=2, microbatches=2), 1) == "-- F0 F1 B1 B0 --"
    assert text(build("scan_modular", stages=2, microbatches=1), 1) == "-- F0 -- -- B0 --"


@pytest.mark.parametrize(
    ("family", "sizes", "sentence"),
    [
        ("gpip", {"stages": 2, "microbatches": 2}, "Did you mean gpipe"),
        ("1f1b", {"stages": 0, "microbatches": 2}, "stages=0 must be between 1"),
        ("1f1b", {"stages": 2, "microbatches": 2, "chunks": 2}, "chunks=2 must be 1; families with chunks"),
        ("interleaved", {"stages": 4, "microbatches": 6, "chunks": 2}, "multiple of stages=4, such as 4 or 8"),
        ("circular", {"stages": 4, "microbatches": 3, "chunks": 2}, "multiple of stages=4, such as 4"),
    ],
)
def test_build_refuses_with_the_field_and_the_fix(family: str, sizes: dict, sentence: str) -> None:
    with pytest.raises(LayoutError, match=sentence):
        build(family, **sizes)


def test_a_table_with_a_missing_a_double_or_a_foreign_action_is_refused() -> None:
    good = build("gpipe", stages=2, microbatches=2)
    first, second = good.actions
    with pytest.raises(LayoutError, match="missing"):
        dataclasses.replace(good, actions=(first[1:], second))
    with pytest.raises(LayoutError, match="1 actions run twice"):
        dataclasses.replace(good, actions=((*first, first[0]), second))
    with pytest.raises(LayoutError, match="not one of 2 microbatches"):
        dataclasses.replace(good, actions=((*first, Action("F", 2, 0)), second))
    with pytest.raises(LayoutError, match="one for each of 2 stages"):
        dataclasses.replace(good, actions=(first,))
    with pytest.raises(LayoutError, match="rows of one length"):
        dataclasses.replace(good, actions=((*first, Action("F", IDLE, 0)), second), slots_per_tick=1)
    with pytest.raises(LayoutError, match="must divide the 4 slots"):
        dataclasses.replace(good, slots_per_tick=3)


def test_a_table_that_cannot_run_is_refused() -> None:
    good = build("1f1b", stages=2, microbatches=2)
    backward_first = tuple(sorted(good.actions[1]))
    with pytest.raises(LayoutError, match="deadlocks: stage 0 before B of microbatch 0, chunk 0, stage 1 before B"):
        replay(dataclasses.replace(good, actions=(good.actions[0], backward_first)), 1, 1)
    scan = build("circular", stages=2, microbatches=2)
    in_step = (scan.actions[0], scan.actions[0])
    with pytest.raises(LayoutError, match="stage 0 runs B of microbatch 1 in slot 4, before its input, B of stage 1"):
        replay(dataclasses.replace(scan, actions=in_step), 1, 1)
