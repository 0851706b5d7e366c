"""A measured run step by step: its times and its loss."""

from collections.abc import Sequence
from typing import Any

from jaxscale.report.figures.marks import COLOURS
from jaxscale.report.page import Evidence, Figure, number_table
from jaxscale.types import Estimate


def step_times_figure(
    warmup_s: Sequence[float], steps_s: Sequence[float], outliers: Sequence[int], predicted: Estimate | None,
    evidence: Evidence,
) -> Figure:  # fmt: skip
    """Seconds of each step in order, warm-up included, with the predicted time and its interval across."""
    first = len(warmup_s)
    far = set(outliers)
    near = [i for i in range(len(steps_s)) if i not in far]
    traces = [
        _points("warm-up", range(first), warmup_s, "@dim", "circle-open"),
        _points("timed", [first + i for i in near], [steps_s[i] for i in near], "@measured", "diamond"),
        _points("outlier", [first + i for i in far], [steps_s[i] for i in far], "@bad", "x"),
    ]
    layout: dict[str, Any] = {
        "height": 360,
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": "seconds"}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 40, "b": 56},
    }
    caption = "Seconds of every step, in the order in which they ran."
    if predicted is not None:
        caption += " The line is the predicted time, the band its 80% interval."
        layout |= _band(predicted)
    kinds = ["warm-up"] * first + ["outlier" if i in far else "timed" for i in range(len(steps_s))]
    rows = [(i, kind, s) for i, (kind, s) in enumerate(zip(kinds, (*warmup_s, *steps_s), strict=True))]
    return Figure(
        id="step-times", caption=caption, evidence=evidence, data=[t for t in traces if t["x"]], layout=layout,
        numbers=number_table(caption, ("step", "kind", "seconds"), rows),
    )  # fmt: skip


def _points(name: str, xs: Sequence[int], ys: Sequence[float], colour: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": list(xs), "y": list(ys),
        "marker": {"size": 9, "color": colour, "symbol": symbol},
        "hovertemplate": f"step %{{x}}, {name}: %{{y:.4g}} s<extra></extra>",
    }  # fmt: skip


def _band(e: Estimate) -> dict[str, Any]:
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    shapes = [
        across
        | {"type": "line", "y0": e.step_time_s, "y1": e.step_time_s, "line": {"color": "@predicted", "width": 1.5}}
    ]
    if e.interval_80_s is not None:
        low, high = e.interval_80_s
        shapes.append(
            across
            | {"type": "rect", "y0": low, "y1": high, "fillcolor": "@predicted", "opacity": 0.12, "line": {"width": 0}}
        )
    return {"shapes": shapes}


def loss_figure(losses: Sequence[float], evidence: Evidence) -> Figure:
    """Loss after each step; all steps see one batch, so it should fall."""
    caption = "Loss of every step. All steps see the same batch, so it should fall."
    trace = {
        "type": "scatter", "mode": "lines+markers", "x": list(range(len(losses))), "y": list(losses),
        "line": {"color": COLOURS[2]}, "hovertemplate": "step %{x}: %{y:.4f}<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 300,
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": "loss, nats per token"}},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }
    rows = list(enumerate(losses))
    return Figure(
        id="loss", caption=caption, evidence=evidence, data=[trace], layout=layout, height_px=300,
        numbers=number_table(caption, ("step", "loss"), rows),
    )  # fmt: skip
