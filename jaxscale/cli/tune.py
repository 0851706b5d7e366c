"""`jaxscale tune`: the fastest layout on the devices at hand, found by measuring few."""

import contextlib
import functools
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import Request, json_option, print_json, request_options
from jaxscale.cli.measure import STORE_VARIABLE
from jaxscale.cli.progress import Bars
from jaxscale.cli.search import nothing_fits
from jaxscale.cli.sweep import measured
from jaxscale.errors import InfeasibleError, MeasurementError, SpecError
from jaxscale.search import parse_limits, search
from jaxscale.types import AXES, Estimate, Layout
from jaxscale.types.measurement import Measurement, MeasureRequest
from jaxscale.units import format_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from jaxscale.study import Store
    from jaxscale.study.pool import Pool
    from jaxscale.study.tuning import Trial, TuneResult

MOST_EFFECTS = 5


@click.command()
@request_options()
@click.option(
    "--budget-runs",
    default=12,
    show_default=True,
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Layouts to measure, those in the store included.",
)
@click.option(
    "--min-gain",
    default=0.002,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    metavar="F",
    help="Stop when one more run is expected to save less than this share of the best time.",
)
@click.option("--limit", "limits", multiple=True, metavar="L", help='Such as "tensor<=8,remat=full|dots". May repeat.')
@click.option(
    "--candidates",
    default=200,
    show_default=True,
    type=click.IntRange(1, 1000),
    metavar="K",
    help="The best K as predicted are considered.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    metavar="N",
    help="Measurements at once; several on one machine disturb each other.",
)
@click.option(
    "--steps", default=10, show_default=True, type=click.IntRange(1), metavar="N", help="Timed steps of a run."
)
@click.option(
    "--timeout",
    "timeout_s",
    default=600.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Seconds for one run.",
)
@click.option(
    "--store",
    "address",
    envvar=STORE_VARIABLE,
    metavar="FILE",
    show_envvar=True,
    help="Where runs are kept; what it has of the same program is not measured again.",
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(
    request: Request, budget_runs: int, min_gain: float, limits: tuple[str, ...], candidates: int, workers: int,
    steps: int, timeout_s: float, address: str | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find the fastest layout on the devices at hand by measuring few.

    \b
    jaxscale probe --cluster cpu:8 --output here.yaml
    jaxscale tune tiny.yaml --cluster here.yaml --seq-len 128 \\
        --global-batch-size 8 --precision fp32 --budget-runs 12 --store runs.db

    The predictor says where to begin; a Gaussian process learns where it is wrong and what does not run; the next
    layout is the one expected to improve most. With a store, the same command goes on where it was stopped.
    """
    if workers > 1 and request.cluster.chip.kind != "cpu":
        raise SpecError(f"--workers={workers}: the devices of {request.cluster.name} run one measurement at a time")
    from jaxscale.study.tuning import Candidate, tune

    ranked = _ranked(request, limits, candidates, quiet=quiet)
    choices = [
        Candidate(layout=e.layout, predicted_s=e.step_time_s, memory_frac=e.memory_bytes / e.memory_limit_bytes)
        for e in ranked
    ]
    with _store(address) as store, Bars(quiet=quiet) as bars:
        lab = _Lab(request=request, store=store, steps=steps, bars=bars)
        with lab.pool(workers, timeout_s) as pool:
            result = tune(
                choices, functools.partial(lab.measure, pool), budget_runs=budget_runs, min_gain=min_gain,
                sigma_log=own_stack(request.cluster, request.workload).sigma_log, parallel=workers,
                known=lab.known([choice.layout for choice in choices]),
                on_trial=functools.partial(_said, bars, budget_runs),
            )  # fmt: skip
    if as_json:
        print_json(to_json(request, result))
    else:
        _print(request, result, address)
    if result.best is None:
        raise MeasurementError(f"none of the {len(result.trials)} layouts that were tried ran: see above why")


def _ranked(request: Request, limits: tuple[str, ...], count: int, *, quiet: bool) -> Sequence[Estimate]:
    """The best layouts as predicted: the prior."""
    allowed = parse_limits(*(limits or request.search.limits))
    with Bars(quiet=quiet) as bars:
        found = search(
            request.shape, request.workload, request.cluster, stack=own_stack(request.cluster, request.workload),
            limits=allowed, top=count, progress=bars.searching(request.cluster.name),
        )  # fmt: skip
    if not found.ranked:
        raise InfeasibleError(nothing_fits(found, allowed))
    return found.top


@contextlib.contextmanager
def _store(address: str | None) -> Iterator["Store"]:
    """The store that was named, else one that lasts as long as this command."""
    from jaxscale.study import Store

    with tempfile.TemporaryDirectory(prefix="jaxscale-tune-") as folder:
        store = Store(address or os.path.join(folder, "runs.db"))
        try:
            yield store
        finally:
            store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lab:
    """Where layouts of one request are measured and remembered."""

    request: Request
    store: "Store"
    steps: int
    bars: Bars

    def pool(self, workers: int, timeout_s: float) -> contextlib.AbstractContextManager["Pool"]:
        from jaxscale.study.pool import Workers

        return Workers(workers, functools.partial(measured, timeout_s=timeout_s))

    def _asked(self, layout: Layout) -> MeasureRequest:
        asked = self.request
        return MeasureRequest(
            shape=asked.shape, workload=asked.workload, layout=layout, cluster=asked.cluster, num_steps=self.steps
        )

    def known(self, layouts: Sequence[Layout]) -> list["Trial"]:
        """What the store has of these layouts by the same program, in the order in which it was measured."""
        from jaxscale.study import job_of, readable

        programs = {job_of(self._asked(layout)).program for layout in layouts}
        rows = [row for row in self.store.rows(model=self.request.shape.name) if row["program"] in programs]
        measurements, _ = readable(reversed(rows))
        return list({m.request.layout: trial_of(m) for m in measurements}.values())

    def measure(self, pool: "Pool", layouts: Sequence[Layout]) -> list["Trial"]:
        """Measure some layouts; each is in the store before it counts."""
        from jaxscale.study import job_of, run_sweep

        jobs = [job_of(self._asked(layout)) for layout in layouts]
        done = run_sweep(jobs, self.store, pool, on_start=lambda i: self.bars.said(f"measuring {layouts[i]}"))
        with contextlib.closing(done) as outcomes:
            for _ in outcomes:
                pass
        return self.known(layouts)


def trial_of(measurement: Measurement) -> "Trial":
    """A measurement as the tuner sees it."""
    from jaxscale.study.tuning import Trial

    ran = measurement.status == "ok"
    why = "" if ran else f"{measurement.status}: {measurement.message}"
    return Trial(layout=measurement.request.layout, seconds=measurement.median_s if ran else None, message=why)


def _said(bars: Bars, budget_runs: int, trial: "Trial", number: int) -> None:
    took = format_seconds(trial.seconds) if trial.seconds is not None else trial.message.partition("\n")[0]
    bars.said(f"  {number} of at most {budget_runs}: {took} ({trial.layout})")


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


def _print(request: Request, result: "TuneResult", address: str | None) -> None:
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
