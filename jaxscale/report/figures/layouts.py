"""Many layouts at once: parallel coordinates, why layouts were rejected, clusters by time and money."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxscale.report.figures.marks import COLOURS, ORANGE_TO_BLUE, count_bars, plain
from jaxscale.report.page import Evidence, Figure, number_table
from jaxscale.report.words import short_layout
from jaxscale.types import AXES, Estimate
from jaxscale.types.search import SearchResult
from jaxscale.units import GIB


def parallel_figure(estimates: Sequence[Estimate], evidence: Evidence) -> Figure:
    """Layouts as lines over their degrees, options, time and memory; drag along an axis to select."""
    remats = sorted({e.layout.remat for e in estimates})
    dimensions: list[dict[str, Any]] = []
    for axis in AXES:
        values = [getattr(e.layout, axis) for e in estimates]
        if len(set(values)) > 1:
            dimensions.append(_categorical(axis, values))
    dimensions.append(_categorical("microbatch", [e.layout.microbatch_size for e in estimates]))
    dimensions.append(
        {
            "label": "remat",
            "values": [remats.index(e.layout.remat) for e in estimates],
            "tickvals": list(range(len(remats))),
            "ticktext": remats,
        }
    )
    dimensions.append({"label": "GiB", "values": [e.memory_bytes / GIB for e in estimates]})
    times = [e.step_time_s for e in estimates]
    dimensions.append({"label": "seconds", "values": times})
    trace = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {"color": times, "colorscale": ORANGE_TO_BLUE, "showscale": False},
        "labelfont": {"size": 12, "color": "@fg"},
        "tickfont": {"size": 11, "color": "@fg"},
        "rangefont": {"size": 10, "color": "@dim"},
    }
    caption = (
        "The best layout of each mesh, one line each; orange lines are fast. Drag along an axis to keep some, "
        "double-click to let go."
    )
    layout = {"height": 400, "margin": {"l": 64, "r": 48, "t": 56, "b": 24}}
    rows = [(short_layout(e.layout), e.step_time_s, e.memory_bytes / GIB, 100 * e.mfu) for e in estimates]
    numbers = number_table("The best layout of each mesh.", ("layout", "seconds", "GiB", "MFU, %"), rows)
    return Figure(
        id="parallel", caption=caption, evidence=evidence, data=[trace], layout=layout, numbers=numbers, height_px=400
    )


def _categorical(label: str, values: Sequence[int]) -> dict[str, Any]:
    """Degrees are powers more often than not: evenly spaced steps read better than a linear axis."""
    ticks = sorted(set(values))
    return {
        "label": label,
        "values": [ticks.index(value) for value in values],
        "tickvals": list(range(len(ticks))),
        "ticktext": [str(tick) for tick in ticks],
    }


def rejected_figure(result: SearchResult, words: Mapping[str, str], evidence: Evidence) -> Figure:
    """Why layouts were rejected, by how many."""
    counts = {words.get(reason, reason): count for reason, count in result.rejected.items()}
    caption = "Layouts rejected, by reason; one layout may break several rules."
    return count_bars("rejected", caption, evidence, counts, "layouts")


def clusters_figure(best: Sequence[tuple[str, Estimate]], evidence: Evidence) -> Figure:
    """The best layout of each cluster by step time and money; lower and further left is better."""
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [e.step_time_s for _, e in best],
        "y": [e.dollars_per_billion_tokens for _, e in best],
        "text": [plain(name) for name, _ in best],
        "textposition": "top center",
        "marker": {"size": 13, "color": COLOURS[0]},
        "error_x": _interval(best),
        "hovertemplate": "%{text}<br>%{x:.3g} s a step<br>$%{y:.4g} per billion tokens<extra></extra>",
    }
    layout = {
        "height": 360,
        "xaxis": {"title": {"text": "seconds a step"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "dollars per billion tokens"}, "rangemode": "tozero"},
        "margin": {"l": 64, "r": 40, "t": 32, "b": 56},
    }
    caption = "The best layout of each priced cluster by time and by money, at public on-demand prices."
    rows = [(name, e.step_time_s, e.dollars_per_billion_tokens, 100 * e.mfu) for name, e in best]
    numbers = number_table(caption, ("cluster", "seconds", "dollars per billion tokens", "MFU, %"), rows)
    return Figure(id="clusters-plot", caption=caption, evidence=evidence, data=[trace], layout=layout, numbers=numbers)


def _interval(best: Sequence[tuple[str, Estimate]]) -> dict[str, Any]:
    """The 80% intervals of step times as error bars."""
    spans = [(e.step_time_s, *(e.interval_80_s or (e.step_time_s, e.step_time_s))) for _, e in best]
    return {
        "type": "data", "symmetric": False, "array": [high - at for at, _, high in spans],
        "arrayminus": [at - low for at, low, _ in spans], "color": "@dim", "thickness": 1,
    }  # fmt: skip
