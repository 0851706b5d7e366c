"""`jaxscale fit-law`: constants, intervals and checks of a scaling law from a table of runs."""

import os
from pathlib import Path

import click

from jaxscale.cli.common import check_writable, json_option, print_json, report_option, write_report
from jaxscale.errors import SpecError
from jaxscale.plan.fit import FORMS, HUBER_ON_LOGS, LAW_NAMES, LEAST_SQUARES, LawFit, fit_law, read_runs


@click.command("fit-law")
@click.argument("runs", type=click.Path(exists=True, dir_okay=False))
@click.option("--law", default="chinchilla", show_default=True, metavar="LAW", help=f"{', '.join(LAW_NAMES)}.")
@click.option(
    "--column", "columns", multiple=True, metavar="NAME=HEADER", help="Which header is what; batch_tokens=bs*2048."
)
@click.option("--where", "filters", multiple=True, metavar="HEADER=TEXT", help="Keep only rows with this text.")
@click.option("--drop-highest", default=0, show_default=True, metavar="N", help="Drop that many runs of highest loss.")
@click.option("--bootstrap", "draws", default=200, show_default=True, metavar="N", help="Resampled fits; 0 for none.")
@click.option("--least-squares", is_flag=True, help="Least squares on losses instead of Huber on logs.")
@click.option("--no-leave-out", is_flag=True, help="Skip the fit without the 20% of runs of most compute.")
@click.option("--seed", default=0, show_default=True, metavar="S", help="Of the bootstrap.")
@report_option
@json_option
def command(
    runs: str, law: str, columns: tuple[str, ...], filters: tuple[str, ...], drop_highest: int, draws: int,
    least_squares: bool, no_leave_out: bool, seed: int, report: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Fit a scaling law to the table RUNS.

    \b
    jaxscale fit-law runs.csv --law chinchilla --report fit.html
    jaxscale fit-law grid.csv --law steplaw --column "batch_tokens=bs*2048"

    RUNS is a CSV with a run a row and headers such as params, tokens and loss (nats per token).
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a few hundred runs: no accelerator is worth waiting for
    if report is not None:
        _check_plots(law, report)
    table = read_runs(
        runs, columns=_pairs(columns, "--column"), where=_pairs(filters, "--where"), drop_highest=drop_highest
    )
    how = LEAST_SQUARES if least_squares else HUBER_ON_LOGS
    result = fit_law(law, table, draws=draws, seed=seed, leave_out=not no_leave_out, how=how)
    if report is not None and result.fit is not None:
        from jaxscale.report.kinds.fit_law import fit_law_page

        write_report(report, fit_law_page(result, result.fit, Path(runs).name))
    if as_json:
        print_json(result.to_json())
    else:
        click.echo(_text(result))


def _check_plots(law: str, report: Path) -> None:
    check_writable(report)
    if law not in FORMS:
        raise SpecError(f"--report: {law} is not a law of the loss, so it has no plots; those with: {', '.join(FORMS)}")


def _pairs(items: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator:
            raise SpecError(f"{option} {item!r} is not written as NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _text(result: LawFit) -> str:
    lines = [
        f"{result.law}: {result.formula}  ({result.source})",
        f"{result.runs} runs, rms error of ln loss {result.rms_log_error:.5f}",
    ]
    if result.objective is not None:
        lines.append(f"objective {result.objective:.8f}")
    for name, value in result.constants.items():
        line = f"  {name:<30} {value:<14.6g}"
        if name in result.intervals_95:
            low, high = result.intervals_95[name]
            line += f" 95% {low:.5g} to {high:.5g}, standard error {result.standard_errors[name]:.3g}"
        lines.append(line.rstrip())
    lines += [f"  check: {name:<23} {value:.5g}" for name, value in result.leave_out.items()]
    return "\n".join(lines)
