"""`jaxscale sweep`: many measurements from one file, resumed where they stopped."""

import contextlib
import functools
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.cli.common import json_option, print_json
from jaxscale.cli.measure import STORE_VARIABLE, with_utilisation
from jaxscale.cli.progress import Bars
from jaxscale.cli.sweep_points import Point, Skipped, points_of
from jaxscale.cli.sweep_spec import load_sweep
from jaxscale.errors import InfeasibleError, SpecError
from jaxscale.types.measurement import Measurement, MeasureRequest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from jaxscale.study import Outcome, Store
    from jaxscale.study.pool import Pool, Task

INTERRUPTED = 130  # exit code, as of a shell


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a sweep has come to so far."""

    measured: dict[int, Measurement] = field(default_factory=dict)  # here or before, by point
    outcomes: Counter[str] = field(default_factory=Counter)  # how those measured here ended
    in_store: int = 0
    interrupted: bool = False


@click.command()
@click.argument("spec", type=click.Path(path_type=Path), metavar="SWEEP.yaml")
@click.option(
    "--store", "address", envvar=STORE_VARIABLE, metavar="FILE", show_envvar=True,
    help="A SQLite file or a database URL.  [default: SWEEP.db]",
)  # fmt: skip
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 1024), metavar="N",
    help="Measurements at once; several on one machine disturb each other.",
)  # fmt: skip
@click.option("--ray", "ray_address", metavar="ADDRESS", help="On a Ray cluster: auto, ray://host:10001, or local.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), metavar="S",
    help="Seconds for one measurement.  [default: the file's]",
)  # fmt: skip
@click.option("--retry", is_flag=True, help="Measure again what hung or crashed before.")
@click.option("--dry-run", is_flag=True, help="Show what would be measured, and what is predicted of it.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(
    spec: Path, address: str | None, workers: int, ray_address: str | None, timeout_s: float | None, retry: bool,
    dry_run: bool, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure every model, workload and layout that a file names.

    \b
    models: [gpt2-124m]
    clusters: [cpu:8]
    workloads: {seq_len: 128, global_batch_size: 8, precision: fp32}
    layouts: ["fsdp=*", "fsdp=*,tensor=2"]       # or {best: 8}, or {grid: {...}}
    measure: {steps: 10, timeout: 10 min}

    A list stands for each of its values. What the store has of the same program is not measured again, so that the same
    command goes on where it was stopped, and several at once share the work. Out of memory, NaN, hang and crash are
    results.
    """
    from jaxscale.measure.hosts import this_host

    sweep = load_sweep(spec)
    task = functools.partial(measured, timeout_s=timeout_s or sweep.measure.timeout_s)
    host = this_host()
    if not host.leads:
        from jaxscale.study.pod import follow

        if not dry_run:
            follow(host, task)
        return
    points, skipped = points_of(sweep)
    if not points:
        raise InfeasibleError(_nothing(spec, skipped))
    address = address or str(spec.with_suffix(".db"))
    if dry_run:
        _show_plan(points, skipped, _stored(points, address, retry), as_json=as_json)
        return
    pool = _pool(points, workers, ray_address, task)
    from jaxscale.study import Store

    store = Store(address)
    with Bars(quiet=quiet) as bars:
        tally = _run(points, store, pool, retry, bars)
    _show(points, skipped, tally, address, as_json=as_json)
    if tally.interrupted:
        sys.exit(INTERRUPTED)


def measured(request: MeasureRequest, *, timeout_s: float) -> Measurement:
    """What a worker does with one request."""
    from jaxscale.measure import measure

    return with_utilisation(measure(request, watchdog_s=timeout_s, timeout_s=timeout_s))


def _pool(
    points: Sequence[Point], workers: int, ray_address: str | None, task: "Task"
) -> "AbstractContextManager[Pool]":
    """Where to measure: this machine, a Ray cluster, or all hosts of a pod together."""
    from jaxscale.measure.hosts import this_host
    from jaxscale.study.pod import PodWorkers
    from jaxscale.study.pool import Workers

    host = this_host()
    if ray_address is not None:
        from jaxscale.study.ray_pool import RayWorkers

        return RayWorkers(workers, task, address="" if ray_address == "local" else ray_address)
    real = next((point for point in points if not point.request.emulated), None)
    if workers > 1 and (host.count > 1 or real):
        where = f"{host.count} hosts" if host.count > 1 else f"the devices of {real.request.cluster.name}"  # type: ignore[union-attr]
        raise SpecError(f"--workers={workers}: {where} run one measurement at a time; with --ray each has its own")
    return PodWorkers(host, task) if host.count > 1 else Workers(workers, task)


