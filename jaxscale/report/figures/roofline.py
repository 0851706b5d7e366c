"""Every op under the roof that its chip sets: FLOP/s reached against FLOPs for each byte of memory traffic.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model", CACM 52(4), 2009.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxscale.report.figures.marks import COLOURS, plain
from jaxscale.report.page import Evidence, Figure, number_table

SMALLEST_PX, LARGEST_PX = 8.0, 30.0
BACKWARD = ", backward"  # ends the name and the kind of a point of the backward pass


@dataclass(frozen=True, slots=True, kw_only=True)
class OpPoint:
    """One op of one device: FLOPs, bytes of device memory and seconds of one run, and its runs a step."""

    name: str
    kind: str  # matmul, attention, elementwise ...
    flops: float
    num_bytes: float
    seconds: float
    runs: float

    @property
    def step_s(self) -> float:
        """Seconds of all its runs."""
        return self.seconds * self.runs

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.num_bytes

    @property
    def flops_per_s(self) -> float:
        """FLOP/s reached."""
        return self.flops / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What one device can do at most, by its data sheet."""

    flops_per_s: float
    bytes_per_s: float

    def at(self, intensity: float) -> float:
        """FLOP/s at most at a number of FLOPs for each byte."""
        return min(self.flops_per_s, intensity * self.bytes_per_s)


def roofline_figure(points: Sequence[OpPoint], roof: Roof, caption: str, evidence: Evidence) -> Figure:
    """Ops as points under the roof; a point's area is its share of the step."""
    kept = [p for p in points if p.flops > 0 and p.num_bytes > 0 and p.seconds > 0]
    longest = max((p.step_s for p in kept), default=1.0)
    kinds = list(dict.fromkeys(p.kind for p in kept))
    colours = dict(zip(dict.fromkeys(map(_of_both_passes, kinds)), COLOURS, strict=False))
    traces = [_roof_trace(kept, roof)]
    traces += [
        _kind_trace([p for p in kept if p.kind == kind], kind, colours[_of_both_passes(kind)], longest, roof)
        for kind in kinds
    ]
    layout: dict[str, Any] = {
        "height": 460,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "FLOPs for each byte of device memory (log)"}, "type": "log", "dtick": 1},
        "yaxis": {"title": {"text": "TFLOP/s of one device (log)"}, "type": "log", "dtick": 1},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "itemsizing": "constant"},
        "margin": {"l": 64, "r": 16, "t": 48, "b": 56},
    }
    rows = [_row(p, roof) for p in sorted(kept, key=lambda p: -p.step_s)]
    header = ("op", "kind", "FLOPs", "bytes", "FLOPs a byte", "TFLOP/s", "of the roof, %", "ms a step")
    return Figure(
        id="roofline", caption=caption, evidence=evidence, data=traces, layout=layout, height_px=460,
        numbers=number_table("Ops, longest first.", header, rows),
    )  # fmt: skip


def _of_both_passes(kind: str) -> str:
    """The kind of an op, whichever pass: the two share a colour and differ in shape."""
    return kind.removesuffix(BACKWARD)


def _row(p: OpPoint, roof: Roof) -> tuple[float | str, ...]:
    reached = 100.0 * p.flops_per_s / roof.at(p.intensity)
    return (p.name, p.kind, p.flops, p.num_bytes, p.intensity, p.flops_per_s / 1e12, reached, 1e3 * p.step_s)


def _roof_trace(points: Sequence[OpPoint], roof: Roof) -> dict[str, Any]:
    ridge = roof.flops_per_s / roof.bytes_per_s
    reach = [p.intensity for p in points] or [ridge]
    ends = np.geomspace(min(min(reach), ridge) / 2.0, max(max(reach), ridge) * 2.0, 60)
    xs = sorted({*ends.tolist(), ridge})
    return {
        "type": "scatter", "mode": "lines", "name": "the chip's roof", "x": xs, "y": [roof.at(x) / 1e12 for x in xs],
        "line": {"color": "@fg", "width": 1.5}, "hoverinfo": "skip",
    }  # fmt: skip


def _kind_trace(points: Sequence[OpPoint], kind: str, colour: str, longest_s: float, roof: Roof) -> dict[str, Any]:
    hover = [
        f"<b>{plain(p.name)}</b><br>{p.intensity:.3g} FLOPs a byte<br>{p.flops_per_s / 1e12:.3g} TFLOP/s, "
        f"{p.flops_per_s / roof.at(p.intensity):.0%} of the roof<br>{1e3 * p.step_s:.3g} ms a step<extra></extra>"
        for p in points
    ]
    shape = "diamond" if kind.endswith(BACKWARD) else "circle"
    sizes = [max(SMALLEST_PX, LARGEST_PX * math.sqrt(p.step_s / longest_s)) for p in points]
    return {
        "type": "scatter", "mode": "markers", "name": plain(kind), "x": [p.intensity for p in points],
        "y": [p.flops_per_s / 1e12 for p in points], "hovertemplate": hover,
        "marker": {
            "symbol": shape, "size": sizes, "color": colour, "opacity": 0.75, "line": {"color": "@bg", "width": 1},
        },
    }  # fmt: skip
