"""Plots of a plan: loss against compute with the frontier, contours of equal loss, regret, and where the money goes."""

from typing import Any

import numpy as np

from jaxscale.plan.budget.planner import Plan
from jaxscale.plan.budget.run import Run
from jaxscale.plan.laws import LAWS, laws_for
from jaxscale.plan.panel import best_loss, loss_of

_POINTS = 40


def figures(plan: Plan) -> list[Any]:
    """Plotly figures of a plan."""
    made = [_frontier(plan), _contours(plan), _regret(plan)]
    if plan.run is not None:
        made.append(_time_and_money(plan.run))
    return made


def _frontier(plan: Plan) -> Any:
    """The least loss that each law sees in a budget, and the plan's point under each."""
    import plotly.graph_objects as go

    d = plan.decision
    budgets = np.geomspace(d.flops / 1e3, d.flops * 1e2, _POINTS)
    figure = go.Figure()
    for law in laws_for("loss"):
        figure.add_scatter(x=budgets, y=[best_loss(law, c) for c in budgets], mode="lines", name=law.title)
    for name, loss in d.losses.items():
        figure.add_scatter(
            x=[d.flops], y=[loss], mode="markers", name=f"the plan under {name}", marker={"size": 11, "symbol": "star"}
        )
    figure.update_layout(
        title="Loss against compute", xaxis_title="training FLOPs (6ND)", yaxis_title="loss, nats per token"
    )
    figure.update_xaxes(type="log")
    return figure


def _contours(plan: Plan) -> Any:
    """Equal loss over parameters and tokens under the reference law, with every law's answer."""
    import plotly.graph_objects as go

    d = plan.decision
    params = np.geomspace(d.params / 30, d.params * 30, _POINTS)
    tokens = np.geomspace(d.tokens / 30, d.tokens * 30, _POINTS)
    law = LAWS["besiroglu"]
    loss = [[loss_of(law, n, t) for n in params] for t in tokens]
    figure = go.Figure(
        go.Contour(x=params, y=tokens, z=loss, ncontours=25, colorscale="Viridis", contours_coloring="lines")
    )
    figure.add_scatter(x=params, y=d.flops / (6.0 * params), mode="lines", name="this budget")
    answers = d.allocations
    figure.add_scatter(
        x=[a.params for a in answers], y=[a.tokens for a in answers], mode="markers+text", name="laws",
        text=[a.law for a in answers], textposition="top center",
    )  # fmt: skip
    figure.add_scatter(
        x=[d.params], y=[d.tokens], mode="markers", name="the plan", marker={"size": 12, "symbol": "star"}
    )
    figure.update_layout(title=f"Equal loss under {law.title}", xaxis_title="parameters", yaxis_title="tokens")
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure


def _regret(plan: Plan) -> Any:
    import plotly.graph_objects as go

    r = plan.decision.regret
    wasted = 100.0 * np.array(r.wasted)
    figure = go.Figure(
        go.Heatmap(
            x=list(r.truths),
            y=list(r.laws),
            z=wasted,
            text=np.round(wasted, 1),
            texttemplate="%{text}%",
            colorscale="Reds",
        )
    )
    figure.update_layout(
        title="Compute wasted if a row allocates and a column is true", xaxis_title="true", yaxis_title="chosen"
    )
    return figure


def _time_and_money(run: Run) -> Any:
    """One step by part, and the share of the run that failures and checkpoints take."""
    import plotly.graph_objects as go

    hours = 24.0 * run.days
    share = hours * run.goodput.share / run.estimate.step_time_s
    parts = {name: seconds * share for name, seconds in run.estimate.time_parts_s.items()}
    parts["failures and checkpoints"] = hours * (1.0 - run.goodput.share)
    scale = run.dollars / hours if run.dollars else 1.0
    figure = go.Figure(go.Bar(x=[value * scale for value in parts.values()], y=list(parts), orientation="h"))
    unit = "dollars" if run.dollars else "hours"
    figure.update_layout(title="Where the run goes", xaxis_title=unit)
    return figure
