"""Scaling laws and what they make of a budget: frontier, contours of equal loss, regret, costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxscale.plan.budget.front import Alternative, front_of
from jaxscale.plan.budget.planner import Plan
from jaxscale.plan.laws import LAWS, laws_for
from jaxscale.plan.panel import Allocation, best_loss, loss_of
from jaxscale.report.figures.marks import COLOURS, HATCHES, ORANGE_TO_BLUE, SEQUENTIAL, count_bars, plain
from jaxscale.report.page import Evidence, Figure, number_table

POINTS = 40
CONTOURS_PX, NAME_PX = 448, 17  # height of the plot without its margins, and of a line of text in it
NAME_SHARE = 0.29  # of the plot's width, so that the longest name has room on a phone
DASHES = ("solid", "dash", "dot", "dashdot")
LEGEND = {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "font": {"size": 11}}


def frontier_figure(plan: Plan, evidence: Evidence) -> Figure:
    """The least loss that each law sees in a budget, and the plan's point under each."""
    d = plan.decision
    budgets = np.geomspace(d.flops / 1e3, d.flops * 1e2, POINTS)
    traces: list[dict[str, Any]] = []
    rows = []
    for i, law in enumerate(laws_for("loss")):
        colour = COLOURS[i % len(COLOURS)]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": plain(law.title), "x": budgets.tolist(),
                "y": [best_loss(law, c) for c in budgets.tolist()],
                "line": {"color": colour, "dash": DASHES[i % len(DASHES)]},
                "hovertemplate": f"{plain(law.title)}<br>%{{x:.3g}} FLOPs: %{{y:.3f}}<extra></extra>",
            }
        )  # fmt: skip
        if law.name in d.losses:
            traces.append(_star(f"the plan under {law.title}", d.flops, d.losses[law.name], colour))
    for name, loss in d.losses.items():
        rows.append((name, d.flops, loss))
        if name not in {law.name for law in laws_for("loss")}:
            traces.append(_star(f"the plan under {name}", d.flops, loss, "@accent"))
    layout = {
        "height": 480,
        "xaxis": {"type": "log", "title": {"text": "training FLOPs, 6ND (log)"}, "dtick": 1},
        "yaxis": {"title": {"text": "loss, nats per token"}},
        "legend": LEGEND,
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }
    caption = (
        "Loss against compute: the least that each law sees, and this plan as a star under each. A law's loss is that "
        "of its own data, so lines of different laws do not compare."
    )
    numbers = number_table("The plan under each law.", ("law", "FLOPs", "loss, nats per token"), rows)
    return Figure(
        id="frontier", caption=caption, evidence=evidence, data=traces, layout=layout, numbers=numbers, height_px=480
    )


def _star(name: str, x: float, y: float, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": plain(name), "x": [x], "y": [y], "showlegend": False,
        "marker": {"size": 15, "symbol": "star", "color": colour, "line": {"color": "@fg", "width": 1}},
        "hovertemplate": f"{plain(name)}<br>%{{x:.3g}} FLOPs: %{{y:.3f}}<extra></extra>",
    }  # fmt: skip


def contours_figure(plan: Plan, evidence: Evidence) -> Figure:
    """Equal loss over parameters and tokens under the reference law, with every law's answer."""
    d = plan.decision
    params = np.geomspace(d.params / 30, d.params * 30, POINTS)
    tokens = np.geomspace(d.tokens / 30, d.tokens * 30, POINTS)
    law = LAWS["besiroglu"]
    loss = [[loss_of(law, n, t) for n in params.tolist()] for t in tokens.tolist()]
    answers = d.allocations
    traces = [
        {
            "type": "contour", "x": params.tolist(), "y": tokens.tolist(), "z": loss, "ncontours": 25,
            "colorscale": ORANGE_TO_BLUE, "contours": {"coloring": "lines", "showlabels": True},
            "line": {"width": 1.2}, "showscale": False,
            "hovertemplate": "%{x:.3g} parameters on %{y:.3g} tokens: %{z:.3f}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "lines", "name": "this budget", "x": params.tolist(),
            "y": (d.flops / (6.0 * params)).tolist(), "line": {"color": "@fg", "dash": "dot", "width": 1.5},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "name": "laws", "x": [a.params for a in answers],
            "y": [a.tokens for a in answers], "text": [plain(a.law) for a in answers],
            "marker": {"size": 9, "color": COLOURS[1], "line": {"color": "@bg", "width": 1}},
            "hovertemplate": "%{text}: %{x:.3g} parameters on %{y:.3g} tokens<extra></extra>",
        },
        _star("the plan", d.params, d.tokens, "@accent") | {"showlegend": True},
    ]  # fmt: skip
    layout = {
        "height": 520,
        "xaxis": {"type": "log", "title": {"text": "parameters (log)"}, "range": _log_range(params), "dtick": 1},
        "yaxis": {"type": "log", "title": {"text": "tokens (log)"}, "range": _log_range(tokens), "dtick": 1},
        "legend": LEGEND,
        "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
        "annotations": _law_names(answers, params, tokens),
    }
    caption = f"Lines of equal loss under {law.title}, the sizes that this budget buys, and what each law would train."
    rows = [(a.title, a.params, a.tokens, a.tokens_per_param) for a in answers]
    numbers = number_table("What each law would train.", ("law", "parameters", "tokens", "tokens a parameter"), rows)
    return Figure(
        id="contours", caption=caption, evidence=evidence, data=traces, layout=layout, numbers=numbers, height_px=520
    )


