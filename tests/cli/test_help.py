"""The command line's surface is pinned: a new option is a reviewed change. UPDATE_GOLDEN=1 rewrites the files."""

import os
from pathlib import Path

import pytest

GOLDENS = Path(__file__).with_name("goldens")
PINNED = {
    "search": ("search",),
    "predict": ("predict",),
    "explain": ("explain",),
    "bench": ("bench",),
    "bench_search": ("bench", "search"),
}


@pytest.mark.parametrize("name", PINNED)
def test_help_is_as_pinned(name: str, jaxscale) -> None:
    answer = jaxscale(*PINNED[name], "--help")
    golden = GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(answer.out)
    assert answer.code == 0
    assert answer.out == golden.read_text()
    assert max(map(len, answer.out.splitlines())) <= 80


def test_alone_it_shows_where_to_start(jaxscale) -> None:
    answer = jaxscale()
    assert answer.code == 0
    assert "Start here:" in answer.out
    assert "search" in answer.out


def test_a_misspelt_verb_is_told_its_neighbour(jaxscale) -> None:
    answer = jaxscale("serach")
    assert answer.code == 2
    assert "Did you mean search" in answer.err
