"""The report is one file that needs nothing else, holds the numbers, and cannot be broken by what it says."""

import json
import re
from html.parser import HTMLParser

from jaxscale.report.html import search_report
from jaxscale.report.page import MAX_BYTES, Page, Prose, Section, Verdict, Verdicts, render, script_json
from jaxscale.report.pipeline import schedule_drawing
from jaxscale.search import parse_limits, search
from jaxscale.types.checks import CheckedLayout

from .examples import WORKLOAD, report, result, rows

VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Outline(HTMLParser):
    """Checks that tags close in order, and collects ids, links and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
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


def test_it_is_whole_small_and_alone() -> None:
    html = report()
    outline = _outline(html)
    assert len(html.encode()) < MAX_BYTES
    assert all(link.startswith("#") for link in outline.links)
    assert {link[1:] for link in outline.links} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert "@import" not in html
    assert "url(" not in html.split("plotly-gzip")[0]


def test_the_headline_comes_first_and_names_the_one_that_passed() -> None:
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
    assert html.count('class="struck"') == 1


def test_the_data_are_those_of_the_search() -> None:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', report(), re.DOTALL)
    assert block is not None
    data = json.loads(block.group(1))
    first = data["layouts"][data["first"]]
    winner = rows()[1].predicted
    assert first["rank"] == 2
    assert abs(first["time"] - winner.step_time_s) < 1e-4 * winner.step_time_s
    assert sum(layout["front"] for layout in data["layouts"]) == len({e.layout for e in result().pareto})
    figures = data["figures"]
    assert {"time-parts", "memory-parts", "communication", "parallel", "rejected"} <= figures.keys()
    bars = figures["memory-parts"]["data"]
    assert {name for trace in bars for name in trace["y"]} >= {"#2 predicted", "#2 compiled"}
    predicted = sum(trace["x"][trace["y"].index("#2 predicted")] for trace in bars)
    assert abs(predicted - winner.memory_bytes / 2**30) < 0.01 * predicted


def test_text_cannot_leave_its_place() -> None:
    page = Page(
        title="<t>", eyebrow="</script>", headline="<h1>&", lead=(),
        sections=(Section(anchor="a", heading="<b>", blocks=(Prose(sentences=("<i>",)),)),),
        data={"text": "</script><script>alert(1)</script>", "nan": float("nan")},
    )  # fmt: skip
    html = render(page)
    _outline(html)
    assert "<script>alert" not in html
    assert "&lt;h1&gt;&amp;" in html


def test_script_json_round_trips() -> None:
    value = {"a": [1, 2.5, "</x>", None], "b": {"c": True}}
    assert json.loads(script_json(value)) == value


def test_a_pipeline_is_drawn() -> None:
    found = search(
        result().shape, WORKLOAD, result().cluster, limits=parse_limits("pipeline=4,microbatch_size=1"), top=1
    )
    e = found.ranked[0]
    drawing = schedule_drawing(e, WORKLOAD)
    assert drawing is not None
    html = search_report(found, (CheckedLayout(rank=1, predicted=e),))
    assert "stage 3" in _outline(html).text
    assert drawing.svg in html


def test_without_a_pipeline_nothing_is_drawn() -> None:
    assert schedule_drawing(result().ranked[0], WORKLOAD) is None


def test_verdicts_tell_three_things_apart() -> None:
    verdicts = Verdicts(verdicts=[Verdict(passed=passed, sentence="x") for passed in (True, False, None)])
    page = Page(
        title="t", eyebrow="e", headline="h", lead=(), sections=[Section(anchor="a", heading="A", blocks=[verdicts])]
    )
    found = re.findall(r'<li class="(\w+)"><b>([a-z ]+)</b>', render(page))
    assert found == [("pass", "passed"), ("fail", "struck out"), ("unknown", "not checked")]
