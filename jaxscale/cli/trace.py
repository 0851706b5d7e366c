"""`jaxscale trace`: a predicted step on a time axis, for ui.perfetto.dev."""

from pathlib import Path

import click

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import Request, check_writable, json_option, print_json, request_options, write_atomically
from jaxscale.cost import estimate
from jaxscale.report.step_trace import step_trace
from jaxscale.units import format_seconds


@click.command()
@request_options(layout=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
@click.option("--quiet", is_flag=True, help="Say nothing on stderr.")
@json_option
def command(request: Request, out: Path | None, quiet: bool, as_json: bool) -> None:
    """Write a predicted step as a trace that ui.perfetto.dev opens.

    \b
    jaxscale trace llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --out step.trace.json \\
        --layout "fsdp=4,tensor=2,pipeline=4,remat=full"

    Every microbatch on every stage, what it consists of, bubbles, each collective beside it, copies to the host, and
    memory over time. The compiled step's own schedule comes from `jaxscale compile --dump`.
    """
    if out is not None:
        check_writable(out)
    stack = own_stack(request.cluster, request.workload)
    given = (request.shape, request.workload, request.cluster)
    e = estimate(*given, request.only_layout, stack)
    text = step_trace(e, *given, stack)
    if out is None:
        click.echo(text)
        return
    write_atomically(out, text)
    if as_json:
        print_json({"trace": str(out), "bytes": len(text)} | e.to_json())
    elif not quiet:
        click.echo(f"trace: {out} ({format_seconds(e.step_time_s)}); open it in ui.perfetto.dev", err=True)
