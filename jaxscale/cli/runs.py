"""`jaxscale runs`: stored measurements, listed, shown, compared, exported, imported and checked."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.cli.common import json_option, print_json
from jaxscale.cli.measure import STORE_VARIABLE, figures, to_json
from jaxscale.errors import StoreError
from jaxscale.types.measurement import MEASUREMENT_STATUSES
from jaxscale.units import format_seconds

if TYPE_CHECKING:
    from jaxscale.study import Store

SHORT_ID = 8  # characters of an identifier that a table shows; enough to name a run

store_option = click.option(
    "--store", "address", envvar=STORE_VARIABLE, required=True, metavar="FILE", show_envvar=True,
    help="A SQLite file or a database URL.",
)  # fmt: skip


@click.group()
def command() -> None:
    """Stored measurements: list, show, compare, export, import, check.

    A run is named by its identifier or the beginning of it.
    """


def _open(address: str, *, must_exist: bool = True) -> "Store":
    from jaxscale.study import Store

    return Store(address, must_exist=must_exist)


@command.command("list")
@store_option
@click.option("--model", metavar="M", help="Of this model only.")
@click.option("--cluster", metavar="C", help="On this cluster only.")
@click.option("--status", type=click.Choice(MEASUREMENT_STATUSES), help="With this outcome only.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The newest N.")
@json_option
def list_runs(
    address: str, model: str | None, cluster: str | None, status: str | None, limit: int | None, as_json: bool
) -> None:
    """List runs, newest first."""
    rows = _open(address).rows(model=model, cluster=cluster, status=status, limit=limit)
    if as_json:
        print_json({"runs": [{k: v for k, v in row.items() if k not in ("record", "sha256")} for row in rows]})
        return
    from rich.table import Table

    from jaxscale.report.terminal import console

    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("run", "outcome", "model", "cluster"):
        table.add_column(heading, no_wrap=True)
    for heading in ("step", "MFU"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("layout")
    for row in rows:
        step = "-" if row["step_time_s"] is None else format_seconds(row["step_time_s"])
        mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
        layout = row["layout"].replace(",", ", ")  # so that it can be wrapped
        table.add_row(row["identifier"][:SHORT_ID], row["status"], row["model"], row["cluster"], step, mfu, layout)
    console().print(table)


@command.command()
@click.argument("run")
@store_option
@json_option
def show(run: str, address: str, as_json: bool) -> None:
    """Show one run, with all that is needed to repeat it."""
    measurement = _open(address).find(run)
    if as_json:
        print_json(to_json(measurement))
        return
    from jaxscale.report.terminal import console, title

    asked = measurement.request
    out = console()
    out.print(title(asked.shape, asked.workload, asked.cluster))
    out.print(f"[bold]{measurement.status}[/] {asked.layout}")
    if measurement.message:
        out.print(measurement.message, markup=False)
    out.print(figures(measurement))


@command.command()
@click.argument("first")
@click.argument("second")
@store_option
@json_option
def compare(first: str, second: str, address: str, as_json: bool) -> None:
    """Show in what two runs differ, and how much faster the second is."""
    from jaxscale.study import differences

    store = _open(address)
    left, right = store.find(first), store.find(second)
    found = differences(left, right)
    speedup = left.median_s / right.median_s if left.median_s and right.median_s else None
    if as_json:
        fields = {d.field: [d.first, d.second] for d in found}
        print_json({"first": left.identifier, "second": right.identifier, "speedup": speedup, "differences": fields})
        return
    from rich.table import Table

    from jaxscale.report.terminal import console

    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("field", left.identifier[:SHORT_ID], right.identifier[:SHORT_ID]):
        table.add_column(heading, overflow="fold")
    for difference in found:
        table.add_row(difference.field, str(difference.first), str(difference.second))
    out = console()
    out.print(table)
    if speedup is not None and left.median_s and right.median_s:
        times = f"{format_seconds(left.median_s)} and {format_seconds(right.median_s)} a step"
        out.print(f"\n{times}: the second is {speedup:.3g} times as fast.")


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@store_option
@json_option
def export(path: Path, address: str, as_json: bool) -> None:
    """Write all runs to a file: CSV or Parquet, by its ending.

    Damaged ones are left out and named, so that an export and an import make a sound store of a damaged one.
    """
    from jaxscale.study import fault_of, write_table

    rows = [(row, fault_of(row)) for row in _open(address).rows()]
    sound = [row for row, what in rows if not what]
    write_table(sound, path)
    for row, what in rows:
        if what:
            click.echo(f"left out {row['identifier'][:SHORT_ID]}: {what}", err=True)
    if as_json:
        left_out = [{"run": row["identifier"], "what": what} for row, what in rows if what]
        print_json({"path": str(path), "runs": len(sound), "left_out": left_out})
        return
    click.echo(f"{len(sound)} runs written to {path}")


@command.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@store_option
@json_option
def import_runs(path: Path, address: str, as_json: bool) -> None:
    """Add the runs of an exported file; those that are here already stay as they are."""
    from jaxscale.study import read_table

    rows = read_table(path)
    added = _open(address, must_exist=False).add_rows(rows)
    if as_json:
        print_json({"runs": len(rows), "new": added})
        return
    click.echo(f"{added} of {len(rows)} runs are new in {address}")


@command.command()
@store_option
@json_option
def check(address: str, as_json: bool) -> None:
    """Check that every record is what was saved, and the database sound."""
    store = _open(address)
    number, faults = len(store.rows()), store.check()
    if as_json:
        print_json({"runs": number, "faults": [{"run": fault.identifier, "what": fault.what} for fault in faults]})
    elif not faults:
        click.echo(f"{number} runs, all as they were saved")
    for fault in faults if not as_json else ():
        click.echo(f"{fault.identifier or 'store'}: {fault.what}")
    if faults:
        raise StoreError(f"store {address}: {len(faults)} of {number} runs are damaged; see above")