def _run(
    points: Sequence[Point], store: "Store", pool: "AbstractContextManager[Pool]", retry: bool, bars: Bars
) -> Tally:
    from jaxscale.study import job_of, run_sweep

    tally = Tally()
    jobs = [job_of(point.request) for point in points]
    moved = bars.counting("measured")
    moved(0, len(jobs))
    with contextlib.suppress(KeyboardInterrupt), _stoppable(tally), pool as opened:
        outcomes = run_sweep(
            jobs, store, opened, retry=retry, on_start=lambda index: bars.said(f"measuring {_line(points[index])}")
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                _note(outcome, points, tally, bars)
                moved(tally.outcomes.total() + tally.in_store, len(jobs))
    return tally


@contextlib.contextmanager
def _stoppable(tally: Tally) -> Iterator[None]:
    """Let a scheduler's SIGTERM end the sweep as Ctrl-C does, and remember that it was stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        tally.interrupted = True
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _note(outcome: "Outcome", points: Sequence[Point], tally: Tally, bars: Bars) -> None:
    from jaxscale.units import format_seconds

    measurement = outcome.measurement
    if measurement is not None:
        tally.measured[outcome.index] = measurement
    if measurement is None or outcome.source == "store":
        tally.in_store += 1
        return
    tally.outcomes[measurement.status] += 1
    took = format_seconds(measurement.median_s) if measurement.median_s else measurement.message.partition("\n")[0]
    bars.said(f"  {measurement.status}: {took} ({_line(points[outcome.index])})")


def _line(point: Point) -> str:
    asked = point.request
    batch = f"{asked.workload.global_batch_size} x {asked.workload.seq_len}"
    return f"{asked.shape.name} on {asked.cluster.name}, {batch}, {asked.layout}"


def _nothing(spec: Path, skipped: Sequence[Skipped]) -> str:
    first = f"; the first: {skipped[0].what}: {skipped[0].why}" if skipped else ""
    return f"{spec}: none of {len(skipped)} combinations can run{first}"


def _stored(points: Sequence[Point], address: str, retry: bool) -> list[bool]:
    """Whether a store has each point; one that does not exist has none, and is not made."""
    from jaxscale.study import Store, job_of, stored

    if "://" not in address and not os.path.exists(address):
        return [False] * len(points)
    return stored(Store(address), [job_of(point.request) for point in points], retry=retry)


def _show_plan(points: Sequence[Point], skipped: Sequence[Skipped], known: Sequence[bool], *, as_json: bool) -> None:
    if as_json:
        rows = [point.to_json() | {"in_store": here} for point, here in zip(points, known, strict=True)]
        print_json({"points": rows, "skipped": [{"what": s.what, "why": s.why} for s in skipped]})
        return
    from jaxscale.cli.sweep_tables import plan_table
    from jaxscale.report.terminal import console

    console().print(plan_table(points, skipped, known))


def _show(points: Sequence[Point], skipped: Sequence[Skipped], tally: Tally, address: str, *, as_json: bool) -> None:
    if as_json:
        rows = [
            points[index].to_json()
            | {"run": m.identifier, "status": m.status, "step_time_s": m.median_s, "message": m.message}
            for index, m in sorted(tally.measured.items())
        ]
        print_json({
            "store": address, "points": len(points), "skipped": len(skipped), "in_store": tally.in_store,
            "outcomes": dict(tally.outcomes), "interrupted": tally.interrupted, "runs": rows,
        })  # fmt: skip
        return
    from jaxscale.cli.sweep_tables import result_table, summary
    from jaxscale.report.terminal import console

    out = console()
    if any(m.status == "ok" for m in tally.measured.values()):
        out.print(result_table(points, tally.measured))
        out.print()
    out.print(summary(points, skipped, tally.outcomes, tally.in_store, address, interrupted=tally.interrupted))
