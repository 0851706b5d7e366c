"""A report is one file that needs nothing else, holds the numbers, and cannot be broken by what it says."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import jaxscale.report.kinds
from jaxscale.cost import estimate
from jaxscale.report.figures.roofline import roofline_figure
from jaxscale.report.kinds.shared import predicted_roofline
from jaxscale.report.ops import device_roof, predicted_ops
from jaxscale.report.page import (
    MAX_BYTES,
    Evidence,
    Page,
    Prose,
    Section,
    Verdict,
    Verdicts,
    number_table,
    page_figures,
    render,
    render_fragment,
    script_json,
)
from jaxscale.report.pipeline import schedule_drawing
from jaxscale.search import parse_limits, search
from jaxscale.types import Layout
from jaxscale.types.results import TierOfTruth

from .examples import HOSTILE, PAGES, WORKLOAD, one_layout_search, page, report, result, rows, subject

VOID = {"meta", "br", "hr", "img", "input", "link"}
KINDS = pytest.mark.parametrize("kind", PAGES)


class _Outline(HTMLParser):
    """Checks that tags close in order, and collects ids, links, scripts and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src") and value:
                self.links.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def _outline(html: str) -> _Outline:
    outline = _Outline()
    outline.feed(html)
    assert outline.open == []
    return outline


