"""Plots of a fit as one self-contained HTML file: isoFLOP curves, residuals, predicted against measured."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxscale.plan.fit.engine import Fit

_CURVE_POINTS = 80


def figures(fit: Fit) -> list[Any]:
    """Plotly figures of a loss fit."""
    return [_isoflop_curves(fit), _residuals(fit), _parity(fit)]


def write_html(path: Path | str, figures: list[Any], title: str) -> None:
    """Write figures one below the other into an HTML file that needs no network."""
    parts = [figure.to_html(full_html=False, include_plotlyjs=index == 0) for index, figure in enumerate(figures)]
    head = f"<!doctype html><html><head><meta charset='utf-8'><title>{title}</title></head>"
    Path(path).write_text(f"{head}<body>{''.join(parts)}</body></html>", encoding="utf-8")


def _isoflop_curves(fit: Fit) -> Any:
    """Measured losses over model size, coloured by compute, with the fitted curve of constant compute through them."""
    import plotly.graph_objects as go

    params, tokens, loss = (fit.columns[name] for name in ("params", "tokens", "loss"))
    flops = 6.0 * params * tokens
    figure = go.Figure(
        go.Scatter(
            x=params, y=loss, mode="markers", name="runs",
            marker={"color": np.log10(flops), "colorscale": "Viridis", "colorbar": {"title": "log10 FLOPs"}},
        )
    )  # fmt: skip
    if not {"unique_tokens"} & set(fit.form.columns):
        sizes = np.geomspace(params.min(), params.max(), _CURVE_POINTS)
        for budget in np.geomspace(flops.min(), flops.max(), 9)[1:-1]:
            curve = fit.predict(sizes, budget / (6.0 * sizes))
            inside = curve <= loss.max() * 1.05
            figure.add_scatter(
                x=sizes[inside], y=curve[inside], mode="lines", name=f"{budget:.1e} FLOPs", line={"width": 1}
            )
    figure.update_layout(
        title=f"isoFLOP curves: {fit.form.formula}", xaxis_title="parameters", yaxis_title="loss, nats per token"
    )
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure


def _residuals(fit: Fit) -> Any:
    import plotly.graph_objects as go

    flops = 6.0 * fit.columns["params"] * fit.columns["tokens"]
    figure = go.Figure(go.Scatter(x=flops, y=100.0 * fit.residuals, mode="markers", name="runs"))
    figure.add_hline(y=0.0, line_width=1)
    figure.update_layout(title="Residuals", xaxis_title="FLOPs", yaxis_title="ln(loss) - ln(predicted), %")
    figure.update_xaxes(type="log")
    return figure


def _parity(fit: Fit) -> Any:
    import plotly.graph_objects as go

    loss = fit.columns["loss"]
    predicted = loss * np.exp(-fit.residuals)
    ends = [float(loss.min()), float(loss.max())]
    figure = go.Figure(go.Scatter(x=loss, y=predicted, mode="markers", name="runs"))
    figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"width": 1})
    figure.update_layout(title="Predicted against measured", xaxis_title="measured loss", yaxis_title="predicted loss")
    return figure
