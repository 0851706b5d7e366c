"""The drawing of a schedule: complete, accessible, readable on light and dark pages."""

import re
from xml.etree import ElementTree

import pytest

from jaxscale.errors import SpecError
from jaxscale.report.schedule_svg import schedule_svg
from jaxscale.schedule import FAMILIES, Timeline, build, replay

SVG = "{http://www.w3.org/2000/svg}"
FAINTEST = 0.45  # opacity of the last chunk


def timeline_of(family: str, chunks: int = 1) -> Timeline:
    return replay(build(family, stages=4, microbatches=8, chunks=chunks), 0.010, 0.020, weight_s=0.005)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("colour_by", ["kind", "microbatch"])
def test_every_action_is_drawn_inside_its_row(family: str, colour_by: str) -> None:
    timeline = timeline_of(family)
    root = ElementTree.fromstring(schedule_svg(timeline, colour_by=colour_by))
    drawn = root.findall(f"{SVG}g")
    assert len(drawn) == sum(not action.idle for row in timeline.schedule.actions for action in row)
    rows = [r for r in root.findall(f"{SVG}rect") if r.get("class") == "idle"]
    left = float(rows[0].get("x", ""))
    right = left + float(rows[0].get("width", ""))
    for group in drawn:
        box = group.find(f"{SVG}rect")
        assert left - 0.01 <= float(box.get("x"))
        assert float(box.get("x")) + float(box.get("width")) <= right + 0.02
        assert group.find(f"{SVG}title").text


def test_title_and_description_are_announced() -> None:
    root = ElementTree.fromstring(schedule_svg(timeline_of("interleaved", chunks=2), element_id="plan-7"))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "plan-7-title plan-7-desc"
    texts = {child.get("id"): child.text for child in root}
    assert texts["plan-7-title"] == "Pipeline schedule interleaved: 4 stages, 8 microbatches, 2 chunks a stage"
    assert "bubble 18.8% of the busiest stage's work" in texts["plan-7-desc"]


def test_legend_names_what_is_drawn() -> None:
    assert "weight gradient" in schedule_svg(timeline_of("zero_bubble"))
    assert "weight gradient" not in schedule_svg(timeline_of("1f1b"))
    assert "fainter is a later chunk" in schedule_svg(timeline_of("modular", chunks=2))


def test_styles_stay_inside_the_drawing() -> None:
    style = re.search("<style>(.*)</style>", schedule_svg(timeline_of("1f1b"), element_id="a1")).group(1)
    selectors = [s for block in re.findall(r"([^{}]+)\{", style) for s in block.split(",")]
    assert {s.split()[0] for s in selectors if not s.startswith("@media")} == {"#a1"}


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("page", [0, 1])
def test_labels_are_readable_on_every_fill_and_the_page(page: int) -> None:
    style = re.search("<style>(.*)</style>", schedule_svg(timeline_of("1f1b"))).group(1).split("@media")[page]
    fills = {name: rgb(colour) for name, colour in re.findall(r"\.(\w+)\{fill:(#\w{6})\}", style)}
    for name in (*"FBW", *(f"m{k}" for k in range(12))):
        for opacity in (1.0, FAINTEST):
            over = tuple(opacity * c + (1 - opacity) * i for c, i in zip(fills[name], fills["idle"], strict=True))
            assert contrast(over, fills["label"]) >= 4.5
    paper = ((1.0, 1.0, 1.0), rgb("#15171b"))[page]
    assert contrast(paper, fills["note"]) >= 4.5


def test_options_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(SpecError, match="width_px=100"):
        schedule_svg(timeline_of("1f1b"), width_px=100)
    with pytest.raises(SpecError, match="element_id='a b'"):
        schedule_svg(timeline_of("1f1b"), element_id="a b")
    with pytest.raises(SpecError, match="colour_by='chunk'"):
        schedule_svg(timeline_of("1f1b"), colour_by="chunk")
