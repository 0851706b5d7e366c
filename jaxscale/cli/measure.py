"""`jaxscale measure`: the real step of one layout on devices that are there, or emulated."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.api.observed import with_utilisation
from jaxscale.cli.common import (
    Request,
    check_writable,
    json_option,
    print_json,
    report_option,
    request_options,
    write_report,
)
from jaxscale.cli.progress import Bars
from jaxscale.cost import estimate
from jaxscale.errors import MeasurementError
from jaxscale.types import Estimate
from jaxscale.types.measurement import Measurement, MeasureRequest
from jaxscale.units import format_bytes, format_seconds, format_si

if TYPE_CHECKING:
    from rich.table import Table

STORE_VARIABLE = "JAXSCALE_STORE"


@click.command()
@request_options(layout=True)
@click.option("--steps", default=10, show_default=True, type=click.IntRange(1), metavar="N", help="Timed steps.")
@click.option("--warmup", default=2, show_default=True, type=click.IntRange(0), metavar="N", help="Steps before them.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of parameters and tokens.")
@click.option(
    "--watchdog", default=600.0, show_default=True, type=click.FloatRange(0, min_open=True), metavar="S",
    help="Seconds without a sign of life that count as a hang.",
)  # fmt: skip
@click.option(
    "--noise-scale", is_flag=True, help="Estimate the gradient noise scale too: one more pass over gradients."
)
@click.option("--trace", default="", metavar="DIR", help="Leave a profiler trace of two more steps there.")
@click.option("--store", metavar="FILE", help=f"Keep the record in this store.  [default: ${STORE_VARIABLE}]")
@report_option
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(
    request: Request, steps: int, warmup: int, seed: int, watchdog: float, noise_scale: bool, trace: str,
    store: str | None, report: Path | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run a layout's real training step and measure it.

    \b
    jaxscale measure tiny.yaml --cluster cpu:8 --layout "fsdp=4,tensor=2" \\
        --seq-len 128 --global-batch-size 8 --store runs.db

    A cluster cpu:N is emulated on this machine; any other must be there. The step runs in a process of its own: out of
    memory, NaN, a hang and a crash are results, kept in the store like any other (and the exit code is 2).
    """
    from jaxscale.measure import measure
    from jaxscale.measure.hosts import this_host

    asked = MeasureRequest(
        shape=request.shape, workload=request.workload, layout=request.only_layout, cluster=request.cluster,
        num_steps=steps, num_warmup_steps=warmup, seed=seed, trace_dir=trace, noise_scale=noise_scale,
    )  # fmt: skip
    if report is not None:
        check_writable(report)
    leads = this_host().leads  # of several hosts that run this command, one keeps the result and shows it
    keeper = _open_store(store or os.environ.get(STORE_VARIABLE)) if leads else None
    with Bars(quiet=quiet or not leads) as bars:
        bars.said(f"measuring {asked.shape.name} as {asked.layout} on {asked.cluster.name}")
        result = with_utilisation(measure(asked, watchdog_s=watchdog))
    if keeper is not None:
        keeper.save(result)
    if leads and report is not None:
        _write_report(report, result)
    if leads and as_json:
        print_json(to_json(result))
    elif leads:
        _print(result)
    if result.status != "ok":
        raise MeasurementError(f"{result.status}: {result.message}")


def _write_report(path: Path, measurement: Measurement) -> None:
    """The measurement beside the prediction, and beside the compiler's record where there is a compiler to ask."""
    from jaxscale.calibrate import own_stack
    from jaxscale.report.kinds.measure import measure_page

    asked = measurement.request
    stack = own_stack(asked.cluster, asked.workload)
    predicted = estimate(asked.shape, asked.workload, asked.cluster, asked.layout, stack)
    write_report(path, measure_page(measurement, predicted, _compiled(asked), stack))


