"""Layouts in words and in short, and explanations whose numbers are those of the estimates."""

import dataclasses
import re

from hypothesis import given
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster
from jaxscale.report import explain
from jaxscale.report.terminal import bar
from jaxscale.report.words import REMAT_WORDS, TIME_WORDS, layout_sentences, short_layout
from jaxscale.search import single_changes
from jaxscale.types import REMAT_POLICIES, Layout, Workload, parse_layout
from jaxscale.types.layout import SCHEDULES, SHARDS
from jaxscale.units import format_bytes, format_seconds

from .examples import WORKLOAD, result

degree = st.sampled_from([1, 2, 4, 8])
shards = st.lists(st.sampled_from(SHARDS), min_size=3, max_size=3).map(lambda s: sorted(s, key=SHARDS.index))
layouts = st.builds(
    lambda zero, **rest: Layout(params_shard=zero[0], grads_shard=zero[1], optimizer_shard=zero[2], **rest),
    shards, data=degree, fsdp=degree, expert=degree, context=degree, tensor=degree, pipeline=st.sampled_from([2, 4]),
    microbatch_size=degree, sequence_parallel=st.booleans(), remat=st.sampled_from(list(REMAT_POLICIES)),
    schedule=st.sampled_from(SCHEDULES), virtual_stages=st.sampled_from([1, 2]), offload_optimizer=st.booleans(),
)  # fmt: skip


@given(layout=layouts)
def test_a_short_layout_reads_back_as_itself(layout: Layout) -> None:
    assert parse_layout(short_layout(layout)) == layout


@given(layout=layouts)
def test_every_axis_in_use_is_spoken_of(layout: Layout) -> None:
    words = " ".join(layout_sentences(layout, Workload(seq_len=8192, global_batch_size=4096), load_cluster("cpu:8")))
    for axis, said in (("tensor", f"tensor={layout.tensor}"), ("context", f"context={layout.context}")):
        assert (said in words) == (getattr(layout, axis) > 1)
    assert f"{layout.pipeline} pipeline stages" in words
    assert REMAT_WORDS[layout.remat] in words


def test_every_policy_and_time_part_has_words() -> None:
    assert REMAT_WORDS.keys() == REMAT_POLICIES.keys()
    assert result().ranked[0].time_parts_s.keys() <= TIME_WORDS.keys()


def test_where_the_time_goes_adds_up() -> None:
    e, found = result().ranked[0], result()
    said = explain.time_sentences(e, found.workload, found.cluster)
    assert format_seconds(e.step_time_s) in said[0]
    assert f"{e.mfu:.1%}" in said[1]
    shares = [int(share) for share in re.findall(r"\((\d+)%\)", said[0])]
    assert 95 <= sum(shares) <= 101
    groups = explain.time_groups(e.time_parts_s)
    assert abs(sum(groups.values()) - e.step_time_s) < 0.01 * e.step_time_s


def test_memory_says_what_is_left_or_lacking() -> None:
    e = result().ranked[0]
    assert format_bytes(e.memory_limit_bytes - e.memory_bytes) in explain.memory_sentences(e)[0]
    heavy = dataclasses.replace(e, memory_bytes=e.memory_limit_bytes + 2**30)
    assert "1.0 GiB too much: it does not fit" in explain.memory_sentences(heavy)[0]


def test_a_difference_names_the_parts_that_change() -> None:
    e = result().ranked[0]
    slower = dataclasses.replace(
        e, step_time_s=e.step_time_s + 0.5, time_parts_s={**e.time_parts_s, "tensor": e.time_parts_s["tensor"] + 0.5}
    )
    said = explain.difference_sentences(e, slower)
    assert "500 ms" in said[0]
    assert "slower: exposed tensor-parallel communication +500 ms" in said[0]


def test_improvements_are_faster_fit_and_differ_in_kind() -> None:
    found = result()
    start = Layout(fsdp=2, tensor=4, remat="full")
    changes = single_changes(found.shape, found.workload, found.cluster, start)
    base = next(c.estimate for c in changes if c.what == "remat=attention")
    chosen = explain.improvements(base, changes)
    assert 1 <= len(chosen) <= 3
    assert len({change.kind for change in chosen}) == len(chosen)
    assert all(c.estimate.fits and c.estimate.step_time_s < base.step_time_s for c in chosen)
    best = min((c for c in changes if c.estimate.fits), key=lambda c: c.estimate.step_time_s)
    assert chosen[0].estimate.step_time_s == best.estimate.step_time_s


def test_the_batch_sentence_counts_right() -> None:
    said = layout_sentences(Layout(fsdp=8, microbatch_size=2), WORKLOAD, load_cluster("cpu:8"))[0]
    batch = "The 32 sequences of a step are split over 8 groups (fsdp=8)"
    assert said == f"{batch}; each runs its 4 in 2 microbatches of 2 sequences."


@given(share=st.floats(0, 2), cells=st.integers(1, 40))
def test_a_bar_is_as_long_as_its_cells(share: float, cells: int) -> None:
    drawn = bar(share, cells)
    assert len(drawn) == cells
    assert abs(len(drawn.rstrip()) - min(share, 1) * cells) <= 1
