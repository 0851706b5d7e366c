"""Constants of a software stack before and after they were fitted, each with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxscale.report.figures.marks import COLOURS, plain
from jaxscale.report.page import Evidence, Figure, number_table


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedConstant:
    """One constant: what it was, what it is now and the ends of its 80% interval, in its own unit."""

    name: str
    before: float
    value: float
    low: float
    high: float
    source: str  # of the prior


def constants_figure(constants: Sequence[FittedConstant], evidence: Evidence) -> Figure:
    """Every fitted constant over what it was before, so that all share one axis; one is "as before"."""
    shown = [c for c in constants if c.before > 0 and c.value > 0]
    names = [plain(c.name) for c in shown]
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "y": names, "x": [c.value / c.before for c in shown],
        "marker": {"size": 10, "color": COLOURS[0]},
        "error_x": {
            "type": "data", "symmetric": False, "array": [(c.high - c.value) / c.before for c in shown],
            "arrayminus": [(c.value - c.low) / c.before for c in shown], "color": COLOURS[0], "thickness": 2,
        },
        "hovertemplate": [
            f"{plain(c.name)}: {c.value:.4g}, 80% {c.low:.4g} to {c.high:.4g}<br>before {c.before:.4g}<extra></extra>"
            for c in shown
        ],
    }  # fmt: skip
    height = 110 + 28 * len(shown)
    as_before = {
        "type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1,
        "line": {"color": "@fg", "width": 1, "dash": "dot"},
    }  # fmt: skip
    layout = {
        "height": height,
        "xaxis": {"title": {"text": "fitted over before (log)"}, "type": "log"},
        "yaxis": {"type": "category", "range": [len(shown) - 0.4, -0.6]},
        "margin": {"l": 40, "r": 24, "t": 8, "b": 56},
        "shapes": [as_before],
    }
    caption = (
        "Fitted constants over what they were before, with 80% intervals; on the dotted line a run changed nothing."
    )
    rows = [(c.name, c.before, c.value, c.low, c.high, c.source) for c in constants]
    return Figure(
        id="constants", caption=caption, evidence=evidence, data=[trace], layout=layout, height_px=height,
        numbers=number_table("Fitted constants.", ("constant", "before", "value", "low", "high", "prior from"), rows),
    )  # fmt: skip
