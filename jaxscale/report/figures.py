"""Plotly figures as plain data: stacked bars of time and memory, communication, layouts as parallel coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxscale.report.page import Figure
from jaxscale.report.words import TIME_WORDS
from jaxscale.types import AXES, REMAT_POLICIES, Estimate
from jaxscale.types.checks import CheckedLayout
from jaxscale.types.search import SearchResult
from jaxscale.units import GIB

# Okabe and Ito's colours, which colour-blind readers can tell apart, and greys for what is left.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#7b68ee", "#7f7f7f", "#bcbd22",
    "#aec7e8", "#c49c94", "#98df8a",
)  # fmt: skip
SMALLEST_SHARE = 0.002  # of the largest bar; thinner parts cannot be seen
BAR_PX, FRAME_PX = 46, 130
AXIS_COLOURS = dict(zip((*AXES, "other"), COLOURS, strict=False))


def stacked_bars(
    figure_id: str, caption: str, bars: Sequence[tuple[str, Mapping[str, float]]], unit: str, scale: float
) -> Figure:
    """Horizontal bars, each the sum of its parts; `scale` is what one `unit` is in the parts' own unit."""
    largest = max((sum(parts.values()) for _, parts in bars), default=0.0)
    names = list(dict.fromkeys(name for _, parts in bars for name in parts))
    names = [n for n in names if max(parts.get(n, 0.0) for _, parts in bars) > SMALLEST_SHARE * largest]
    labels = [label for label, _ in bars]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": labels,
            "x": [parts.get(name, 0.0) / scale for _, parts in bars],
            "marker": {"color": COLOURS[i % len(COLOURS)]},
            "hovertemplate": f"%{{y}}<br>{name}: %{{x:.3g}} {unit}<extra></extra>",
        }
        for i, name in enumerate(names)
    ]
    height = FRAME_PX + BAR_PX * len(bars)
    layout: dict[str, Any] = {
        "barmode": "stack",
        "height": height,
        "xaxis": {"title": {"text": unit}},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "margin": {"l": 40, "r": 16, "t": 60, "b": 44},
    }
    return Figure(id=figure_id, caption=caption, data=traces, layout=layout, height_px=height)


def time_figure(rows: Sequence[CheckedLayout]) -> Figure:
    """Where the step's time goes: predicted, and the compiler's schedule at the same prices."""
    bars: list[tuple[str, Mapping[str, float]]] = []
    for row in rows:
        predicted = row.predicted.time_parts_s
        bars.append((f"#{row.rank} predicted", {TIME_WORDS.get(part, part): s for part, s in predicted.items()}))
        if row.compiled is not None and row.compiled.time_parts_s:
            exposed = {k: s for k, s in row.compiled.time_parts_s.items() if k != "compute"}
            compiled = {"compiled compute": row.compiled.time_parts_s.get("compute", 0.0)}
            bars.append((f"#{row.rank} compiled", compiled | {f"compiled, exposed {k}": s for k, s in exposed.items()}))
    caption = (
        "Time of a step by part: as predicted and, where the layout was compiled, the compiler's own ops and overlap "
        "at the same prices. Communication counts where it is exposed."
    )
    return stacked_bars("time-parts", caption, bars, "seconds", 1.0)


