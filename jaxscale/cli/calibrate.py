"""`jaxscale calibrate`: the constants of a software stack from measured runs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
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
from jaxscale.errors import SpecError

if TYPE_CHECKING:
    from jaxscale.calibrate import Calibration, Run


@click.command()
@click.argument("runs_csv", metavar="[RUNS.csv]", required=False, type=click.Path(path_type=Path))
@click.option("--store", "address", metavar="STORE", help="Fit the measurements of a store instead of a table.")
@click.option("--chip", metavar="C", help="Fit the runs of this chip or generation, such as a100. [default: all]")
@click.option("--stack", metavar="S", help="Fit the runs of this software stack. [default: the only one]")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Write the constants as YAML."
)
@click.option(
    "--as-cluster", "cluster_out", type=click.Path(path_type=Path), metavar="FILE",
    help="With --store: also write the cluster that was measured, with these constants, for predict and search.",
)  # fmt: skip
@click.option("--from-priors", is_flag=True, help="Start from priors instead of the stack that ships with jaxscale.")
@report_option
@json_option
def command(
    runs_csv: Path | None, address: str | None, chip: str | None, stack: str | None, out: Path,
    cluster_out: Path | None, from_priors: bool, report: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Fit a stack's constants to your own measured runs.

    \b
    jaxscale calibrate runs.csv --chip h100-sxm --out mine.yaml
    jaxscale validate runs.csv --calibration mine.yaml
    jaxscale calibrate --store runs.db --out mine.yaml --as-cluster here.yaml

    The shipped constants are the prior: five runs already help, and what they say nothing about stays as it was.
    RUNS.csv is a table as `jaxscale validate` reads it, STORE what `jaxscale measure` and `jaxscale sweep` filled.
    """
    import os

    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a few hundred runs: no accelerator is worth waiting for
    from jaxscale.api.tables import of_one_stack
    from jaxscale.calibrate import calibration_for, prior_on, to_text
    from jaxscale.calibrate.held_out import fit_stack
    from jaxscale.calibrate.own_runs import refit

    for path in (out, cluster_out, report):
        if path is not None:
            check_writable(path)
    if cluster_out is not None and address is None:
        raise SpecError(
            f"--as-cluster={cluster_out} needs --store: a table tells of other programs than jaxscale's own"
        )
    runs, refused = _runs(runs_csv, address)
    chosen = of_one_stack(runs, chip, stack)
    key = (chosen[0].software.stack, chosen[0].chip)
    start = prior_on(*key) if from_priors else calibration_for(*key)
    calibration = fit_stack(chosen, start) if from_priors else refit(chosen, start)
    write_atomically(out, to_text(calibration))
    if cluster_out is not None:
        write_atomically(cluster_out, _cluster_text(chosen, calibration))
    if report is not None:
        from jaxscale.report.kinds.calibrate import calibrate_page

        write_report(report, calibrate_page(chosen, calibration, start))
    errors = {"before": _errors(chosen, start), "after": _errors(chosen, calibration)}
    if as_json:
        scores = {when: dataclasses.asdict(found) for when, found in errors.items()}
        print_json({"file": str(out), "refused": len(refused), "errors": scores} | calibration.to_json())
        return
    click.echo(_text(calibration, start))
    click.echo(_errors_text(**errors))
    click.echo(f"\nwritten to {out}" + (f"; {len(refused)} refused, the first: {refused[0]}" if refused else ""))


def _cluster_text(runs: Sequence["Run"], calibration: "Calibration") -> str:
    """The file of the cluster that was measured, with the constants of jaxscale's own step on it."""
    from jaxscale.cli.probe import to_yaml

    clusters = {run.cluster.name: run for run in runs}
    if len(clusters) > 1:
        raise SpecError(f"--as-cluster: the runs are on {', '.join(sorted(clusters))}; a file describes one cluster")
    [run] = clusters.values()
    return to_yaml(dataclasses.replace(run.cluster, stack=calibration.stack_for(run.software)))


def _runs(runs_csv: Path | None, address: str | None) -> tuple[Sequence["Run"], list[str]]:
    """Runs of a table or of a store, and why the others were refused."""
    from jaxscale.validate import read_runs

    if (runs_csv is None) == (address is None):
        raise SpecError("give either RUNS.csv or --store, which say what was measured")
    if runs_csv is not None:
        runs, refusals = read_runs(runs_csv)
        return runs, [f"row {refusal.id}: {refusal.reason}" for refusal in refusals]
    from jaxscale.calibrate.measured import runs_of
    from jaxscale.study import Store, readable

    measurements, faults = readable(Store(str(address), must_exist=True).rows())
    runs = runs_of(measurements)
    if not any(run.outcome == "ok" for run in runs):
        raise SpecError(f"--store={address}: none of its {len(runs)} measurements has a step time")
    return runs, faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far predicted step times are from measured ones, over the runs that have one."""

    runs: int
    median: float  # of |predicted / measured - 1|
    p90: float
    bias: float  # median of predicted / measured - 1


def _errors(runs: Sequence["Run"], calibration: "Calibration") -> Errors:
    import numpy as np

    from jaxscale.calibrate.held_out import timed
    from jaxscale.validate import predict

    rows = timed(runs)
    measured_s = np.array([run.step_time_s for run in rows])
    errors = predict(rows, lambda _: calibration).step_time_s / measured_s - 1.0
    median, p90 = np.quantile(np.abs(errors), [0.5, 0.9])
    return Errors(runs=len(rows), median=float(median), p90=float(p90), bias=float(np.median(errors)))


def _errors_text(before: Errors, after: Errors) -> str:
    """The two side by side."""
    lines = [f"\n{'error of predicted step time':32s} {'median':>10s} {'90th perc.':>10s} {'bias':>10s}"]
    lines += [
        f"{when:32s} {100 * found.median:9.1f}% {100 * found.p90:9.1f}% {100 * found.bias:+9.1f}%"
        for when, found in (("before", before), ("after, on the runs fitted", after))
    ]
    return "\n".join(lines)


def _text(calibration: "Calibration", start: "Calibration") -> str:
    """Every fitted constant with its interval and what it was before."""
    from jaxscale.calibrate import CONSTANTS

    lines = [calibration.describe()]
    held = calibration.provenance.get("held_out")
    if held:
        lines.append(
            f"error of step time, left out of the fit by {held['left_out']}: median {100 * held['median']:.1f}%, "
            f"90th percentile {100 * held['p90']:.1f}%"
        )
    lines.append(
        f"80% interval of a prediction: a factor of {2.718281828 ** (1.2816 * calibration.sigma_log):.3f} either way\n"
    )
    lines.append(f"{'constant':32s} {'value':>10s} {'80% interval':>23s} {'before':>10s}")
    for constant in CONSTANTS:
        fitted = calibration.fitted.get(constant.name)
        if fitted is None:
            continue
        interval = f"{fitted.low:.4g} to {fitted.high:.4g}"
        lines.append(f"{constant.name:32s} {fitted.value:10.4g} {interval:>23s} {start.value(constant):10.4g}")
    return "\n".join(lines)