def _compiled(asked: MeasureRequest) -> Estimate | None:
    """The compiler's record of the step that was measured; None where it cannot be compiled for these devices."""
    from jaxscale.aot import compile_step
    from jaxscale.api.compiled import compile_request, compiled_estimate
    from jaxscale.errors import CompileError

    try:
        step = compile_step(compile_request(asked.shape, asked.workload, asked.cluster, asked.layout))
    except CompileError:
        return None
    return compiled_estimate(step, asked.shape, asked.workload, asked.cluster) if step.memory is not None else None


def _open_store(address: str | None):
    """Open the store before the run, so that one that cannot be written costs no measurement."""
    if not address:
        return None
    from jaxscale.study import Store

    return Store(address)


def to_json(measurement: Measurement) -> dict:
    """The record as `--json` prints it: what was stored, and what follows from it."""
    from jaxscale.types.codec import encode

    return encode(measurement) | {
        "layout_text": str(measurement.request.layout),
        "step_time_s": measurement.median_s,
        "spread_s": measurement.spread_s,
        "outliers": list(measurement.outliers),
        "loss_is_finite": measurement.loss_is_finite,
        "loss_falls": measurement.loss_falls,
        "noise_scale_sequences": measurement.noise.sequences if measurement.noise else None,
        "tokens_per_s_per_chip": measurement.tokens_per_s_per_chip,
    }


def _print(measurement: Measurement) -> None:
    from jaxscale.report.terminal import console, title

    asked = measurement.request
    out = console()
    out.print(title(asked.shape, asked.workload, asked.cluster))
    out.print(f"[bold]{measurement.status}[/] {asked.layout}")
    out.print()
    out.print(figures(measurement))


def figures(measurement: Measurement) -> "Table":
    """Figures of one measurement, those that it has."""
    from rich.table import Table

    m = measurement
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_row("run", f"{m.identifier[:8]}, {m.started_at}")
    table.add_row("devices", f"{m.num_devices} x {m.device_kind or 'unknown'}")
    if m.median_s is not None and m.spread_s is not None:
        spread = f"+- {format_seconds(m.spread_s)} over {len(m.step_times_s)} steps"
        table.add_row("step", f"{format_seconds(m.median_s)} {spread}, {_count(len(m.outliers), 'outlier')}")
    if m.mfu is not None and m.hfu is not None:
        table.add_row("MFU, HFU", f"{m.mfu:.1%}, {m.hfu:.1%} of the cluster's stated peak")
    if m.noise is not None:
        table.add_row("noise scale", _noise(m))
    if m.warmup_times_s:
        table.add_row("warm-up", ", ".join(map(format_seconds, m.warmup_times_s)))
    if m.compile_s:
        table.add_row("compile", f"{format_seconds(m.compile_s)}, after {format_seconds(m.lower_s)} of lowering")
    if m.memory_source != "none":
        whose = {"device": "of the fullest device", "process": "of the whole process, compiler included"}
        table.add_row("peak memory", f"{format_bytes(m.peak_memory_bytes)} {whose[m.memory_source]}")
    if m.losses:
        verdict = "falls" if m.loss_falls else "does NOT fall"
        table.add_row("loss", f"{m.losses[0]:.4f} to {m.losses[-1]:.4f}, {verdict}")
    if m.surroundings:
        s = m.surroundings
        load = f"{s.load_before:.1f} before, {s.load_after:.1f} after, on {_count(s.num_cores, 'core')}"
        table.add_row("host", f"{s.host}; load {load}")
        table.add_row("revision", s.git_revision or f"source {s.source_digest[:12]}")
    return table


def _noise(measurement: Measurement) -> str:
    """The gradient noise scale beside the batch: far below it more sequences a step still help, far above hardly."""
    noise, batch = measurement.noise, measurement.request.workload.global_batch_size
    if noise is None or noise.sequences is None:
        return f"the gradient drowns in noise at {batch} sequences: more steps or a larger batch would tell"
    tokens = noise.sequences * measurement.request.workload.seq_len
    return f"{noise.sequences:.3g} sequences ({format_si(tokens, 'tokens')}); the batch is {batch}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
