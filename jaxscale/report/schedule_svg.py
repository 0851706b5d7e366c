"""A pipeline schedule as a static SVG: one row per stage, time to the right, readable on light and dark pages."""

import colorsys
import re
from html import escape
from typing import Literal

from jaxscale.errors import SpecError
from jaxscale.report.trace import action_name
from jaxscale.schedule import KINDS, Slice, Timeline
from jaxscale.types._check import require_choice
from jaxscale.units import format_seconds

ColourBy = Literal["kind", "microbatch"]

_MARGIN_LEFT, _MARGIN_RIGHT, _TOP = 74.0, 18.0, 44.0  # px
_ROW, _GAP, _BELOW = 26.0, 6.0, 64.0  # px
_CHARACTER = 6.4  # px, one character of a label
_HUES = 12  # microbatches cycle through these
_TICKS = 6

# (light page, dark page): fills that carry dark, then light, text with a contrast of at least 4.5 to 1.
_KIND_FILLS = {"F": ("#9ec5f4", "#24588f"), "B": ("#f6c177", "#8a5314"), "W": ("#b9dfb0", "#2f6b3c")}
_INK, _MUTED, _IDLE = ("#1c1f24", "#f0f2f5"), ("#59616d", "#a9b2bf"), ("#eceff3", "#2a2e35")


def schedule_svg(
    timeline: Timeline, *, colour_by: ColourBy = "kind", width_px: float = 960.0, element_id: str = "schedule"
) -> str:
    """Draw a timeline as SVG text.

    Colours tell forward, backward and weight gradient apart, or microbatches; later chunks are fainter. Every slice
    has a tooltip. `element_id` scopes the styles, so that several drawings can stand in one page. Meant for tens of
    microbatches: a label shows where it fits.
    """
    require_choice("schedule_svg", allowed=("kind", "microbatch"), colour_by=colour_by)
    if width_px < 320:
        raise SpecError(f"schedule_svg: width_px={width_px} must be at least 320")
    if not re.fullmatch(r"[A-Za-z][\w-]*", element_id):
        raise SpecError(f"schedule_svg: element_id={element_id!r} must be a letter, then letters, digits, - or _")
    stages = timeline.schedule.stages
    height_px = _TOP + stages * (_ROW + _GAP) + _BELOW
    scale = (width_px - _MARGIN_LEFT - _MARGIN_RIGHT) / (float(timeline.makespan_s) or 1.0)  # px per second
    rows = [_row(timeline, stage, scale, colour_by) for stage in range(stages)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" id="{element_id}" viewBox="0 0 {width_px:g} {height_px:g}" '
        f'width="{width_px:g}" height="{height_px:g}" role="img" '
        f'aria-labelledby="{element_id}-title {element_id}-desc">',
        f'<title id="{element_id}-title">{escape(_title(timeline))}</title>',
        f'<desc id="{element_id}-desc">{escape(_description(timeline))}</desc>',
        f"<style>{_styles(element_id)}</style>",
        f'<text class="head" x="{_MARGIN_LEFT:g}" y="20">{escape(_title(timeline))}</text>',
        f'<text class="note" x="{_MARGIN_LEFT:g}" y="36">{escape(_summary(timeline))}</text>',
        *rows,
        _axis(timeline, scale, _TOP + stages * (_ROW + _GAP)),
        _legend(timeline, colour_by, height_px - 14.0),
        "</svg>",
    ]
    return "\n".join(parts)


def _title(timeline: Timeline) -> str:
    s = timeline.schedule
    chunks = f", {s.chunks} chunks a stage" if s.chunks > 1 else ""
    return f"Pipeline schedule {s.family}: {s.stages} stages, {s.microbatches} microbatches{chunks}"


def _summary(timeline: Timeline) -> str:
    busiest_s = max(timeline.work_s)
    idle = float(timeline.makespan_s - busiest_s) / float(busiest_s) if busiest_s else 0.0
    held = max(timeline.peak_in_flight)
    return (
        f"{format_seconds(float(timeline.makespan_s))} a step; bubble {idle:.1%} of the busiest stage's work; "
        f"at most {held} chunk activations in flight"
    )


def _description(timeline: Timeline) -> str:
    idle = (f"stage {stage} {format_seconds(float(x))}" for stage, x in enumerate(timeline.idle_s))
    return f"One row per stage, time to the right. {_summary(timeline)}. Idle: {', '.join(idle)}."


def _row(timeline: Timeline, stage: int, scale: float, colour_by: ColourBy) -> str:
    y = _TOP + stage * (_ROW + _GAP)
    width = float(timeline.makespan_s) * scale
    middle = y + _ROW / 2 + 4
    parts = [
        f'<text class="note" text-anchor="end" x="{_MARGIN_LEFT - 8:g}" y="{middle:g}">stage {stage}</text>',
        f'<rect class="idle" x="{_MARGIN_LEFT:g}" y="{y:g}" width="{width:.2f}" height="{_ROW:g}"/>',
    ]
    kept = (piece for piece in timeline.slices[stage] if not piece.action.idle and piece.end_s > piece.start_s)
    parts += [_slice(piece, timeline.schedule.chunks, y, scale, colour_by) for piece in kept]
    return "\n".join(parts)


