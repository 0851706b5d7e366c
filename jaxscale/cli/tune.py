"""`jaxscale tune`: the fastest layout on the devices at hand, found by measuring few."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import (
    Request,
    check_writable,
    json_option,
    print_json,
    report_option,
    request_options,
    write_report,
)
from jaxscale.cli.measure import STORE_VARIABLE
from jaxscale.cli.progress import Bars
from jaxscale.cli.search import nothing_fits
from jaxscale.cli.sweep import measured
from jaxscale.cli.tune_tables import page, show, to_json
from jaxscale.errors import InfeasibleError, MeasurementError, SpecError
from jaxscale.search import parse_limits, search
from jaxscale.types import Estimate, Layout
from jaxscale.types.measurement import Measurement, MeasureRequest
from jaxscale.units import format_seconds

if TYPE_CHECKING:
    from jaxscale.study import Store
    from jaxscale.study.pool import Pool
    from jaxscale.study.tuning import Trial


@click.command()
@request_options()
@click.option("--budget-runs", default=12, show_default=True, type=click.IntRange(1, 1000), metavar="N",
              help="Layouts to measure, those in the store included.")  # fmt: skip
@click.option("--min-gain", default=0.002, show_default=True, type=click.FloatRange(0, 1, max_open=True), metavar="F",
              help="Stop when one more run is expected to save less than this share of the best time.")  # fmt: skip
@click.option("--limit", "limits", multiple=True, metavar="L", help='Such as "tensor<=8,remat=full|dots". May repeat.')
@click.option("--candidates", default=200, show_default=True, type=click.IntRange(1, 1000), metavar="K",
              help="The best K as predicted are considered, and the best of every mesh.")  # fmt: skip
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), metavar="N",
              help="Measurements at once; several on one machine disturb each other.")  # fmt: skip
@click.option("--steps", default=10, show_default=True, type=click.IntRange(1), metavar="N", help="Timed steps a run.")
@click.option("--timeout", "timeout_s", default=600.0, show_default=True, type=click.FloatRange(0, min_open=True),
              metavar="S", help="Seconds for one run.")  # fmt: skip
@click.option("--store", "address", envvar=STORE_VARIABLE, metavar="FILE", show_envvar=True,
              help="Where runs are kept; what it has of the same program is not measured again.")  # fmt: skip
@report_option
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(
    request: Request, budget_runs: int, min_gain: float, limits: tuple[str, ...], candidates: int, workers: int,
    steps: int, timeout_s: float, address: str | None, report: Path | None, quiet: bool, as_json: bool,
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
    if report is not None:
        check_writable(report)
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
    if report is not None:
        write_report(report, page(request, result))
    if as_json:
        print_json(to_json(request, result))
    else:
        show(request, result, address)
    if result.best is None:
        raise MeasurementError(f"none of the {len(result.trials)} layouts that were tried ran: see above why")


def _ranked(request: Request, limits: tuple[str, ...], count: int, *, quiet: bool) -> Sequence[Estimate]:
    """The best layouts as predicted, and the best of every mesh: what the predictor likes, and what it may misjudge."""
    allowed = parse_limits(*(limits or request.search.limits))
    with Bars(quiet=quiet) as bars:
        found = search(
            request.shape, request.workload, request.cluster, stack=own_stack(request.cluster, request.workload),
            limits=allowed, top=count, progress=bars.searching(request.cluster.name),
        )  # fmt: skip
    if not found.ranked:
        raise InfeasibleError(nothing_fits(found, allowed))
    liked = {e.layout for e in found.top}
    return (*found.top, *(e for e in found.by_mesh if e.layout not in liked and e.fits))


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
