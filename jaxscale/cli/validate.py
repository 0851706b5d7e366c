"""`jaxscale validate`: a table of measured runs against predictions."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.cli.common import (
    check_writable,
    json_option,
    print_json,
    report_option,
    write_atomically,
    write_report,
)

if TYPE_CHECKING:
    from jaxscale.calibrate import Calibration, Run
    from jaxscale.validate import Predictions, Refusal

COLUMNS = (
    "id", "step_time_s", "step_time_lower_s", "step_time_upper_s", "mfu", "peak_memory_bytes", "fits", "refused",
    "constants",
)  # fmt: skip


@click.command()
@click.argument("runs_csv", metavar="RUNS.csv", type=click.Path(path_type=Path))
@click.option(
    "--calibration",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Constants of `jaxscale calibrate` in place of the shipped ones of their stack and chip.",
)
@json_option
@click.option("--out", type=click.Path(path_type=Path), metavar="PRED.csv", help="Write one line for every row.")
@report_option
@click.option("--residuals", is_flag=True, help="Print error against each factor of a run.")
def command(
    runs_csv: Path, files: tuple[Path, ...], as_json: bool, out: Path | None, report: Path | None, residuals: bool
) -> None:  # fmt: skip
    """Predict every run of a table and compare with what was measured.

    \b
    jaxscale validate runs.csv --out predictions.csv

    RUNS.csv has one row for each run: model shape, hardware, batch, degrees, recompute, kernel, outcome, step_time_s.
    A row that is incomplete or contradictory is refused with its reason; the others go on.
    """
    from jaxscale.validate import predict, read_runs, residual_levels, scores_by_source
    from jaxscale.validate.text import refusals_text, residuals_text, scores_text

    for path in (out, report):
        if path is not None:
            check_writable(path)
    runs, refusals = read_runs(runs_csv)
    predictions = predict(runs, _chooser(files))
    if out is not None:
        write_atomically(out, _csv(runs, predictions, refusals))
    rows = scores_by_source(runs, predictions, refusals)
    if report is not None:
        from jaxscale.report.kinds.validate import validate_page

        write_report(report, validate_page(runs, predictions, rows, refusals, runs_csv.name))
    if as_json:
        reasons = [{"id": r.id, "source": r.group, "reason": r.reason} for r in refusals]
        print_json({"scores": [row.to_json() for row in rows], "refused": reasons})
        return
    click.echo(scores_text(rows))
    if refusals:
        click.echo("\n" + refusals_text(refusals))
    if residuals:
        click.echo(residuals_text(residual_levels(runs, predictions)))


def _chooser(files: tuple[Path, ...]):
    """Constants of a run: those of a given file where it is of the run's stack and chip, else the shipped ones."""
    from jaxscale.calibrate import calibration_for, load_calibration

    given: dict[tuple[str, str], Calibration] = {}
    for file in files:
        calibration = load_calibration(file)
        given[calibration.stack, calibration.chip] = calibration

    def choose(run: "Run") -> "Calibration":
        key = (run.software.stack, run.chip)
        return given.get(key) or calibration_for(*key)

    return choose


def _csv(runs: Sequence["Run"], predictions: "Predictions", refusals: Sequence["Refusal"]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i, run in enumerate(runs):
        figures = (predictions.step_time_s, predictions.lower_s, predictions.upper_s, predictions.mfu)
        writer.writerow(
            [
                run.id, *(f"{values[i]:.6g}" for values in figures), round(predictions.peak_memory_bytes[i]),
                str(bool(predictions.fits[i])).lower(), "", predictions.calibrations[i],
            ]
        )  # fmt: skip
    for refusal in refusals:
        writer.writerow([refusal.id, *[""] * 6, refusal.reason, ""])
    return text.getvalue()
