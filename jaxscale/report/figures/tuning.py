"""A tuning run: the best so far, what was believed before and after, and what the predictor gets wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxscale.report.figures.marks import COLOURS, plain
from jaxscale.report.page import Evidence, Figure, number_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A layout in short with its step time in seconds before and after learning, each with an 80% interval.

    `measured_s` is None where it was not tried or did not run; `trial` counts from 1, 0 where it was not tried.
    """

    label: str
    prior_s: float
    prior_80_s: tuple[float, float]
    posterior_s: float
    posterior_80_s: tuple[float, float]
    trial: int = 0
    measured_s: float | None = None
    message: str = ""  # why it did not run


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a feature of a layout adds to the log of the step time beyond the prediction."""

    feature: str
    log_time: float
    deviation: float  # standard deviation of that figure
    share: float  # of the spread of the errors


def best_so_far_figure(tried: Sequence[Candidate], evidence: Evidence) -> Figure:
    """Step time of each trial in order, and the fastest up to then."""
    timed = [(c.trial, c.measured_s, c.label) for c in tried if c.measured_s is not None]
    failed = [c for c in tried if c.measured_s is None]
    best: list[float] = []
    for _, seconds, _ in timed:
        best.append(min(seconds, best[-1]) if best else seconds)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": "measured", "x": [n for n, _, _ in timed],
            "y": [s for _, s, _ in timed], "text": [plain(label) for _, _, label in timed],
            "marker": {"size": 10, "symbol": "diamond", "color": "@measured"},
            "hovertemplate": "trial %{x}: %{y:.4g} s<br>%{text}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "lines", "name": "best so far", "x": [n for n, _, _ in timed], "y": best,
            "line": {"shape": "hv", "color": "@fg", "width": 1.5}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "name": "predicted", "x": [c.trial for c in tried],
            "y": [c.prior_s for c in tried], "text": [plain(c.label) for c in tried],
            "marker": {"size": 7, "symbol": "circle-open", "color": "@predicted"},
            "hovertemplate": "trial %{x}: predicted %{y:.4g} s<br>%{text}<extra></extra>",
        },
    ]  # fmt: skip
    if failed:
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": "did not run", "x": [c.trial for c in failed],
                "y": [c.prior_s for c in failed], "text": [plain(c.message) for c in failed],
                "marker": {"size": 11, "symbol": "x", "color": "@bad"},
                "hovertemplate": "trial %{x} did not run<br>%{text}<extra></extra>",
            }
        )  # fmt: skip
    layout = {
        "height": 380,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "trial"}, "rangemode": "tozero", "dtick": -(-len(tried) // 12)},
        "yaxis": {"title": {"text": "seconds a step"}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 40, "b": 56},
    }
    caption = "Step time of every trial in the order in which they ran, and the best so far."
    rows = [
        (c.trial, c.label, c.prior_s, float("nan") if c.measured_s is None else c.measured_s, c.message) for c in tried
    ]
    numbers = number_table(caption, ("trial", "layout", "predicted, s", "measured, s", "why it did not run"), rows)
    return Figure(
        id="best-so-far", caption=caption, evidence=evidence, data=traces, layout=layout, numbers=numbers, height_px=380
    )


def beliefs_figure(candidates: Sequence[Candidate], evidence: Evidence) -> Figure:
    """Prior against posterior of some candidates, with intervals, and what was measured."""
    labels = [plain(c.label) for c in candidates]
    before = [(c.prior_s, *c.prior_80_s) for c in candidates]
    after = [(c.posterior_s, *c.posterior_80_s) for c in candidates]
    traces = [
        _intervals("before any trial", labels, before, "@predicted", "circle-open", 0.16),
        _intervals("after the last trial", labels, after, COLOURS[1], "square", -0.16),
    ]
    measured = [(i, c.measured_s) for i, c in enumerate(candidates) if c.measured_s is not None]
    traces.append(
        {
            "type": "scatter", "mode": "markers", "name": "measured", "x": [s for _, s in measured],
            "y": [i for i, _ in measured], "marker": {"size": 11, "symbol": "diamond", "color": "@measured"},
            "hovertemplate": "measured %{x:.4g} s<extra></extra>",
        }
    )  # fmt: skip
    height = 130 + 30 * len(candidates)
    layout = {
        "height": height,
        "xaxis": {"title": {"text": "seconds a step"}, "rangemode": "tozero"},
        "yaxis": {
            "tickvals": list(range(len(labels))), "ticktext": [_wrapped(label) for label in labels],
            "range": [len(labels) - 0.4, -0.6], "tickfont": {"size": 10},
        },
        "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 40, "b": 56},
    }  # fmt: skip
    caption = (
        "What was believed of the fastest candidates before any trial and after the last, each with its 80% interval."
    )
    missing = float("nan")
    rows = [
        (c.label, *one, *other, missing if c.measured_s is None else c.measured_s)
        for c, one, other in zip(candidates, before, after, strict=True)
    ]
    header = ("layout", "before, s", "low", "high", "after, s", "low", "high", "measured, s")
    return Figure(
        id="beliefs", caption=caption, evidence=evidence, data=traces, layout=layout, height_px=height,
        numbers=number_table(caption, header, rows),
    )  # fmt: skip


def _wrapped(label: str) -> str:
    """A label short enough to leave room for the plot."""
    return label if len(label) <= 34 else f"{label[:33]}…"


def _intervals(
    name: str, labels: Sequence[str], spans: Sequence[tuple[float, float, float]], colour: str, symbol: str,
    offset: float,
) -> dict[str, Any]:  # fmt: skip
    """Points with intervals, (value, low, high), a little above or below their row."""
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": [at for at, _, _ in spans],
        "y": [i - offset for i in range(len(spans))], "text": list(labels),
        "marker": {"size": 8, "symbol": symbol, "color": colour},
        "error_x": {
            "type": "data", "symmetric": False, "array": [high - at for at, _, high in spans],
            "arrayminus": [at - low for at, low, _ in spans], "color": colour, "thickness": 1.5,
        },
        "hovertemplate": f"%{{text}}<br>{name}: %{{x:.4g}} s<extra></extra>",
    }  # fmt: skip


def effects_figure(effects: Sequence[Effect], evidence: Evidence) -> Figure:
    """What features of a layout add to the step time beyond the prediction, in percent, with their deviation."""
    trace = {
        "type": "bar", "orientation": "h", "y": [plain(e.feature) for e in effects],
        "x": [100.0 * e.log_time for e in effects], "marker": {"color": COLOURS[5]},
        "error_x": {"type": "data", "array": [100.0 * e.deviation for e in effects], "color": "@fg", "thickness": 1},
        "hovertemplate": "%{y}: %{x:+.1f}%<extra></extra>",
    }  # fmt: skip
    height = 100 + 34 * len(effects)
    layout = {
        "height": height,
        "xaxis": {"title": {"text": "log step time beyond the prediction, %"}},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "margin": {"l": 40, "r": 16, "t": 8, "b": 56},
    }
    caption = (
        "What the predictor gets wrong: log time that a doubling of a degree, or a choice made, adds to what it says. "
        "The bars share what these trials cannot tell apart."
    )
    rows = [(e.feature, 100.0 * e.log_time, 100.0 * e.deviation, 100.0 * e.share) for e in effects]
    header = ("feature", "log time, %", "standard deviation, %", "share of the errors, %")
    return Figure(
        id="effects", caption=caption, evidence=evidence, data=[trace], layout=layout, height_px=height,
        numbers=number_table(caption, header, rows),
    )  # fmt: skip