def _slice(piece: Slice, chunks: int, y: float, scale: float, colour_by: ColourBy) -> str:
    action = piece.action
    x, width = _MARGIN_LEFT + float(piece.start_s) * scale, float(piece.end_s - piece.start_s) * scale
    colour = action.kind if colour_by == "kind" else f"m{action.microbatch % _HUES}"
    border = f" {action.kind}-edge" if colour_by == "microbatch" else ""
    opacity = 1.0 - 0.55 * action.chunk / max(chunks - 1, 1)
    label = str(action.microbatch)
    text = ""
    if width >= _CHARACTER * len(label) + 2:
        text = f'<text class="label" x="{x + width / 2:.2f}" y="{y + _ROW / 2 + 4:g}">{label}</text>'
    tip = (
        f"{action_name(action, chunks)}: {KINDS[action.kind]} of microbatch {action.microbatch}, chunk {action.chunk}, "
        f"{format_seconds(float(piece.start_s))} to {format_seconds(float(piece.end_s))}"
    )
    return (
        f'<g><title>{escape(tip)}</title><rect class="slice {colour}{border}" fill-opacity="{opacity:.2f}" x="{x:.2f}" '
        f'y="{y:g}" width="{width:.2f}" height="{_ROW:g}"/>{text}</g>'
    )


def _axis(timeline: Timeline, scale: float, y: float) -> str:
    end_s = float(timeline.makespan_s)
    parts = []
    for k in range(_TICKS + 1):
        at_s = end_s * k / _TICKS
        x = _MARGIN_LEFT + at_s * scale
        anchor = "start" if k == 0 else "end" if k == _TICKS else "middle"
        parts.append(f'<line class="tick" x1="{x:.2f}" x2="{x:.2f}" y1="{y - _GAP:g}" y2="{y:g}"/>')
        label = format_seconds(at_s) if k else "0"
        parts.append(f'<text class="note" text-anchor="{anchor}" x="{x:.2f}" y="{y + 13:g}">{label}</text>')
    return "\n".join(parts)


def _legend(timeline: Timeline, colour_by: ColourBy, y: float) -> str:
    kinds = [k for k in KINDS if k != "W" or timeline.schedule.splits_backward]
    entries = [(k if colour_by == "kind" else f"none {k}-edge", KINDS[k]) for k in kinds]
    entries.append(("idle", "idle"))
    parts, x = [], _MARGIN_LEFT
    for colour, text in entries:
        parts.append(f'<rect class="slice {colour}" x="{x:g}" y="{y - 11:g}" width="16" height="12"/>')
        parts.append(f'<text class="note" x="{x + 22:g}" y="{y:g}">{text}</text>')
        x += 22 + _CHARACTER * len(text) + 24
    notes = "numbers and colours are microbatches" if colour_by == "microbatch" else "numbers are microbatches"
    if timeline.schedule.chunks > 1:
        notes += "; fainter is a later chunk"
    parts.append(f'<text class="note" x="{x:g}" y="{y:g}">{notes}</text>')
    return "\n".join(parts)


def _styles(element_id: str) -> str:
    """Styles of light pages, and of dark ones where the reader's system asks for them."""
    dark = "".join(_rules(element_id, 1))
    return "".join((_shared(element_id), *_rules(element_id, 0), "@media (prefers-color-scheme: dark){", dark, "}"))


def _shared(element_id: str) -> str:
    s = f"#{element_id}"
    return (
        f"{s}{{font:12px system-ui,sans-serif;max-width:100%;height:auto}}"
        f"{s} .head{{font-size:14px;font-weight:600}}"
        f"{s} .label{{text-anchor:middle;font-size:11px;pointer-events:none}}"
        f"{s} .none{{fill:none}}{s} .B-edge{{stroke-width:2}}{s} .W-edge{{stroke-dasharray:3 2}}"
    )


def _rules(element_id: str, page: int) -> list[str]:
    """Colour rules of the light page (0) or the dark one (1)."""
    s = f"#{element_id}"
    rules = [
        f"{s} .head,{s} .label{{fill:{_INK[page]}}}{s} .note{{fill:{_MUTED[page]}}}{s} .idle{{fill:{_IDLE[page]}}}",
        f"{s} .slice{{stroke:{_IDLE[page]}}}",
        f"{s} .tick,{s} .F-edge,{s} .B-edge,{s} .W-edge{{stroke:{_MUTED[page]}}}",
    ]
    rules += [f"{s} .{kind}{{fill:{fills[page]}}}" for kind, fills in _KIND_FILLS.items()]
    rules += [f"{s} .m{k}{{fill:{_hue(k, page)}}}" for k in range(_HUES)]
    return rules


def _hue(k: int, page: int) -> str:
    """The k-th of a circle of colours, pale for a light page and deep for a dark one."""
    # Steps of 5/12 of the circle set neighbouring microbatches far apart.
    red, green, blue = colorsys.hls_to_rgb((k * 5 % _HUES) / _HUES, (0.78, 0.27)[page], (0.70, 0.45)[page])
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