def memory_figure(rows: Sequence[CheckedLayout], limit_bytes: float) -> Figure:
    """Memory at the peak, predicted and as compiled, side by side."""
    bars: list[tuple[str, Mapping[str, float]]] = []
    for row in rows:
        bars.append((f"#{row.rank} predicted", row.predicted.memory_parts_bytes))
        if row.compiled is not None:
            compiled = {f"compiled {name}": size for name, size in row.compiled.memory_parts_bytes.items()}
            bars.append((f"#{row.rank} compiled", compiled))
    caption = (
        "Memory of one device at the peak, as predicted and, where the layout was compiled, as the compiler plans it."
    )
    made = stacked_bars("memory-parts", caption, bars, "GiB", GIB)
    edge = limit_bytes / GIB
    line = {
        "type": "line", "x0": edge, "x1": edge, "yref": "paper", "y0": 0, "y1": 1,
        "line": {"color": "#b3261e", "width": 1.5, "dash": "dash"},
    }  # fmt: skip
    note = {
        "x": edge, "yref": "paper", "y": 0, "yanchor": "bottom", "xanchor": "right", "showarrow": False,
        "text": f"limit {edge:.1f} GiB", "font": {"color": "#b3261e", "size": 11},
    }  # fmt: skip
    layout = {**made.layout, "shapes": [line], "annotations": [note]}
    return Figure(id=made.id, caption=made.caption, data=made.data, layout=layout, height_px=made.height_px)


def communication_figure(rows: Sequence[CheckedLayout]) -> Figure:
    """Bytes that one device sends a step, by mesh axes, predicted and compiled."""
    bars: list[tuple[str, Mapping[str, float]]] = []
    for row in rows:
        bars.append((f"#{row.rank} predicted", row.predicted.comm_bytes))
        if row.compiled is not None:
            bars.append((f"#{row.rank} compiled", row.compiled.comm_bytes))
    caption = "What one device sends in a step, by the mesh axes that the collective spans."
    return stacked_bars("communication", caption, bars, "GiB", GIB)


def parallel_figure(estimates: Sequence[Estimate]) -> Figure:
    """Layouts as lines over their degrees, options, time and memory; drag along an axis to select."""
    remats = list(REMAT_POLICIES)
    dimensions: list[dict[str, Any]] = []
    for axis in AXES:
        values = [getattr(e.layout, axis) for e in estimates]
        if len(set(values)) > 1:
            dimensions.append(_categorical(axis, values))
    dimensions.append(_categorical("microbatch", [e.layout.microbatch_size for e in estimates]))
    used = [remats.index(e.layout.remat) for e in estimates]
    ticks = sorted(set(used))
    dimensions.append({"label": "remat", "values": used, "tickvals": ticks, "ticktext": [remats[i] for i in ticks]})
    dimensions.append({"label": "GiB", "values": [e.memory_bytes / GIB for e in estimates]})
    times = [e.step_time_s for e in estimates]
    dimensions.append({"label": "seconds", "values": times})
    trace = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {"color": times, "colorscale": "Viridis", "reversescale": True, "showscale": False},
    }
    caption = (
        "The best layout of each mesh, one line each; light lines are fast. Drag along an axis to keep some, "
        "double-click to let go."
    )
    layout = {"height": 380, "margin": {"l": 48, "r": 48, "t": 48, "b": 24}}
    return Figure(id="parallel", caption=caption, data=[trace], layout=layout, height_px=380)


def _categorical(label: str, values: Sequence[int]) -> dict[str, Any]:
    """Degrees are powers more often than not: evenly spaced steps read better than a linear axis."""
    ticks = sorted(set(values))
    return {
        "label": label,
        "values": [ticks.index(value) for value in values],
        "tickvals": list(range(len(ticks))),
        "ticktext": [str(tick) for tick in ticks],
    }


def rejected_figure(result: SearchResult, words: Mapping[str, str]) -> Figure:
    """Why layouts were rejected, by how many."""
    reasons = sorted(result.rejected.items(), key=lambda item: item[1])
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [words.get(reason, reason) for reason, _ in reasons],
        "x": [count for _, count in reasons],
        "marker": {"color": COLOURS[5]},
        "text": [f"{count:,}" for _, count in reasons],
        "hovertemplate": "%{y}: %{x:,}<extra></extra>",
    }
    height = 90 + 40 * len(reasons)
    layout = {"height": height, "xaxis": {"title": {"text": "layouts"}}, "margin": {"l": 40, "r": 30, "t": 8, "b": 44}}
    caption = "Layouts rejected, by reason; one layout may break several rules."
    return Figure(id="rejected", caption=caption, data=[trace], layout=layout, height_px=height)
