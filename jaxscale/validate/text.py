"""Scores and residuals as text."""

import math
from collections.abc import Sequence

from jaxscale.validate.metrics import Scores
from jaxscale.validate.residuals import Level
from jaxscale.validate.runs import Refusal

BAR = 20  # characters of a residual's bar on either side
BAR_FULL = 0.2  # log error that fills it


def scores_text(rows: Sequence[Scores]) -> str:
    """The scores as a table of fixed width."""
    header = (
        f"{'source':20s} {'rows':>5s} {'refused':>7s} {'median':>7s} {'p90':>7s} {'bias':>7s} {'in 80%':>6s} "
        f"{'sweeps':>6s} {'rho':>5s} {'regret':>6s} {'precision':>9s} {'recall':>6s} {'accuracy':>8s} {'memory':>6s}"
    )
    lines = [header]
    for s in rows:
        lines.append(
            f"{s.name[:20]:20s} {s.predicted:5d} {s.refused:7d} {_percent(s.median_error):>7s} "
            f"{_percent(s.p90_error):>7s} {_percent(s.bias, sign=True):>7s} {_percent(s.coverage, digits=0):>6s} "
            f"{s.sweeps:6d} {_plain(s.spearman):>5s} {_percent(s.regret):>6s} "
            f"{_percent(s.oom_precision):>9s} {_percent(s.oom_recall):>6s} "
            f"{_percent(s.fit_accuracy):>8s} {_percent(s.memory_error):>6s}"
        )
    notes = (
        "median, p90, bias: error of step time; in 80%: measured times inside the stated interval; rho: Spearman",
        "within sweeps; regret: of the layout predicted fastest; precision, recall: of out of memory; accuracy: of",
        "fits or not; memory: median error of measured peaks.",
    )
    return "\n".join((*lines, "", *notes))


def _percent(value: float, *, digits: int = 1, sign: bool = False) -> str:
    if math.isnan(value):
        return "-"
    return f"{100 * value:+.{digits}f}%" if sign else f"{100 * value:.{digits}f}%"


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def refusals_text(refusals: Sequence[Refusal]) -> str:
    """How many rows were refused, and why, most frequent reason first."""
    reasons: dict[str, list[str]] = {}
    for refusal in refusals:
        reasons.setdefault(refusal.reason, []).append(refusal.id)
    ordered = sorted(reasons.items(), key=lambda item: -len(item[1]))
    lines = [f"{len(refusals)} rows refused"]
    for reason, ids in ordered:
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        lines.append(f"  {len(ids):5d}  {reason}  ({shown})")
    return "\n".join(lines)


def residuals_text(levels: Sequence[Level]) -> str:
    """Error against each factor as bars: left of the middle the prediction is too fast, right of it too slow."""
    lines = []
    factor = ""
    for level in levels:
        if level.factor != factor:
            factor = level.factor
            lines.append(f"\n{factor}")
        lines.append(
            f"  {level.label[:24]:24s} {level.runs:5d} {100 * level.bias:+6.1f}% |{_bar(level.bias)}| "
            f"{100 * level.median_error:5.1f}%"
        )
    return "\n".join(lines)


def _bar(bias: float) -> str:
    cells = min(BAR, round(abs(bias) / BAR_FULL * BAR))
    left = " " * (BAR - cells) + "#" * cells if bias < 0 else " " * BAR
    right = "#" * cells + " " * (BAR - cells) if bias >= 0 else " " * BAR
    return f"{left}:{right}"
