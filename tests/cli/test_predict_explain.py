"""`jaxscale predict`, `explain` and `bench`."""

import json
import re

import pytest

from jaxscale.report.explain import MEMORY_WORDS
from jaxscale.report.words import TIME_WORDS
from jaxscale.units import format_bytes, format_seconds

SMALL = ("llama3-8b", "--cluster", "v5p-64", "--seq-len", "8192", "--global-batch-size", "128")
LAYOUT = "fsdp=8,tensor=4,remat=full"


def test_predict_shows_time_and_memory(jaxscale) -> None:
    answer = jaxscale("predict", *SMALL, "--layout", LAYOUT)
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 80
    for words in ("step time", "MFU, HFU", "matmul", "activations", "Sent by one device"):
        assert words in answer.out


def test_predict_json_is_the_estimate(jaxscale) -> None:
    record = json.loads(jaxscale("predict", *SMALL, "--layout", LAYOUT, "--json").out)
    assert record["layout"]["tensor"] == 4
    assert sum(record["time_parts_s"].values()) == pytest.approx(record["step_time_s"])
    assert sum(record["memory_bytes"]["parts"].values()) == pytest.approx(record["memory_bytes"]["total"])
    assert record["fits"] is True


def test_predict_on_several_clusters(jaxscale) -> None:
    answer = jaxscale("predict", *SMALL, "--cluster", "h100-sxm:32", "--layout", LAYOUT, "--json")
    assert [record["cluster"] for record in json.loads(answer.out)["results"]] == ["v5p-64", "h100-sxm:32"]


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ("fsdp=8,tensor=8", "64 devices, but there are 32"),
        ("fsdp=2,tensor=16", "does not divide num_kv_heads=8"),
        ("fsdp=8,tensr=4", "Did you mean tensor"),
        ("fsdp=0", "fsdp=0 must be between"),
        ("fsdp", "not written as name=value"),
    ],
)
def test_predict_refuses_layouts_that_cannot_run(layout: str, said: str, jaxscale) -> None:
    answer = jaxscale("predict", *SMALL, "--layout", layout)
    assert answer.code == 2
    assert said in answer.err


def test_predict_needs_a_layout(jaxscale) -> None:
    assert "--layout is missing" in jaxscale("predict", *SMALL).err


def test_explain_tells_what_bounds_it_and_what_would_help(jaxscale) -> None:
    answer = jaxscale("explain", *SMALL, "--layout", LAYOUT, "--quiet")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 80
    for words in (
        "It is bound by",
        "At the peak a device holds",
        "The best single changes",
        "saves",
        "Against the best",
    ):
        assert words in " ".join(answer.out.split())


def test_explained_gains_are_the_predictions_of_the_changed_layouts(jaxscale) -> None:
    record = json.loads(jaxscale("explain", *SMALL, "--layout", LAYOUT, "--quiet", "--json").out)
    assert len(record["improvements"]) == 3
    for improvement in record["improvements"]:
        text = improvement["estimate"]["layout_text"]
        predicted = json.loads(jaxscale("predict", *SMALL, "--layout", text, "--json").out)
        assert predicted["step_time_s"] == pytest.approx(improvement["estimate"]["step_time_s"])
        assert predicted["step_time_s"] < record["estimate"]["step_time_s"]


def test_every_number_of_the_sentences_is_one_that_predict_gives(jaxscale) -> None:
    other = "fsdp=16,tensor=2,remat=dots"
    record = json.loads(jaxscale("explain", *SMALL, "--layout", LAYOUT, "--against", other, "--quiet", "--json").out)
    before, after = (
        json.loads(jaxscale("predict", *SMALL, "--layout", layout, "--json").out) for layout in (LAYOUT, other)
    )
    said = record["explanation"]
    time, memory, sent = said["Time"][0], said["Memory"][0], said["Communication"][0]
    step_s, parts = before["step_time_s"], before["time_parts_s"]
    assert f"A step takes {format_seconds(step_s)}" in time
    for part, seconds in parts.items():
        shown = f"{TIME_WORDS.get(part, part)} {format_seconds(seconds)} ({seconds / step_s:.0%})"
        assert (shown in time) == (seconds > 0.01 * step_s), shown
    assert f"holds {format_bytes(before['memory_bytes']['total'])} of" in memory
    for part, size in before["memory_bytes"]["parts"].items():
        if size > 0.01 * before["memory_bytes"]["total"]:
            assert f"{MEMORY_WORDS.get(part, part)} {format_bytes(size)}" in memory
    for axes, size in before["comm_bytes"].items():
        assert (f"{format_bytes(size)} over {axes}" in sent) == (size > 1e-3 * sum(before["comm_bytes"].values()))
    difference = " ".join(said["Against the other layout"])
    gained_s = step_s - after["step_time_s"]
    assert f"{format_seconds(after['step_time_s'])} a step, {format_seconds(gained_s)}" in difference
    assert f"({gained_s / step_s:.1%}) faster" in difference
    changes = {part: after["time_parts_s"][part] - seconds for part, seconds in parts.items()}
    for part in sorted(changes, key=lambda part: -abs(changes[part]))[:3]:
        sign = "+" if changes[part] >= 0 else "-"
        assert f"{TIME_WORDS[part]} {sign}{format_seconds(abs(changes[part]))}" in difference