def _law_names(answers: Sequence[Allocation], params: np.ndarray, tokens: np.ndarray) -> list[dict[str, Any]]:
    """Names in a column at the right, each with a line from its left end to its point.

    All points lie on the line of the budget, which falls to the right, so that the column is clear of it, and lines
    from points in order of height to names in the same order do not cross. A log axis takes places as logarithms.
    """
    (left, right), (low, top) = _log_range(params), _log_range(tokens)
    column = right - NAME_SHARE * (right - left)
    spacing = NAME_PX / CONTOURS_PX * (top - low)
    return [
        {
            "x": float(np.log10(a.params)), "y": float(np.log10(a.tokens)), "axref": "x", "ayref": "y", "ax": column,
            "ay": top - spacing * (i + 0.7), "text": plain(a.law), "xanchor": "left", "yanchor": "middle",
            "showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": "@dim", "standoff": 5, "bgcolor": "@bg",
            "borderpad": 1, "font": {"size": 11},
        }
        for i, a in enumerate(sorted(answers, key=lambda a: -a.tokens))
    ]  # fmt: skip


def _log_range(values: np.ndarray) -> list[float]:
    return np.log10(values[[0, -1]]).tolist()


def regret_figure(plan: Plan, evidence: Evidence) -> Figure:
    """Compute wasted if one law allocates and another is true."""
    r = plan.decision.regret
    wasted = (100.0 * np.array(r.wasted)).tolist()
    trace = {
        "type": "heatmap", "x": [plain(t) for t in r.truths], "y": [plain(name) for name in r.laws], "z": wasted,
        "text": [[f"{w:.1f}%" for w in row] for row in wasted], "texttemplate": "%{text}", "colorscale": SEQUENTIAL,
        "hovertemplate": "%{y} allocates, %{x} is true: %{text} wasted<extra></extra>", "showscale": False,
    }  # fmt: skip
    height = 120 + 30 * len(r.laws)
    layout = {
        "height": height,
        "xaxis": {"title": {"text": "true"}},
        "yaxis": {"title": {"text": "chosen"}},
        "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
    }
    caption = (
        "Compute wasted if the row allocates and the column is true; the plan follows the row of least worst case."
    )
    rows = [(law, *row, 100.0 * worst) for law, row, worst in zip(r.laws, wasted, r.worst, strict=True)]
    numbers = number_table("Compute wasted, %.", ("chosen", *r.truths, "worst"), rows)
    return Figure(
        id="regret", caption=caption, evidence=evidence, data=[trace], layout=layout, numbers=numbers, height_px=height
    )


def sensitivity_figure(wasted: Mapping[float, float], evidence: Evidence) -> Figure:
    """Compute wasted for training alone if the model were another size."""
    sizes = sorted(wasted)
    trace = {
        "type": "scatter", "mode": "lines+markers", "x": [*sizes], "y": [100.0 * wasted[size] for size in sizes],
        "line": {"color": COLOURS[0]}, "hovertemplate": "%{x:g} times the size: %{y:.1f}% wasted<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 300,
        "xaxis": {
            "type": "log", "title": {"text": "times the planned size (log)"}, "tickvals": sizes,
            "ticktext": [f"{size:g}" for size in sizes],
        },
        "yaxis": {"title": {"text": "compute wasted, %"}, "rangemode": "tozero"},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }  # fmt: skip
    caption = "What it would cost to train another size with the same compute."
    rows = [(size, 100.0 * wasted[size]) for size in sizes]
    return Figure(
        id="sensitivity", caption=caption, evidence=evidence, data=[trace], layout=layout, height_px=300,
        numbers=number_table(caption, ("times the size", "wasted, %"), rows),
    )  # fmt: skip


