"""`jaxscale fit-law`: constants, intervals and checks of a scaling law from a table of runs."""

import json
import os

import click


@click.command("fit-law")
@click.argument("runs", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--law",
    "law",
    default="chinchilla",
    show_default=True,
    help="chinchilla, skaling, kaplan, datablations, gadre, farseer, isoflop or steplaw.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=HEADER[*FACTOR]",
    help="Which header is what, such as batch_tokens=bs*2048.",
)
@click.option("--where", "filters", multiple=True, metavar="HEADER=TEXT", help="Keep only rows with this text.")
@click.option("--drop-highest", default=0, show_default=True, help="Drop that many runs of highest loss.")
@click.option(
    "--bootstrap", "draws", default=200, show_default=True, help="Resampled fits for the intervals; 0 for none."
)
@click.option("--least-squares", is_flag=True, help="Least squares on losses instead of Huber on logs.")
@click.option("--no-leave-out", is_flag=True, help="Skip the fit without the 20% of runs of most compute.")
@click.option("--seed", default=0, show_default=True)
@click.option("--html", "html", type=click.Path(dir_okay=False, writable=True), help="Write plots of a loss fit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    runs: str, law: str, columns: tuple[str, ...], filters: tuple[str, ...], drop_highest: int, draws: int,
    least_squares: bool, no_leave_out: bool, seed: int, html: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Fit a scaling law to the table RUNS (CSV with headers such as params, tokens, loss)."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a few hundred runs: no accelerator is worth waiting for
    from jaxscale.plan.fit import HUBER_ON_LOGS, LEAST_SQUARES, fit_law, read_runs

    table = read_runs(
        runs, columns=_pairs(columns, "--column"), where=_pairs(filters, "--where"), drop_highest=drop_highest
    )
    how = LEAST_SQUARES if least_squares else HUBER_ON_LOGS
    result = fit_law(law, table, draws=draws, seed=seed, leave_out=not no_leave_out, how=how)
    if html and result.fit is not None:
        from jaxscale.plan.fit.figures import figures, write_html

        write_html(html, figures(result.fit), f"jaxscale fit-law {law}")
    click.echo(json.dumps(result.to_json()) if as_json else _text(result))


def _pairs(items: tuple[str, ...], option: str) -> dict[str, str]:
    from jaxscale.errors import SpecError

    pairs = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator:
            raise SpecError(f"{option} {item!r} is not written as NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def _text(result) -> str:
    lines = [
        f"{result.law}: {result.formula}  ({result.source})",
        f"{result.runs} runs, rms error of ln loss {result.rms_log_error:.5f}",
    ]
    if result.objective is not None:
        lines.append(f"objective {result.objective:.8f}")
    for name, value in result.constants.items():
        line = f"  {name:<26} {value:<14.6g}"
        if name in result.intervals_95:
            low, high = result.intervals_95[name]
            line += f" 95% {low:.5g} to {high:.5g}   standard error {result.standard_errors[name]:.3g}"
        lines.append(line)
    lines += [f"  check: {name:<26} {value:.5g}" for name, value in result.leave_out.items()]
    return "\n".join(lines)
