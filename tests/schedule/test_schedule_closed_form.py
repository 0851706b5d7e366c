"""Closed forms against the replay: equal where they say so, inside their stated bound elsewhere."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.errors import LayoutError
from jaxscale.schedule import (
    CHUNKED,
    FAMILIES,
    StageTimes,
    Timeline,
    allocated_slots,
    bubble_frac,
    build,
    in_flight,
    makespan_s,
    peak_in_flight,
    replay,
    ticks,
    work_s,
)

EXACT = sorted(set(FAMILIES) - {"interleaved"})


def sizes(family: str) -> list[tuple[int, int, int]]:
    """Every (stages, microbatches, chunks) up to 8, 16, 4 that a family allows."""
    return [
        (p, m, v)
        for p in range(1, 9)
        for m in range(1, 17)
        for v in (range(1, 5) if family in CHUNKED else (1,))
        if m % p == 0 or not (family == "interleaved" or (family == "circular" and v > 1))
    ]


def run(family: str, size: tuple[int, int, int], times: StageTimes) -> Timeline:
    """Replay one size with the embedding on the first chunk and the head on the last."""
    p, m, v = size
    forward_s, backward_s = ([[x] * v for _ in range(p)] for x in (times.forward_s, times.backward_s))
    forward_s[0][0] += times.first_forward_s
    backward_s[0][0] += times.first_backward_s
    forward_s[-1][-1] += times.last_forward_s
    backward_s[-1][-1] += times.last_backward_s
    schedule = build(family, stages=p, microbatches=m, chunks=v)
    return replay(schedule, forward_s, backward_s, weight_s=times.weight_s, send_s=times.send_s)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("seconds", [(1, 2, 0), (5, 3, 4)])
def test_equal_stages_exactly(family: str, seconds: tuple[int, int, int]) -> None:
    every = sizes(family)
    p, m, v = np.array(every).T
    times = StageTimes(**dict(zip(("forward_s", "backward_s", "weight_s"), seconds, strict=True)))
    timelines = [run(family, size, times) for size in every]
    shape = {"stages": p, "microbatches": m, "chunks": v}
    np.testing.assert_array_equal(makespan_s(family, **shape, times=times), [t.makespan_s for t in timelines])
    np.testing.assert_array_equal(work_s(**shape, times=times), [max(t.work_s) for t in timelines])
    np.testing.assert_array_equal(peak_in_flight(family, **shape), [max(t.peak_in_flight) for t in timelines])
    for stage in range(8):
        held = np.array([t.peak_in_flight[stage] for t in timelines if stage < t.schedule.stages])
        rows = {name: column[p > stage] for name, column in shape.items()}
        np.testing.assert_array_equal(in_flight(family, **rows, stage=stage), held)


@pytest.mark.parametrize(
    ("family", "chunks", "bubble"),
    [
        ("gpipe", 1, Fraction(3, 8)),  # (p-1)/m, Narayanan et al. 2021, section 2.2.1
        ("1f1b", 1, Fraction(3, 8)),
        ("interleaved", 2, Fraction(3, 16)),  # (p-1)/(v m), section 2.2.2
        ("circular", 2, Fraction(3, 16)),
        ("modular", 4, Fraction(3, 32)),
        ("scan_modular", 4, Fraction(3, 32)),
        ("scan_1f1b", 1, Fraction(3, 8)),
        ("zero_bubble", 1, Fraction(3 * (4 + 5 - 3), 8 * 12)),  # (p-1)(f+b-w)/(m(f+b+w)), Qi et al. 2024, section 2
    ],
)
def test_bubbles_of_the_papers(family: str, chunks: int, bubble: Fraction) -> None:
    times = StageTimes(forward_s=4, backward_s=5, weight_s=3)
    found = bubble_frac(family, stages=4, microbatches=8, chunks=chunks, times=times)
    assert found == pytest.approx(float(bubble), rel=1e-12)


def stage_times(embedding: bool = True) -> st.SearchStrategy[StageTimes]:
    """Whole seconds; embedding, head and sends from nothing to several actions."""
    extra = st.sampled_from((0, 0, 1, 3, 8, 20))
    action = st.integers(1, 9)
    none = st.just(0)
    return st.builds(
        StageTimes,
        forward_s=action,
        backward_s=action,
        weight_s=st.integers(0, 9),
        first_forward_s=extra if embedding else none,
        first_backward_s=extra if embedding else none,
        last_forward_s=extra,
        last_backward_s=extra,
        send_s=st.sampled_from((0, 0, 1, 3, 8)),
    )


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(EXACT), st.data(), stage_times())
def test_unequal_stages_and_sends_exactly(family: str, data: st.DataObject, times: StageTimes) -> None:
    size = p, m, v = data.draw(st.sampled_from(sizes(family)))
    found = makespan_s(family, stages=p, microbatches=m, chunks=v, times=times)
    assert found == run(family, size, times).makespan_s


@st.composite
def interleaved(draw: st.DrawFn, embedding: float, send_of_both: float, send_of_least: float) -> tuple:
    """A size and times whose embedding and sends stay under shares of an action's seconds."""
    p, v = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    f, b, w = draw(st.integers(4, 40)), draw(st.integers(2, 30)), draw(st.integers(0, 20))
    e = draw(st.integers(0, int(embedding * (f + b + w))))
    send_s = draw(st.integers(0, int(send_of_both * (f + b + w) + send_of_least * min(f, b + w))))
    ef, h, hf = draw(st.integers(0, e)), draw(st.integers(0, 200)), draw(st.integers(0, 200))
    times = StageTimes(
        forward_s=f,
        backward_s=b,
        weight_s=w,
        first_forward_s=ef,
        first_backward_s=e - ef,
        last_forward_s=hf,
        last_backward_s=h,
        send_s=send_s,
    )
    return (p, p * draw(st.integers(1, 5)), v), times