def _data(html: str) -> dict[str, Any]:
    """What the page's script works on."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert block is not None
    return json.loads(block.group(1))


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def test_every_kind_has_an_example() -> None:
    folder = Path(jaxscale.report.kinds.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "shared"} == PAGES.keys()


@KINDS
def test_it_is_whole_small_and_alone(kind: str) -> None:
    html = report(kind)
    outline = _outline(html)
    assert html.startswith("<!doctype html>")
    assert len(html.encode()) < MAX_BYTES
    assert all(link.startswith("#") for link in outline.links)
    assert {link[1:] for link in outline.links} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert "@import" not in html
    assert "url(" not in html.split("plotly-gzip")[0]


@KINDS
def test_what_a_stranger_wrote_stays_text(kind: str) -> None:
    html = report(kind)
    assert _outline(html).scripts == 3  # the data, plotly, the page's own
    assert "<script>alert" not in html
    assert not [text for text in _strings(_data(html)["figures"]) if HOSTILE in text]


@KINDS
def test_the_answer_comes_first_and_what_it_rests_on_last(kind: str) -> None:
    sections = page(kind).sections
    assert (sections[0].anchor, sections[-1].anchor) == ("answer", "assumptions")
    text = " ".join(" ".join(_outline(report(kind)).text).split())
    assert "Versions: jaxscale" in text
    assert text.count(page(kind).headline[:40]) >= 1


@KINDS
def test_every_figure_says_what_it_is_and_how_sure(kind: str) -> None:
    figures = page_figures(page(kind))
    assert figures
    for figure in figures:
        assert figure.evidence.tiers
        assert re.fullmatch(r"[A-Z0-9].{20,}\.", figure.evidence.sure, re.DOTALL), figure.evidence.sure
        assert figure.caption.endswith(".")
        tables = [b for s in page(kind).sections if figure in s.blocks for b in s.blocks if b.kind == "table"]
        assert figure.numbers is not None or tables or figure.id == "parity", f"{figure.id} has no numbers"


@KINDS
def test_a_notebook_gets_the_answer_without_script(kind: str) -> None:
    fragment = _outline(render_fragment(page(kind)))
    assert fragment.scripts == 0
    assert page(kind).headline.split(" ")[0].strip() in " ".join(fragment.text)


def test_the_headline_names_the_one_that_passed() -> None:
    text = " ".join(" ".join(_outline(report()).text).split())
    winner = rows()[1].predicted
    assert text.index("gpt2-774m trains fastest") < text.index("The answer")
    assert f"at {winner.mfu:.0%} MFU, and the compiler agrees that it fits" in text


def test_checks_clusters_and_rejections_are_told() -> None:
    html = report()
    text = " ".join(_outline(html).text)
    assert "does not fit: the compiler needs <99> GiB" in text
    assert "<99>" not in html
    assert "v5e-16" in text
    assert "Why not #1?" in text
    assert html.count('class="struck"') == 2  # among the best, and in the table of all


def test_the_data_are_those_of_the_search() -> None:
    data = _data(report())
    first = data["layouts"][data["first"]]
    winner = rows()[1].predicted
    assert first["rank"] == 2
    assert abs(first["time"] - winner.step_time_s) < 1e-4 * winner.step_time_s
    assert sum(layout["front"] for layout in data["layouts"]) == len({e.layout for e in result().pareto})
    figures = data["figures"]
    assert {"time-parts", "memory-parts", "communication", "parallel", "rejected", "roofline"} <= figures.keys()
    bars = figures["memory-parts"]["data"]
    assert {name for trace in bars for name in trace["y"]} >= {"#2 predicted", "#2 compiled"}
    predicted = sum(trace["x"][trace["y"].index("#2 predicted")] for trace in bars)
    assert abs(predicted - winner.memory_bytes / 2**30) < 0.01 * predicted


def test_tiers_stand_side_by_side_with_their_intervals() -> None:
    e = rows()[0].predicted
    traces = {trace["name"]: trace for trace in _data(report("measure"))["figures"]["step-time"]["data"]}
    assert traces.keys() == {"predicted", "compiled", "measured"}
    low, high = e.interval_80_s or (0.0, 0.0)
    bars = traces["predicted"]["error_x"]
    assert traces["predicted"]["x"][0] - bars["arrayminus"][0] == pytest.approx(low, rel=1e-4)
    assert traces["predicted"]["x"][0] + bars["array"][0] == pytest.approx(high, rel=1e-4)
    assert traces["measured"]["x"] == [1.0]
    assert traces["measured"]["error_x"]["array"] == [2.0]


@pytest.mark.parametrize("remat", ["none", "full"])
def test_ops_of_the_roofline_add_up_to_the_step(remat: str) -> None:
    """Of both passes; the element-wise ops leave out the embedding and the sums of gradients."""
    about = subject()
    layout = Layout(fsdp=about.cluster.num_devices, remat=remat)
    e = estimate(about.shape, WORKLOAD, about.cluster, layout, about.stack)
    ops = predicted_ops(about.shape, WORKLOAD, about.cluster, e, about.stack)
    found: dict[str, float] = {}
    for op in ops:
        kind = op.kind.removesuffix(", backward")
        found[kind] = found.get(kind, 0.0) + op.step_s
    parts = e.time_parts_s
    again = parts.get("recompute", 0.0)
    assert found["optimizer"] == parts["optimizer"]
    assert parts["matmul"] <= found["matmul"] * (1 + 1e-9) <= (parts["matmul"] + again) * (1 + 1e-6)
    rest = sum(found.values()) - found["optimizer"] - again - parts["matmul"] - parts["attention"]
    assert 0.0 < rest <= parts["elementwise"]
    if remat == "none":
        assert (found["matmul"], found["attention"]) == pytest.approx((parts["matmul"], parts["attention"]))
    roof = device_roof(about.cluster, WORKLOAD)
    assert all(op.flops_per_s <= roof.at(op.intensity) * 1.001 for op in ops)
    assert {op.name for op in ops} >= {"q", "q, backward", "attention, backward", "logits, backward", "adamw"}


def test_an_op_that_moves_nothing_is_no_point() -> None:
    about = subject()
    figure = predicted_roofline(about, result().ranked[0])
    assert all(x > 0 for trace in figure.data for x in trace["x"])
    empty = roofline_figure((), device_roof(about.cluster, WORKLOAD), "None.", Evidence(tiers=("predicted",), sure="x"))
    assert len(empty.data) == 1


def test_a_step_that_did_not_run_is_told() -> None:
    from jaxscale.report.kinds.measure import measure_page

    from .examples import measurement

    failed = measure_page(measurement("crash"), result().ranked[0])
    html = render(failed)
    assert "no step was timed (crash" in failed.headline
    assert _outline(html).scripts == 3
    assert "step-times" not in {figure.id for figure in page_figures(failed)}


def test_a_step_that_does_not_fit_is_told() -> None:
    from jaxscale.report.kinds.compile import CompilerFacts, compile_page

    from .examples import compiled

    e = result().ranked[0]
    heavy = compiled(e, 2.0 * e.memory_limit_bytes)
    facts = CompilerFacts(status="out_of_memory", message="too much", compile_s=1.0, cached=False)
    assert "does not fit: the compiler needs" in compile_page(subject(), e, heavy, facts).headline


@pytest.mark.parametrize("tier", ["predicted", "compiled", "measured"])
def test_tiers_are_words_of_the_page(tier: TierOfTruth) -> None:
    assert f'<b class="tier {tier}">{tier}</b>' in report("measure")


def test_text_cannot_leave_its_place() -> None:
    made = Page(
        title="<t>", eyebrow="</script>", headline="<h1>&", lead=(),
        sections=(Section(anchor="a", heading="<b>", blocks=(Prose(sentences=("<i>",)),)),),
        data={"text": "</script><script>alert(1)</script>", "nan": float("nan")},
    )  # fmt: skip
    html = render(made)
    _outline(html)
    assert "<script>alert" not in html
    assert "&lt;h1&gt;&amp;" in html


def test_script_json_round_trips() -> None:
    value = {"a": [1, 2.5, "</x>", None], "b": {"c": True}}
    assert json.loads(script_json(value)) == value


def test_a_table_tells_what_is_missing_from_what_is_zero() -> None:
    table = number_table("t", ("name", "value"), [("a", 0.0), ("b", float("nan")), ("c", 2.5e12)])
    assert [row.cells[1].text for row in table.rows] == ["0", "", "2.5 T"]
    assert [column.numeric for column in table.columns] == [False, True]


def test_a_pipeline_is_drawn() -> None:
    found = search(
        result().shape, WORKLOAD, result().cluster, limits=parse_limits("pipeline=4,microbatch_size=1"), top=1
    )
    e = found.ranked[0]
    drawing = schedule_drawing(e, WORKLOAD)
    assert drawing is not None
    html = render(one_layout_search(e.layout))
    assert "stage 3" in _outline(html).text
    assert drawing.svg in html


def test_without_a_pipeline_nothing_is_drawn() -> None:
    assert schedule_drawing(result().ranked[0], WORKLOAD) is None


def test_verdicts_tell_three_things_apart() -> None:
    verdicts = Verdicts(verdicts=[Verdict(passed=passed, sentence="x") for passed in (True, False, None)])
    made = Page(
        title="t", eyebrow="e", headline="h", lead=(), sections=[Section(anchor="a", heading="A", blocks=[verdicts])]
    )
    found = re.findall(r'<li class="(\w+)"><b>([a-z ]+)</b>', render(made))
    assert found == [("pass", "passed"), ("fail", "struck out"), ("unknown", "not checked")]
