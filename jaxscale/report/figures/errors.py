"""How good predictions are: predicted against measured, error by source and by factor, honesty of the intervals."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from jaxscale.report.figures.marks import COLOURS, fill, plain
from jaxscale.report.page import Evidence, Figure, number_table

MOST_POINTS = 4000  # of the largest table that draws in a moment; beyond that every nth run is drawn
NOMINAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # intervals whose coverage is looked at
PARITY_HOVER = "%{text}<br>measured %{x:.4g} s, predicted %{y:.4g} s (%{customdata:+.1f}%)<extra></extra>"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")


def parity_figure(
    sources: Sequence[str], names: Sequence[str], measured_s: np.ndarray, predicted_s: np.ndarray, evidence: Evidence
) -> Figure:
    """Predicted against measured step time, [n] each; a source has a colour and a symbol of its own."""
    every = -(-len(names) // MOST_POINTS) if names else 1
    places = np.arange(0, len(names), every)
    traces: list[dict[str, Any]] = []
    for i, source in enumerate(sorted(set(sources))):
        rows = [int(j) for j in places if sources[j] == source]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": plain(source),
                "x": measured_s[rows].tolist(), "y": predicted_s[rows].tolist(),
                "text": [plain(names[j]) for j in rows],
                "customdata": (100.0 * (predicted_s[rows] / measured_s[rows] - 1.0)).tolist(),
                "marker": {
                    "size": 6, "opacity": 0.65, "color": COLOURS[i % len(COLOURS)],
                    "symbol": SYMBOLS[i // len(COLOURS) % len(SYMBOLS)],
                },
                "hovertemplate": PARITY_HOVER,
            }
        )  # fmt: skip
    ends = [float(measured_s.min()), float(measured_s.max())] if len(names) else [1.0, 1.0]
    traces.append(
        {
            "type": "scatter", "mode": "lines", "name": "as measured", "x": ends, "y": ends, "hoverinfo": "skip",
            "line": {"color": "@fg", "width": 1, "dash": "dot"},
        }
    )  # fmt: skip
    layout = {
        "height": 560,
        "hovermode": "closest",
        "xaxis": {"type": "log", "title": {"text": "measured seconds a step (log)"}, "dtick": 1},
        "yaxis": {"type": "log", "title": {"text": "predicted seconds a step (log)"}, "dtick": 1},
        "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
        "legend": {"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0, "font": {"size": 11}},
    }
    shown = f" Every {every}th run is drawn." if every > 1 else ""
    caption = f"Step time of every timed run, predicted against measured; on the dotted line both agree.{shown}"
    return Figure(id="parity", caption=caption, evidence=evidence, data=traces, layout=layout, height_px=560)


def sources_figure(rows: Sequence[tuple[str, float, float, int]], evidence: Evidence) -> Figure:
    """Median and 90th percentile of the absolute error by source: (source, median, p90, timed runs)."""
    known = [row for row in rows if row[3] > 0]
    labels = [f"{plain(name)} ({timed})" for name, _, _, timed in known]
    traces = [
        {
            "type": "bar", "orientation": "h", "name": name, "y": labels, "x": [100.0 * row[column] for row in known],
            "marker": marker, "hovertemplate": f"%{{y}}: {name} %{{x:.1f}}%<extra></extra>",
        }
        for name, column, marker in (
            ("median", 1, fill(0)),
            ("90th percentile", 2, fill(8)),
        )
    ]  # fmt: skip
    height = 120 + 34 * len(known)
    layout = {
        "barmode": "group",
        "height": height,
        "xaxis": {"title": {"text": "absolute error of step time, %"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0},
        "margin": {"l": 40, "r": 16, "t": 40, "b": 56},
    }
    caption = "Error of the predicted step time by source, with its number of timed runs."
    return Figure(id="sources", caption=caption, evidence=evidence, data=traces, layout=layout, height_px=height)


def factors_figure(levels: Sequence[tuple[str, str, int, float, float]], evidence: Evidence) -> Figure:
    """Bias of each level of each factor: (factor, level, runs, median log error, median absolute log error).

    Factors whose levels differ most stand at the top: there physics is missing, or few runs speak.
    """
    spread: dict[str, list[float]] = {}
    for factor, _, _, bias, _ in levels:
        spread.setdefault(factor, []).append(bias)
    order = sorted(spread, key=lambda factor: -(max(spread[factor]) - min(spread[factor])))
    most = max((runs for _, _, runs, _, _ in levels), default=1)
    trace = {
        "type": "scatter", "mode": "markers",
        "y": [plain(level[0]) for level in levels], "x": [100.0 * level[3] for level in levels],
        "marker": {
            "size": [6.0 + 14.0 * (level[2] / most) ** 0.5 for level in levels], "color": COLOURS[0], "opacity": 0.6,
            "line": {"color": "@bg", "width": 1},
        },
        "hovertemplate": [
            f"{plain(factor)} = {plain(level)}<br>{runs} runs, median error {100 * bias:+.1f}%, "
            f"absolute {100 * error:.1f}%<extra></extra>"
            for factor, level, runs, bias, error in levels
        ],
    }  # fmt: skip
    height = 110 + 24 * len(order)
    layout = {
        "height": height,
        "xaxis": {"title": {"text": "bias of the step time, %: left of zero too fast"}, "zeroline": True},
        "yaxis": {
            "type": "category", "categoryorder": "array", "categoryarray": [plain(f) for f in reversed(order)],
            "range": [-0.7, len(order) - 0.3],
        },
        "margin": {"l": 40, "r": 16, "t": 16, "b": 56},
    }  # fmt: skip
    caption = (
        "Every value of every factor as a point, the larger the more runs. Points of a factor that lie far apart are a "
        "pattern that the model does not see."
    )
    rows = [(factor, level, runs, 100.0 * bias, 100.0 * error) for factor, level, runs, bias, error in levels]
    numbers = number_table(
        "Error of the log step time by factor.", ("factor", "value", "runs", "bias, %", "median absolute, %"), rows
    )
    return Figure(
        id="factors", caption=caption, evidence=evidence, data=[trace], layout=layout, numbers=numbers, height_px=height
    )


def coverage_figure(standardised: np.ndarray, evidence: Evidence) -> Figure:
    """Share of runs inside intervals of nominal width; `standardised` are log errors over their stated sigma, [n]."""
    widths = [NormalDist().inv_cdf(0.5 + nominal / 2.0) for nominal in NOMINAL]
    inside = [float(np.mean(np.abs(standardised) <= width)) if len(standardised) else float("nan") for width in widths]
    percent = [100.0 * nominal for nominal in NOMINAL]
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": "honest", "x": [0, 100], "y": [0, 100], "hoverinfo": "skip",
            "line": {"color": "@fg", "width": 1, "dash": "dot"},
        },
        {
            "type": "scatter", "mode": "lines+markers", "name": "found", "x": percent, "y": [100.0 * s for s in inside],
            "line": {"color": COLOURS[0]}, "marker": {"size": 8},
            "hovertemplate": "of %{x:.0f}% intervals %{y:.1f}% hold the measured time<extra></extra>",
        },
    ]  # fmt: skip
    layout = {
        "height": 380,
        "xaxis": {"title": {"text": "stated interval, %"}, "range": [0, 100]},
        "yaxis": {"title": {"text": "runs inside, %"}, "range": [0, 100]},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
        "showlegend": False,
    }
    caption = (
        "Coverage of the stated intervals: above the dotted line they are wider than they need be, below it too narrow."
    )
    rows = [(p, 100.0 * s) for p, s in zip(percent, inside, strict=True)]
    return Figure(
        id="coverage", caption=caption, evidence=evidence, data=traces, layout=layout, height_px=380,
        numbers=number_table(caption, ("stated, %", "inside, %"), rows),
    )  # fmt: skip
