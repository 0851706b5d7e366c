"""`jaxscale twin`: a layout's small twin on emulated devices against one device, and its collectives as predicted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from jaxscale.catalog import load_cluster
from jaxscale.cli.common import Request, json_option, print_json, request_options
from jaxscale.cli.progress import Bars
from jaxscale.cost import estimate
from jaxscale.errors import MeasurementError
from jaxscale.types import Collective, Layout, ModelShape, Workload
from jaxscale.types.checks import Check
from jaxscale.types.legality import check_layout
from jaxscale.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from jaxscale.measure import TwinResult

BYTES_TOLERANCE = 1e-6  # predicted sizes are floats; the compiler's are whole


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveRow:
    """Collectives of one kind over one group of axes, as predicted and as compiled; per device and step.

    The compiler joins small collectives of a kind, so that its calls may be fewer; the bytes have to be the same.
    """

    kind: str
    axes: tuple[str, ...]
    predicted_bytes: float
    compiled_bytes: float
    predicted_calls: float
    compiled_calls: float

    @property
    def agrees(self) -> bool:
        """Whether both move the same bytes, and the compiler does so in no more calls than predicted."""
        larger = max(self.predicted_bytes, self.compiled_bytes)
        same = abs(self.predicted_bytes - self.compiled_bytes) <= BYTES_TOLERANCE * larger
        return same and self.compiled_calls <= self.predicted_calls


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinOutcome:
    """What a twin did, and the collectives of its program beside the predicted ones."""

    result: "TwinResult"
    collectives: tuple[CollectiveRow, ...]

    @property
    def passed(self) -> bool:
        """Whether it trains as one device does, and communicates as predicted."""
        return self.result.agrees and all(row.agrees for row in self.collectives)


def twin_outcome(shape: ModelShape, workload: Workload, layout: Layout) -> TwinOutcome:
    """Run the twin of a layout, and predict the collectives of that same twin."""
    from jaxscale.measure import run_twin, shrink

    result = run_twin(shrink(shape, workload, layout))
    twin = result.twin
    predicted = estimate(twin.shape, twin.workload, load_cluster(f"cpu:{twin.layout.num_devices}"), twin.layout)
    return TwinOutcome(result=result, collectives=collective_rows(predicted.collectives, result.collectives))


def collective_rows(predicted: Iterable[Collective], compiled: Iterable[Collective]) -> tuple[CollectiveRow, ...]:
    """Set collectives of the same kind and group against each other."""
    totals: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for offset, collectives in enumerate((predicted, compiled)):
        for collective in collectives:
            sums = totals.setdefault((collective.kind, collective.axes), [0.0, 0.0, 0.0, 0.0])
            sums[offset] += collective.count * collective.bytes_each
            sums[2 + offset] += collective.count
    return tuple(
        CollectiveRow(
            kind=kind, axes=axes, predicted_bytes=sums[0], compiled_bytes=sums[1], predicted_calls=sums[2],
            compiled_calls=sums[3],
        )
        for (kind, axes), sums in sorted(totals.items())
    )  # fmt: skip


def twin_check(shape: ModelShape, workload: Workload, layout: Layout) -> Check:
    """The twin run as a check of a ranked layout; one that dies has not passed."""
    try:
        outcome = twin_outcome(shape, workload, layout)
    except MeasurementError as error:
        return Check(kind="twin", passed=False, sentence=str(error), seconds=0.0)
    return Check(
        kind="twin",
        passed=outcome.passed,
        sentence=sentence(outcome),
        seconds=outcome.result.seconds,
        figures={
            "loss_error": outcome.result.loss_error,
            "gradient_error": outcome.result.gradient_error,
            "devices": outcome.result.twin.layout.num_devices,
            "collectives_agree": sum(row.agrees for row in outcome.collectives),
            "collectives": len(outcome.collectives),
        },
    )


def sentence(outcome: TwinOutcome) -> str:
    """What came out, in one sentence."""
    result, rows = outcome.result, outcome.collectives
    devices = result.twin.layout.num_devices
    verdict = "trains as" if result.agrees else "does NOT train as"
    moved = format_bytes(sum(row.compiled_bytes for row in rows))
    agree = sum(row.agrees for row in rows)
    return (
        f"{devices} emulated devices: it {verdict} one device does (losses within {result.loss_error:.1e}, gradients "
        f"within {result.gradient_error:.1e}); {agree} of {len(rows)} kinds of collective, {moved} in all, are as "
        f"predicted to the byte; in {format_seconds(result.seconds)}"
    )


@click.command()
@request_options(layout=True)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(request: Request, quiet: bool, as_json: bool) -> None:
    """Run a layout's small twin on emulated devices against one device.

    \b
    jaxscale twin llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=8,tensor=4,sp=true"

    The twin has the same mesh axes and features in small sizes. It trains for a few steps on emulated devices and on
    one; losses and gradients must agree, and its compiled program must hold the collectives that were predicted.
    """
    layout = request.only_layout
    check_layout(request.shape, request.workload, layout, request.cluster.num_devices)
    with Bars(quiet=quiet) as bars:
        bars.said("training the twin on emulated devices and on one")
        outcome = twin_outcome(request.shape, request.workload, layout)
    if as_json:
        print_json(_record(outcome))
    else:
        _print(outcome)
    if not outcome.passed:
        raise MeasurementError(f"the twin of {layout} does not do what it should; see above")


def _record(outcome: TwinOutcome) -> dict:
    result = outcome.result
    return {
        "passed": outcome.passed,
        "layout": str(result.twin.layout),
        "devices": result.twin.layout.num_devices,
        "losses": list(result.losses),
        "single_device_losses": list(result.single_losses),
        "loss_error": result.loss_error,
        "gradient_error": result.gradient_error,
        "seconds": result.seconds,
        "collectives": [
            {
                "kind": row.kind,
                "axes": list(row.axes),
                "predicted_bytes": row.predicted_bytes,
                "compiled_bytes": row.compiled_bytes,
                "predicted_calls": row.predicted_calls,
                "compiled_calls": row.compiled_calls,
                "agrees": row.agrees,
            }
            for row in outcome.collectives
        ],
    }


def _print(outcome: TwinOutcome) -> None:
    from jaxscale.report.terminal import console

    result = outcome.result
    out = console()
    out.print(f"[bold]twin[/] {result.twin.layout}")
    out.print(sentence(outcome) + ".")
    out.print()
    out.print(_loss_table(result))
    out.print()
    out.print(_collective_table(outcome.collectives))


def _loss_table(result: "TwinResult") -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="dim")
    devices = result.twin.layout.num_devices
    for heading in ("step", f"loss on {devices}", "loss on one", "difference"):
        table.add_column(heading, justify="right")
    for step, (many, one) in enumerate(zip(result.losses, result.single_losses, strict=True), start=1):
        table.add_row(str(step), f"{many:.7f}", f"{one:.7f}", f"{many - one:+.1e}")
    return table


def _collective_table(rows: tuple[CollectiveRow, ...]) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("collective", "axes"):
        table.add_column(heading)
    for heading in ("predicted", "compiled", "calls", "compiled"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        style = "" if row.agrees else "red"
        sizes = (f"{row.predicted_bytes:,.0f} B", f"{row.compiled_bytes:,.0f} B")
        calls = (f"{row.predicted_calls:.0f}", f"{row.compiled_calls:.0f}")
        table.add_row(row.kind, "+".join(row.axes), *sizes, *calls, style=style)
    return table
