"""What every figure shares: colours that colour-blind readers can tell apart, hatching where they run out, bars.

"@fg", "@bad" and the like stand for the page's own colours, which differ between light and dark.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from jaxscale.report.page import LARGEST_PLAIN, Evidence, Figure, number_table
from jaxscale.types.results import TierOfTruth

# Okabe and Ito's colours without yellow, which white swallows, and black, which dark does; then a grey.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f")
# For a figure outside a page: colours that show on white and on dark.
ALONE = {
    "@fg": "#7a8594", "@dim": "#7a8594", "@bg": "rgba(0,0,0,0)", "@bad": "#d55e00", "@accent": "#0b62c4",
    "@predicted": "#0072b2", "@compiled": "#e69f00", "@measured": "#009e73",
}  # fmt: skip
HATCHES = ("", "/", ".", "x")
SEQUENTIAL = "Cividis"  # made for colour-blind readers (Nunez et al. 2018, PLOS ONE 13(7))
ORANGE_TO_BLUE = [[0.0, "#e69f00"], [0.5, "#8f9aa8"], [1.0, "#3d7ec0"]]  # lines that show on white and on dark
TIER_SYMBOLS: dict[TierOfTruth, str] = {"predicted": "circle", "compiled": "square", "measured": "diamond"}
SMALLEST_SHARE = 0.002  # of the largest bar; thinner parts cannot be seen
BAR_PX, FRAME_PX, LEGEND_ROW_PX = 46, 104, 20
NAMES_A_LEGEND_ROW = 3

Bars = Sequence[tuple[str, Mapping[str, float]]]  # a label, and the parts that sum to its bar


def plain(text: str) -> str:
    """Text that Plotly shows as it is: its labels are a kind of HTML.

    >>> plain("<b>7B</b>")
    '&lt;b&gt;7B&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def standing_alone(value: Any) -> Any:
    """A figure's data or layout with plain colours in place of the page's.

    >>> standing_alone({"line": {"color": "@compiled"}})
    {'line': {'color': '#e69f00'}}
    """
    if isinstance(value, Mapping):
        return {key: standing_alone(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [standing_alone(item) for item in value]
    return ALONE.get(value, value) if isinstance(value, str) else value


def fill(index: int) -> dict[str, Any]:
    """The look of the `index`th part of a bar: a colour, hatched from the eighth on."""
    hatch = HATCHES[index // len(COLOURS) % len(HATCHES)]
    marker: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)]}
    return marker | ({"pattern": {"shape": hatch, "fgcolor": "@bg", "fillmode": "overlay"}} if hatch else {})


def limit_line(at: float, text: str, *, vertical: bool = True) -> dict[str, Any]:
    """Layout entries that draw a limit across a plot."""
    near, far = ("x", "y") if vertical else ("y", "x")
    line = {
        "type": "line", f"{near}0": at, f"{near}1": at, f"{far}ref": "paper", f"{far}0": 0, f"{far}1": 1,
        "line": {"color": "@bad", "width": 1.5, "dash": "dash"},
    }  # fmt: skip
    note = {
        near: at, f"{far}ref": "paper", far: 0 if not vertical else 1, "showarrow": False, "text": text,
        "xanchor": "right" if vertical else "left", "yanchor": "bottom", "font": {"color": "@bad", "size": 11},
    }  # fmt: skip
    return {"shapes": [line], "annotations": [note]}


def stacked_bars(
    figure_id: str, caption: str, evidence: Evidence, bars: Bars, *, unit: str, scale: float,
    limit: tuple[float, str] | None = None,
) -> Figure:  # fmt: skip
    """Horizontal bars, each the sum of its parts; `scale` is what one `unit` is in the parts' own unit."""
    largest = max((sum(parts.values()) for _, parts in bars), default=0.0)
    every = list(dict.fromkeys(name for _, parts in bars for name in parts))
    names = [n for n in every if max(parts.get(n, 0.0) for _, parts in bars) > SMALLEST_SHARE * largest]
    labels = [plain(label) for label, _ in bars]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plain(name),
            "y": labels,
            "x": [parts.get(name, 0.0) / scale for _, parts in bars],
            "marker": fill(i),
            "hovertemplate": f"%{{y}}<br>{plain(name)}: %{{x:.3g}} {unit}<extra></extra>",
        }
        for i, name in enumerate(names)
    ]
    legend_px = LEGEND_ROW_PX * -(-len(names) // NAMES_A_LEGEND_ROW)
    height = FRAME_PX + legend_px + BAR_PX * len(bars)
    layout: dict[str, Any] = {
        "barmode": "stack",
        "height": height,
        "xaxis": {"title": {"text": unit}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "margin": {"l": 40, "r": 16, "t": 24 + legend_px, "b": 56},
    }
    if limit is not None:
        layout |= limit_line(limit[0] / scale, limit[1])
    rows = [(label, *(parts.get(name, 0.0) / scale for name in every)) for label, parts in bars]
    sums = [sum(parts.values()) / scale for _, parts in bars]
    table = number_table(
        f"{caption.split('.')[0]}, in {unit}.", ("bar", "sum", *every),
        [(row[0], total, *row[1:]) for row, total in zip(rows, sums, strict=True)],
    )  # fmt: skip
    return Figure(
        id=figure_id, caption=caption, evidence=evidence, data=traces, layout=layout, numbers=table, height_px=height
    )


def count_bars(figure_id: str, caption: str, evidence: Evidence, counts: Mapping[str, float], unit: str) -> Figure:
    """One horizontal bar for each name, shortest at the bottom."""
    ordered = sorted(counts.items(), key=lambda item: item[1])
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [plain(name) for name, _ in ordered],
        "x": [count for _, count in ordered],
        "marker": {"color": COLOURS[5]},
        "text": [_short(count) for _, count in ordered],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": f"%{{y}}: %{{x:,.4g}} {unit}<extra></extra>",
    }
    height = 90 + 34 * len(ordered)
    layout = {"height": height, "xaxis": {"title": {"text": unit}}, "margin": {"l": 40, "r": 70, "t": 8, "b": 56}}
    numbers = number_table(caption, ("what", unit), [(name, count) for name, count in reversed(ordered)])
    return Figure(
        id=figure_id, caption=caption, evidence=evidence, data=[trace], layout=layout, numbers=numbers, height_px=height
    )


def _short(value: float) -> str:
    """A number beside its bar."""
    return f"{value:,.0f}" if value >= LARGEST_PLAIN or value == int(value) else f"{value:,.3g}"
