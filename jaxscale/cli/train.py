"""`jaxscale train`: train a model under a layout on this machine, in one process or in several."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.cli.common import Request, json_option, print_json, request_options
from jaxscale.errors import SpecError
from jaxscale.types import Workload
from jaxscale.types.legality import check_layout
from jaxscale.units import format_seconds, format_si

if TYPE_CHECKING:
    from jaxscale.runtime.launch_local import Job, StepMetrics


@click.command()
@request_options(layout=True)
@click.option("--steps", default=10, show_default=True, type=click.IntRange(1), metavar="N", help="Optimizer steps.")
@click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1), metavar="N",
    help="Share the emulated devices out over so many processes.",
)  # fmt: skip
@click.option("--twin", is_flag=True, help="Train the layout's small twin on emulated devices instead.")
@click.option("--tokens", default="", metavar="FILE", help="Token ids, one array in a .npy file.  [default: synthetic]")
@click.option(
    "--end-of-document", default=None, type=click.IntRange(0), metavar="ID",
    help="Token id that ends a document: documents do not see each other.",
)  # fmt: skip
@click.option("--checkpoints", default="", metavar="DIR", help="Save there, and go on from the last one there.")
@click.option(
    "--save-every", default=1, show_default=True, type=click.IntRange(1), metavar="N", help="Steps between checkpoints."
)
@click.option("--learning-rate", default=3e-4, show_default=True, type=click.FloatRange(0, min_open=True), metavar="R")
@click.option("--noise-scale", is_flag=True, help="Report the gradient noise scale: how large a batch still pays.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of parameters and tokens.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(
    request: Request, steps: int, processes: int, twin: bool, tokens: str, end_of_document: int | None,
    checkpoints: str, save_every: int, learning_rate: float, noise_scale: bool, seed: int, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a model under a layout on this machine.

    \b
    jaxscale train llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=8,tensor=4" \\
        --twin --processes 2 --steps 3

    A cluster cpu:N, or the twin of any layout, is emulated, in as many processes as asked for; other devices must be
    there. When a process dies the others are stopped, and the exit code is 1.
    """
    from jaxscale.runtime.launch_local import Job, launch
    from jaxscale.runtime.options import TrainOptions

    layout = request.only_layout
    check_layout(request.shape, request.workload, layout, request.cluster.num_devices)
    if end_of_document is not None and not tokens:
        raise SpecError(f"--end-of-document {end_of_document} needs --tokens FILE: synthetic tokens have no documents")
    shape, workload = request.shape, request.workload
    if twin:
        from jaxscale.measure import shrink

        small = shrink(shape, workload, layout)
        shape, workload, layout = small.shape, small.workload, small.layout
    job = Job(
        shape=shape, workload=workload, layout=layout, steps=steps, processes=processes, seed=seed,
        emulated=twin or request.cluster.chip.kind == "cpu",
        options=TrainOptions(learning_rate=learning_rate, noise_scale=noise_scale),
        token_file=str(Path(tokens).absolute()) if tokens else "",
        end_of_document=-1 if end_of_document is None else end_of_document,
        checkpoint_dir=str(Path(checkpoints).absolute()) if checkpoints else "", checkpoint_every=save_every,
    )  # fmt: skip
    if not quiet:
        click.echo(_header(job), err=True)
    shown: list[dict] = []

    def told(metrics: "StepMetrics") -> None:
        if not (as_json and quiet):
            click.echo(f"{_line(metrics)}  {_speed(metrics, workload, first=not shown)}", err=as_json)
        shown.append(metrics)

    steps_done = launch(job, on_step=told)
    if as_json:
        print_json({"model": shape.name, "layout": str(layout), "processes": processes, "steps": steps_done})


def _header(job: "Job") -> str:
    devices = f"{job.layout.num_devices} {'emulated ' if job.emulated else ''}devices"
    in_processes = f" in {job.processes} processes" if job.processes > 1 else ""
    data = job.token_file or "synthetic tokens"
    return f"training {job.shape.name} as {job.layout} on {devices}{in_processes}, {data}"


def _line(metrics: "StepMetrics") -> str:
    aux = f"  auxiliary {metrics['aux_loss']:.4f}" if metrics["aux_loss"] else ""
    noise = f"  noise scale {_sequences(metrics)}" if "noise_scale_sequences" in metrics else ""
    return (
        f"step {metrics['step']:>6}  loss {metrics['loss']:.6f}{aux}  gradient norm {metrics['grad_norm']:.4f}{noise}"
    )


def _speed(metrics: "StepMetrics", workload: Workload, *, first: bool) -> str:
    """Tokens a second; the first step's time is the compiler's."""
    seconds = metrics["step_time_s"] or 0.0
    if first:
        return f"({format_seconds(seconds)} with compiling)"
    return format_si(workload.tokens_per_step / seconds, "tokens/s")


def _sequences(metrics: "StepMetrics") -> str:
    found = metrics["noise_scale_sequences"]
    return "not yet known" if found is None else f"{found:.3g} sequences"
