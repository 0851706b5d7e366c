"""Laws of the search: it never beats exhaustive search, never loses to it, and never returns what cannot be had."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.cost import estimate, estimate_batch, problem
from jaxscale.errors import SpecError
from jaxscale.search import parse_limits, search
from jaxscale.types import Workload
from jaxscale.types.legality import check_layout

from .examples import DENSE, SPARSE, WORKLOAD, cluster, every_layout

GIB = 2.0**30


@pytest.fixture(scope="module", params=[DENSE, SPARSE], ids=lambda shape: shape.name)
def exhaustive(request: pytest.FixtureRequest):
    """A shape, its cluster, and time and memory of every layout that can be written down."""
    machine = cluster()
    layouts = every_layout(request.param, WORKLOAD, machine.num_devices)
    priced = estimate_batch(problem(request.param, WORKLOAD, machine), layouts, bounds=False)
    return request.param, priced.step_time_s, priced.memory_bytes


@given(memory_gib=st.floats(1.0, 4.0), headroom=st.floats(0.0, 0.5))
@settings(max_examples=8, deadline=None)
def test_search_finds_what_exhaustive_search_finds(exhaustive, memory_gib: float, headroom: float) -> None:
    shape, times, memories = exhaustive
    machine = cluster(memory_bytes=memory_gib * GIB)
    result = search(shape, WORKLOAD, machine, headroom=headroom, top=1)
    fits = memories <= (1 - headroom) * memory_gib * GIB
    assert bool(result.ranked) == bool(fits.any())
    if result.ranked:
        assert result.ranked[0].step_time_s == pytest.approx(times[fits].min(), rel=1e-9)
        lightest = search(shape, WORKLOAD, machine, headroom=headroom, top=1, objective="memory").ranked[0]
        assert lightest.memory_bytes == pytest.approx(memories[fits].min(), rel=1e-9)


@pytest.mark.parametrize("objective", ["time", "money", "memory"])
@pytest.mark.parametrize("shape", [DENSE, SPARSE], ids=lambda shape: shape.name)
def test_every_answer_runs_and_fits(shape, objective: str) -> None:
    machine = cluster(memory_bytes=2.5 * GIB)
    result = search(shape, WORKLOAD, machine, objective=objective, top=4, headroom=0.1)
    assert len(result.top) == 4
    for e in (*result.ranked, *result.pareto, *result.by_mesh):
        check_layout(shape, WORKLOAD, e.layout, machine.num_devices)
        assert e.memory_bytes <= 0.9 * 2.5 * GIB
    for e in result.closest:
        check_layout(shape, WORKLOAD, e.layout, machine.num_devices)
        assert e.memory_bytes > 0.9 * 2.5 * GIB


def test_answers_are_the_estimates_of_their_layouts() -> None:
    machine = cluster()
    for e in search(SPARSE, WORKLOAD, machine, top=3).top:
        alone = estimate(SPARSE, WORKLOAD, machine, e.layout)
        assert alone.step_time_s == pytest.approx(e.step_time_s, rel=1e-12)
        assert alone.memory_bytes == pytest.approx(e.memory_bytes, rel=1e-12)


def test_same_question_same_answer() -> None:
    first, second = (search(SPARSE, WORKLOAD, cluster(), top=5) for _ in range(2))
    assert dataclasses.replace(first, seconds=0.0) == dataclasses.replace(second, seconds=0.0)


def test_ranking_is_in_order_without_ties() -> None:
    times = [e.step_time_s for e in search(DENSE, WORKLOAD, cluster(), top=10).ranked]
    assert all(later > earlier * 1.001 for earlier, later in itertools.pairwise(times))


def test_pareto_front_holds_the_fastest_and_the_lightest() -> None:
    result = search(DENSE, WORKLOAD, cluster())
    lightest = search(DENSE, WORKLOAD, cluster(), objective="memory").ranked[0]
    assert result.pareto[0].step_time_s == result.ranked[0].step_time_s
    assert result.pareto[-1].memory_bytes == lightest.memory_bytes
    for faster, lighter in itertools.pairwise(result.pareto):
        assert faster.step_time_s < lighter.step_time_s
        assert faster.memory_bytes > lighter.memory_bytes


@given(axis=st.sampled_from(["data", "fsdp", "tensor", "context", "pipeline"]), most=st.sampled_from([1, 2, 4]))
@settings(max_examples=10, deadline=None)
def test_a_limit_never_helps(axis: str, most: int) -> None:
    free = search(DENSE, WORKLOAD, cluster(), top=1)
    limited = search(DENSE, WORKLOAD, cluster(), limits=parse_limits(f"{axis}<={most}"), top=1)
    assert limited.num_looked_at <= free.num_looked_at or axis in ("data", "fsdp")
    for e in limited.ranked:
        assert getattr(e.layout, axis) <= most
        assert e.step_time_s >= free.ranked[0].step_time_s * (1 - 1e-12)


def test_counts_add_up() -> None:
    result = search(SPARSE, WORKLOAD, cluster(memory_bytes=2.0 * GIB))
    assert result.num_fitting + result.rejected["does not fit in memory"] == result.num_legal
    assert result.num_legal < result.num_looked_at
    assert len(result.by_mesh) <= result.num_meshes
    assert result.rejected["tensor"] > 0


def test_progress_reaches_the_total() -> None:
    seen: list[tuple[int, int]] = []
    result = search(SPARSE, WORKLOAD, cluster(), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (result.num_looked_at, result.num_looked_at)


def test_nothing_fits_says_how_close_it_came() -> None:
    result = search(DENSE, WORKLOAD, cluster(memory_bytes=0.25 * GIB))
    assert result.ranked == result.pareto == ()
    assert result.num_fitting == 0
    assert [e.memory_bytes for e in result.closest] == sorted(e.memory_bytes for e in result.closest)
    assert len(result.closest) == 3


def test_no_legal_layout_at_all() -> None:
    result = search(
        DENSE, Workload(seq_len=1023, global_batch_size=1), cluster("h100-sxm:8"), limits=parse_limits("pipeline=1")
    )
    assert result.num_legal == 0
    assert result.ranked == result.closest == ()
    assert result.rejected


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objective": "speed"}, "time, money, memory"),
        ({"top": 0}, "at least 1"),
        ({"headroom": 1.0}, "below 1"),
        ({"headroom": float("nan")}, "below 1"),
    ],
)
def test_wrong_settings_are_named(wrong: dict, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        search(DENSE, WORKLOAD, cluster(), **wrong)


def test_money_needs_a_price() -> None:
    unpriced = dataclasses.replace(cluster(), dollars_per_chip_hour=0.0)
    with pytest.raises(SpecError, match="needs a price"):
        search(DENSE, WORKLOAD, unpriced, objective="money")


def test_record_is_plain_and_complete() -> None:
    record = search(DENSE, WORKLOAD, cluster(), top=2).to_json()
    assert len(record["top"]) == 2
    wanted = {
        "layout",
        "step_time_s",
        "tokens_per_s_per_chip",
        "mfu",
        "hfu",
        "memory_bytes",
        "fits",
        "comm_bytes",
        "time_parts_s",
    }
    assert wanted <= record["top"][0].keys()
    assert record["layouts_per_s"] > 0
    assert np.isclose(sum(record["top"][0]["time_parts_s"].values()), record["top"][0]["step_time_s"])
