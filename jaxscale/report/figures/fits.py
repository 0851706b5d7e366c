"""A fitted scaling law against its runs: curves of equal compute, residuals, fitted against measured."""

from typing import Any

import numpy as np

from jaxscale.plan.fit.engine import Fit
from jaxscale.report.figures.marks import COLOURS, SEQUENTIAL
from jaxscale.report.page import Evidence, Figure, number_table

CURVE_POINTS, CURVES = 80, 7
AS_MEASURED = {"color": "@fg", "width": 1, "dash": "dot"}


def isoflop_figure(fit: Fit, evidence: Evidence) -> Figure:
    """Measured losses over model size, coloured by compute, with the fitted curves of constant compute through them."""
    params, tokens, loss = (fit.columns[name] for name in ("params", "tokens", "loss"))
    flops = 6.0 * params * tokens
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": "runs", "x": params.tolist(), "y": loss.tolist(),
            "showlegend": False, "text": [f"{c:.3g} FLOPs" for c in flops.tolist()],
            "marker": {
                "color": np.log10(flops).tolist(), "colorscale": SEQUENTIAL, "size": 7,
                "line": {"color": "@dim", "width": 0.5},
                "colorbar": {"title": {"text": "log10 FLOPs"}, "thickness": 12},
            },
            "hovertemplate": "%{x:.3g} parameters, %{text}: %{y:.3f}<extra></extra>",
        }
    ]  # fmt: skip
    if "unique_tokens" not in fit.form.columns:
        traces += _curves(fit, params, flops, float(loss.max()))
    layout = {
        "height": 460,
        "hovermode": "closest",
        "xaxis": {"type": "log", "title": {"text": "parameters (log)"}, "dtick": 1},
        "yaxis": {"title": {"text": "loss, nats per token"}},
        "showlegend": False,
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }
    caption = f"Loss over model size, with curves of equal compute of the fitted law: {fit.form.formula}."
    rows = list(zip(params.tolist(), tokens.tolist(), flops.tolist(), loss.tolist(), strict=True))
    numbers = number_table("The runs.", ("parameters", "tokens", "FLOPs", "loss, nats per token"), rows)
    return Figure(
        id="isoflop", caption=caption, evidence=evidence, data=traces, layout=layout, numbers=numbers, height_px=460
    )


def _curves(fit: Fit, params: np.ndarray, flops: np.ndarray, highest: float) -> list[dict[str, Any]]:
    """The fitted law at a few budgets; where it leaves the measured losses it is not drawn."""
    sizes = np.geomspace(params.min(), params.max(), CURVE_POINTS)
    curves = []
    for budget in np.geomspace(flops.min(), flops.max(), CURVES + 2)[1:-1].tolist():
        loss = fit.predict(sizes, budget / (6.0 * sizes))
        inside = loss <= highest * 1.05
        curves.append(
            {
                "type": "scatter", "mode": "lines", "name": f"{budget:.1e} FLOPs", "x": sizes[inside].tolist(),
                "y": loss[inside].tolist(), "line": {"width": 1, "color": "@dim"},
                "hovertemplate": f"{budget:.1e} FLOPs: %{{y:.3f}}<extra></extra>",
            }
        )  # fmt: skip
    return curves


def residuals_figure(fit: Fit, evidence: Evidence) -> Figure:
    """How far each run lies from the fit, over its compute: a slope means that the law bends another way."""
    flops = (6.0 * fit.columns["params"] * fit.columns["tokens"]).tolist()
    away = (100.0 * fit.residuals).tolist()
    trace = {
        "type": "scatter", "mode": "markers", "x": flops, "y": away, "marker": {"color": COLOURS[0], "size": 7},
        "hovertemplate": "%{x:.3g} FLOPs: %{y:+.2f}%<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 340,
        "xaxis": {"type": "log", "title": {"text": "FLOPs (log)"}, "dtick": 1},
        "yaxis": {"title": {"text": "ln of measured over fitted loss, %"}},
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": AS_MEASURED}],
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }
    caption = "Residuals over compute: a slope or a bend is what the form of the law cannot follow."
    numbers = number_table(caption, ("FLOPs", "residual, %"), list(zip(flops, away, strict=True)))
    return Figure(
        id="residuals", caption=caption, evidence=evidence, data=[trace], layout=layout, numbers=numbers, height_px=340
    )


def fitted_figure(fit: Fit, evidence: Evidence) -> Figure:
    """Fitted against measured loss."""
    loss = fit.columns["loss"]
    fitted = loss * np.exp(-fit.residuals)
    ends = [float(loss.min()), float(loss.max())]
    traces = [
        {
            "type": "scatter", "mode": "markers", "x": loss.tolist(), "y": fitted.tolist(),
            "marker": {"color": COLOURS[0], "size": 7},
            "hovertemplate": "measured %{x:.3f}, fitted %{y:.3f}<extra></extra>",
        },
        {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "line": AS_MEASURED, "hoverinfo": "skip"},
    ]  # fmt: skip
    layout = {
        "height": 420,
        "showlegend": False,
        "xaxis": {"title": {"text": "measured loss, nats per token"}},
        "yaxis": {"title": {"text": "fitted loss"}},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }
    caption = "Fitted against measured loss; on the dotted line both agree."
    numbers = number_table(caption, ("measured", "fitted"), list(zip(loss.tolist(), fitted.tolist(), strict=True)))
    return Figure(
        id="fitted", caption=caption, evidence=evidence, data=traces, layout=layout, numbers=numbers, height_px=420
    )
