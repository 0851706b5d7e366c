"""One quantity as predicted, compiled and measured, side by side with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxscale.report.figures.marks import TIER_SYMBOLS, limit_line, plain
from jaxscale.report.page import Evidence, Figure, number_table
from jaxscale.types import Estimate
from jaxscale.types.measurement import Measurement
from jaxscale.types.results import TierOfTruth
from jaxscale.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value of a quantity and how it came to be known; `low` and `high` bound it where something does."""

    label: str
    tier: TierOfTruth
    value: float
    low: float | None = None
    high: float | None = None
    bounds: str = ""  # what low and high are


def time_reading(label: str, e: Estimate) -> Reading:
    """Step time of an estimate in seconds, with its 80% interval, else its bounds of full and no overlap."""
    if e.interval_80_s is not None:
        low, high = e.interval_80_s
        return Reading(label=label, tier=e.tier, value=e.step_time_s, low=low, high=high, bounds="80% interval")
    return Reading(
        label=label, tier=e.tier, value=e.step_time_s, low=e.lower_s, high=e.upper_s, bounds="all or nothing overlapped"
    )


def measured_time(m: Measurement, label: str = "measured") -> Reading | None:
    """Median step time of a measurement, with the fastest and slowest step; None where no step was timed."""
    if m.median_s is None:
        return None
    low, high = min(m.step_times_s), max(m.step_times_s)
    return Reading(
        label=label, tier="measured", value=m.median_s, low=low, high=high, bounds="fastest and slowest step"
    )


def memory_reading(label: str, e: Estimate) -> Reading:
    """Peak memory of an estimate in bytes."""
    return Reading(label=label, tier=e.tier, value=e.memory_bytes)


def readings_figure(
    figure_id: str, caption: str, evidence: Evidence, readings: Sequence[Reading], *, unit: str, scale: float,
    limit: tuple[float, str] | None = None,
) -> Figure:  # fmt: skip
    """Readings as points on one axis, each with its interval; a tier has a colour and a symbol of its own."""
    known = [r for r in readings if math.isfinite(r.value)]
    height = 110 + 44 * len(known)
    layout: dict[str, Any] = {
        "height": height,
        "showlegend": False,
        "xaxis": {"title": {"text": unit}, "rangemode": "tozero"},
        "yaxis": {"range": [len(known) - 0.4, -0.8], "type": "category"},  # from the top down, room for a text above
        "margin": {"l": 40, "r": 24, "t": 24, "b": 56},
    }
    if limit is not None:
        layout |= limit_line(limit[0] / scale, limit[1])
    rows = [
        (r.label, r.tier, r.value / scale, *(math.nan if b is None else b / scale for b in (r.low, r.high)), r.bounds)
        for r in known
    ]
    header = ("which", "tier", "value", "low", "high", "what bounds it")
    return Figure(
        id=figure_id, caption=caption, evidence=evidence, data=[_trace(r, unit, scale) for r in known], layout=layout,
        numbers=number_table(f"{caption} In {unit}.", header, rows), height_px=height,
    )  # fmt: skip


def _trace(r: Reading, unit: str, scale: float) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers+text",
        "name": plain(r.label),
        "x": [r.value / scale],
        "y": [plain(r.label)],
        "text": [f"{r.value / scale:.4g}"],
        "textposition": "top center",
        "cliponaxis": False,
        "marker": {"size": 13, "symbol": TIER_SYMBOLS[r.tier], "color": f"@{r.tier}"},
        "hovertemplate": f"%{{y}}: %{{x:.4g}} {unit}<extra></extra>",
    }
    if r.low is None or r.high is None:
        return trace
    words = f"<br>{plain(r.bounds)}: {r.low / scale:.4g} to {r.high / scale:.4g} {unit}"
    return trace | {
        "hovertemplate": f"%{{y}}: %{{x:.4g}} {unit}{words}<extra></extra>",
        "error_x": {
            "type": "data", "symmetric": False, "array": [(r.high - r.value) / scale],
            "arrayminus": [(r.value - r.low) / scale], "color": f"@{r.tier}", "thickness": 2, "width": 6,
        },
    }  # fmt: skip


def time_readings_figure(readings: Sequence[Reading], evidence: Evidence) -> Figure:
    """Step times side by side."""
    caption = "Step time side by side, with what bounds it."
    return readings_figure("step-time", caption, evidence, readings, unit="seconds", scale=1.0)


def memory_readings_figure(readings: Sequence[Reading], limit_bytes: float, evidence: Evidence) -> Figure:
    """Peak memory side by side, against what a program can allocate."""
    limit = limit_bytes, f"limit {limit_bytes / GIB:.1f} GiB"
    caption = "Memory of one device at the peak, side by side."
    return readings_figure("memory", caption, evidence, readings, unit="GiB", scale=GIB, limit=limit)