@settings(max_examples=200, deadline=None)
@given(interleaved(0.0, 0.5, 0.0))
def test_interleaved_without_embedding_exactly(case: tuple) -> None:
    (p, m, v), times = case
    found = makespan_s("interleaved", stages=p, microbatches=m, chunks=v, times=times)
    assert found == run("interleaved", (p, m, v), times).makespan_s


@settings(max_examples=300, deadline=None)
@given(interleaved(0.5, 0.0, 0.5))
def test_interleaved_with_embedding_inside_its_bound(case: tuple) -> None:
    (p, m, v), times = case
    found = makespan_s("interleaved", stages=p, microbatches=m, chunks=v, times=times)
    true = run("interleaved", (p, m, v), times).makespan_s
    assert found <= true <= 1.05 * found


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 4), stage_times())
def test_interleaved_is_never_above_the_replay(p: int, groups: int, v: int, times: StageTimes) -> None:
    found = makespan_s("interleaved", stages=p, microbatches=p * groups, chunks=v, times=times)
    assert found <= run("interleaved", (p, p * groups, v), times).makespan_s


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_batch_equals_its_rows_in_numpy_and_jax(family: str) -> None:
    jnp = pytest.importorskip("jax.numpy")
    rng = np.random.default_rng(0)
    p, v = rng.integers(1, 9, 32), rng.integers(1, 5, 32) if family in CHUNKED else np.ones(32, dtype=int)
    m = p * rng.integers(1, 5, 32)
    columns = {name: rng.integers(1, 50, 32) for name in StageTimes.__dataclass_fields__}
    batch = makespan_s(family, stages=p, microbatches=m, chunks=v, times=StageTimes(**columns))
    for row in range(32):
        times = StageTimes(**{name: int(column[row]) for name, column in columns.items()})
        shape = {"stages": int(p[row]), "microbatches": int(m[row]), "chunks": int(v[row])}
        assert batch[row] == makespan_s(family, **shape, times=times)
    traced = StageTimes(**{name: jnp.asarray(column) for name, column in columns.items()})
    same = makespan_s(family, stages=jnp.asarray(p), microbatches=jnp.asarray(m), chunks=jnp.asarray(v), times=traced)
    assert type(same).__module__.startswith("jax")
    np.testing.assert_array_equal(np.asarray(same), batch)


def test_gradient_of_the_makespan_is_the_work_on_the_critical_path() -> None:
    jax = pytest.importorskip("jax")

    def step_s(forward_s: float) -> float:
        times = StageTimes(forward_s=forward_s, backward_s=2.0, last_forward_s=0.5, last_backward_s=1.0)
        return makespan_s("1f1b", stages=4.0, microbatches=8.0, times=times)

    assert float(jax.grad(step_s)(1.0)) == 8 + 3  # all forwards of the last stage, and the fill


@pytest.mark.parametrize("family", ["circular", "scan_1f1b", "scan_modular"])
def test_ticks_are_those_of_the_table(family: str) -> None:
    for p, m, v in sizes(family):
        schedule = build(family, stages=p, microbatches=m, chunks=v)
        directions = 1 if family == "scan_1f1b" else 2
        slots = len(schedule.actions[0])
        assert ticks(family, stages=p, microbatches=m, chunks=v) == slots // schedule.slots_per_tick // directions


def test_allocated_slots_hold_what_is_in_flight() -> None:
    for family in FAMILIES:
        for p, m, v in sizes(family):
            shape = {"stages": p, "microbatches": m, "chunks": v}
            assert allocated_slots(family, **shape) >= peak_in_flight(family, **shape)
    assert allocated_slots("circular", stages=4, microbatches=8, chunks=2) == 19  # one per tick
    assert allocated_slots("scan_1f1b", stages=4, microbatches=8) == 7  # the ring buffer


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(LayoutError, match="Did you mean interleaved"):
        makespan_s("interleave", stages=2, microbatches=2, times=StageTimes(forward_s=1, backward_s=1))
    with pytest.raises(LayoutError, match="is not one of circular, scan_1f1b, scan_modular"):
        ticks("gpipe", stages=2, microbatches=2)
