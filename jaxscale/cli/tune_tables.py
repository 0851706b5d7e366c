"""What `jaxscale tune` found, as JSON, as tables on the terminal and as a report."""

import math
from typing import TYPE_CHECKING

from jaxscale.cli.common import Request
from jaxscale.types import AXES
from jaxscale.units import format_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from jaxscale.report.page import Page
    from jaxscale.study.tuning import Trial, TuneResult

MOST_EFFECTS = 5
NORMAL_80 = 1.2816  # half-width of a central 80% interval in standard deviations


def to_json(request: Request, result: "TuneResult") -> dict:
    """The result as `--json` prints it."""
    best = result.best
    return {
        "model": request.shape.name,
        "cluster": request.cluster.name,
        "best": _trial_json(result, best) if best else None,
        "stopped": result.stopped,
        "expected_gain_of_one_more": result.gain,
        "runs": [_trial_json(result, trial) for trial in result.trials],
        "runs_from_store": result.num_known,
        "num_candidates": len(result.candidates),
        "predictor": {
            "scale": result.scale,
            "spread": result.spread,
            "effects": [
                {"feature": e.feature, "log_time": e.log_time, "deviation": e.deviation, "share": e.share}
                for e in result.effects
            ],
        },
    }


def _trial_json(result: "TuneResult", trial: "Trial") -> dict:
    predicted_s = result.predicted_s(trial.layout)
    return {
        "layout": str(trial.layout), "step_time_s": trial.seconds, "predicted_s": predicted_s, "message": trial.message,
    }  # fmt: skip


def show(request: Request, result: "TuneResult", address: str | None) -> None:
    """Print the best layout, every run, and what was learned."""
    from jaxscale.report.terminal import console, title

    out = console()
    out.print(title(request.shape, request.workload, request.cluster))
    best = result.best
    if best is not None and best.seconds is not None:
        first = result.trials[0]
        saved = f", {1 - best.seconds / first.seconds:.1%} less than the first" if first.seconds else ""
        out.print(f"[bold]{format_seconds(best.seconds)}[/] {best.layout}{saved}")
    out.print()
    out.print(_runs_table(result))
    out.print()
    out.print(_why(result))
    out.print(_learned(result))
    if address:
        out.print(f"Runs are in {address}; the same command goes on from there.")


def _runs_table(result: "TuneResult") -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("run", "step", "predicted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("layout")
    for number, trial in enumerate(result.trials, start=1):
        best = trial is result.best
        took = format_seconds(trial.seconds) if trial.seconds is not None else trial.message.partition(":")[0]
        layout = str(trial.layout).replace(",", ", ")  # so that it can be wrapped
        if trial.seconds is None:
            layout += f"\n{trial.message}"
        predicted = format_seconds(result.predicted_s(trial.layout))
        table.add_row(str(number), took, predicted, layout, style="bold" if best else None)
    return table


def _why(result: "TuneResult") -> str:
    runs = f"{len(result.trials)} of {len(result.candidates)} layouts were measured"
    if result.num_known:
        runs += f" ({result.num_known} of them before)"
    gain = f"one more run is expected to save {result.gain:.2%}"
    return (
        f"{runs}; "
        + {
            "budget": f"the budget is spent, {gain}.",
            "gain": f"{gain}, which is not worth it.",
            "exhausted": "no other is left.",
        }[result.stopped]
    )


def _learned(result: "TuneResult") -> str:
    """What the predictor gets wrong, in sentences."""
    if result.scale is None or result.spread is None:
        return "Nothing ran, so nothing is known of the predictor."
    lines = [
        f"Measured over predicted: {result.scale:.3g} at the median, +- {result.spread:.1%} from layout to layout."
    ]
    for e in result.effects[:MOST_EFFECTS]:
        slower = "slower" if e.log_time > 0 else "faster"
        lines.append(
            f"  {_words(e.feature)}: {abs(math.expm1(e.log_time)):.0%} {slower} than predicted "
            f"(+- {e.deviation:.0%}; {e.share:.0%} of what can be told apart)"
        )
    return "\n".join(lines)


def _words(feature: str) -> str:
    """A feature as a step of it reads: a doubling of a degree, or a choice."""
    doubled = (*AXES, "microbatch", "virtual_stages", "saved_ops")
    return f"each doubling of {feature}" if feature in doubled else feature.replace("schedule_", "schedule ")


def page(request: Request, result: "TuneResult") -> "Page":
    """The report of a tuning run."""
    from jaxscale.report.figures.tuning import Candidate, Effect
    from jaxscale.report.kinds.shared import Subject
    from jaxscale.report.kinds.tune import TuneFacts, tune_page

    numbers = {trial.layout: number for number, trial in enumerate(result.trials, start=1)}
    rows = []
    for row, c in enumerate(result.candidates):
        number = numbers.get(c.layout, 0)
        trial = result.trials[number - 1] if number else None
        rows.append(
            Candidate(
                label=str(c.layout), prior_s=c.predicted_s, prior_80_s=_interval(c.predicted_s, result.sigma_log),
                posterior_s=math.exp(result.belief.log_s[row]),
                posterior_80_s=_interval(math.exp(result.belief.log_s[row]), float(result.belief.deviation[row])),
                trial=number, measured_s=trial.seconds if trial else None, message=trial.message if trial else "",
            )
        )  # fmt: skip
    effects = [
        Effect(feature=e.feature, log_time=e.log_time, deviation=e.deviation, share=e.share) for e in result.effects
    ]
    facts = TuneFacts(
        stopped=result.stopped, expected_gain=result.gain, num_from_store=result.num_known,
        sigma_log=result.sigma_log, scale=result.scale,
    )  # fmt: skip
    return tune_page(
        Subject(shape=request.shape, workload=request.workload, cluster=request.cluster), rows, effects, facts
    )


def _interval(seconds: float, deviation: float) -> tuple[float, float]:
    spread = math.exp(NORMAL_80 * deviation)
    return seconds / spread, seconds * spread