def test_the_three_changes_are_the_best_of_their_kinds(jaxscale) -> None:
    """No single move of an axis, microbatch or remat policy does better than those that explain names."""
    record = json.loads(jaxscale("explain", *SMALL, "--layout", LAYOUT, "--quiet", "--json").out)
    found = [change["estimate"]["step_time_s"] for change in record["improvements"]]
    assert found == sorted(found)
    tried = ["fsdp=16,tensor=2", "fsdp=32,tensor=1", "fsdp=4,tensor=8", "data=2,fsdp=4,tensor=4"]
    for layout in [*(f"{axes},remat=full" for axes in tried), *(f"{LAYOUT},microbatch={b}" for b in (2, 4, 8, 16))]:
        other = json.loads(jaxscale("predict", *SMALL, "--layout", layout, "--json").out)
        assert other["step_time_s"] >= found[0] - 1e-9, layout


def test_explain_against_another_layout(jaxscale) -> None:
    answer = jaxscale("explain", *SMALL, "--layout", LAYOUT, "--against", "fsdp=32,remat=full")
    said = " ".join(answer.out.split())
    assert "Against the other layout" in said
    assert "faster" in said


def test_explain_an_illegal_layout(jaxscale) -> None:
    answer = jaxscale("explain", *SMALL, "--layout", "fsdp=2,tensor=16")
    said = " ".join(answer.out.split())
    assert answer.code == 0
    assert "It cannot run: tensor=16 does not divide num_kv_heads=8; divisors: 1, 2, 4, 8." in said
    assert "The nearest that can" in said


def test_explain_a_layout_that_does_not_fit(jaxscale) -> None:
    answer = jaxscale("explain", *SMALL, "--layout", "data=32,zero=0,remat=none,microbatch=4", "--quiet")
    said = " ".join(answer.out.split())
    assert "too much: it does not fit" in said
    assert "If there were memory for it" in said
    assert "Single changes after which it fits" in said


def test_explain_where_nothing_fits(jaxscale) -> None:
    asked = ("llama3-70b", "--cluster", "h100-sxm:8", "--seq-len", "8192", "--global-batch-size", "64")
    record = json.loads(jaxscale("explain", *asked, "--layout", "fsdp=8,remat=none", "--quiet", "--json").out)
    said = record["explanation"]
    assert said["Against the best"] == ["Search finds no layout that fits h100-sxm:8."]
    nearest = re.fullmatch(
        r"No single change makes it fit. (.+) comes nearest: (.+) of .+ a device.",
        said["Single changes after which it fits"][0],
    )
    assert nearest is not None
    change, size = nearest.groups()
    layout = f"fsdp=8,{change}" if change.startswith("remat") else change
    changed = json.loads(jaxscale("predict", *asked, "--layout", layout, "--json").out)
    assert format_bytes(changed["memory_bytes"]["total"]) == size


def test_explain_where_there_is_more_to_send_than_overlap_hides(jaxscale) -> None:
    asked = ("mixtral-8x22b", "--cluster", "h100-sxm:256", "--seq-len", "4096", "--global-batch-size", "1024")
    layout = ("--layout", "fsdp=32,expert=8,remat=full", "--against", "fsdp=32,expert=8,remat=full,microbatch=4")
    said = " ".join(jaxscale("explain", *asked, *layout).out.split())
    assert "more to send than compute to hide it behind" in said


def test_bench_search_reports_a_rate(jaxscale, monkeypatch) -> None:
    monkeypatch.setattr("jaxscale.cli.bench.CASES", (("gpt2-124m", "h100-sxm:8", 16),))
    record = json.loads(jaxscale("bench", "search", "--json", "--repeat", "1").out)
    assert record["layouts_per_s"] > 0
    assert record["cases"][0]["num_layouts"] == record["num_layouts"]