def fronts_figure(
    points: Sequence[Alternative], unit: str, chosen: tuple[float, float, float], evidence: Evidence
) -> Figure:
    """Least loss for a cost: of training alone, and of training and serving; `chosen` is the plan's loss and costs."""
    kinds = (("training", False, COLOURS[0], HATCHES[0]), ("training and serving", True, COLOURS[1], HATCHES[1]))
    traces: list[dict[str, Any]] = []
    rows = []
    for (name, lifetime, colour, _), dash, symbol in zip(kinds, DASHES, ("circle", "square"), strict=False):
        front = front_of(points, lifetime=lifetime)
        costs = [p.lifetime_cost if lifetime else p.training_cost for p in front]
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": costs, "y": [p.loss for p in front],
                "line": {"color": colour, "dash": dash}, "marker": {"symbol": symbol, "size": 7},
                "text": [f"{p.params:.3g} parameters on {p.tokens:.3g} tokens" for p in front],
                "hovertemplate": f"%{{text}}<br>{name}: %{{x:.3g}} {unit}, loss %{{y:.3f}}<extra></extra>",
            }
        )  # fmt: skip
        rows += [(name, cost, p.loss, p.params, p.tokens) for cost, p in zip(costs, front, strict=True)]
        traces.append(_star(f"the plan, {name}", chosen[2 if lifetime else 1], chosen[0], colour))
    layout = {
        "height": 460,
        "hovermode": "closest",
        "xaxis": {"type": "log", "title": {"text": f"{unit} (log)"}, "dtick": 1},
        "yaxis": {"title": {"text": "loss, nats per token"}},
        "legend": LEGEND,
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }
    caption = (
        "Least loss for its cost around the plan, by what training costs and by what training and then serving costs, "
        "at the plan's utilisation."
    )
    numbers = number_table(caption, ("cost of", unit, "loss", "parameters", "tokens"), rows)
    return Figure(
        id="fronts", caption=caption, evidence=evidence, data=traces, layout=layout, numbers=numbers, height_px=460
    )


def lifetime_figure(
    points: Sequence[Alternative], unit: str, chosen: tuple[float, float], evidence: Evidence
) -> Figure:
    """What an alternative costs to train against what it costs with its serving, coloured by loss."""
    trace = {
        "type": "scatter", "mode": "markers", "name": "alternatives", "x": [p.training_cost for p in points],
        "y": [p.lifetime_cost for p in points],
        "text": [f"{p.params:.3g} parameters on {p.tokens:.3g} tokens, loss {p.loss:.3f}" for p in points],
        "marker": {
            "size": 9, "color": [p.loss for p in points], "colorscale": SEQUENTIAL, "showscale": True,
            "colorbar": {"title": {"text": "loss"}, "thickness": 12}, "line": {"color": "@dim", "width": 0.5},
        },
        "hovertemplate": f"%{{text}}<br>training %{{x:.3g}}, with serving %{{y:.3g}} {unit}<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 420,
        "showlegend": False,
        "hovermode": "closest",
        "xaxis": {"type": "log", "title": {"text": f"{unit} to train (log)"}, "dtick": 1},
        "yaxis": {"type": "log", "title": {"text": f"{unit} to train and serve (log)"}, "dtick": 1},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 56},
    }
    caption = (
        "What it costs to train against what it costs with all serving, of every size and token count on a front; the "
        "star is the plan. The same loss is cheaper to own where a smaller model was trained for longer."
    )
    rows = [(p.params, p.tokens, p.loss, p.training_cost, p.lifetime_cost) for p in points]
    header = ("parameters", "tokens", "loss", f"{unit} to train", f"{unit} with serving")
    return Figure(
        id="lifetime", caption=caption, evidence=evidence, data=[trace, _star("the plan", *chosen, "@accent")],
        layout=layout, numbers=number_table("Alternatives to the plan.", header, rows), height_px=420,
    )  # fmt: skip


def cost_figure(parts: Mapping[str, float], unit: str, evidence: Evidence) -> Figure:
    """Where the run's hours or money go."""
    return count_bars("cost", f"Where the run's {unit} go.", evidence, parts, unit)
