"""`jaxscale explore`: change a layout by hand and see time and memory move."""

import sys

import click

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import Request, json_option, print_json, request_options
from jaxscale.cli.progress import Bars
from jaxscale.errors import SpecError
from jaxscale.types import Layout


@click.command()
@request_options(layout=True)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(request: Request, quiet: bool, as_json: bool) -> None:
    """Change a layout with the arrow keys; time and memory follow.

    \b
    jaxscale explore llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128

    Up and down choose a field, left and right its value; an axis takes its devices from fsdp. u takes a change back, c
    copies the layout, q leaves. It begins at --layout, else at the best layout that search finds, and prints the layout
    at which it was left, so that another command can take it.
    """
    from jaxscale.cli.explorer.moves import Problem, point, start

    problem = Problem(shape=request.shape, workload=request.workload, cluster=request.cluster)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise SpecError("explore needs a terminal; jaxscale predict and explain answer for one layout without")
    layout = start(problem, request.layout, None if request.layout else _best(request, quiet=quiet))
    from jaxscale.cli.explorer.app import Explorer

    left = Explorer(problem, layout).run() or layout
    if as_json:
        there = point(problem, left)
        record = there.estimate.to_json() if there.estimate else {"layout_text": str(left), "reasons": there.reasons}
        print_json({"model": request.shape.name, "cluster": request.cluster.name} | record)
    else:
        click.echo(str(left))


def _best(request: Request, *, quiet: bool) -> Layout | None:
    """The best layout of a search, or the one that needs the least memory where none fits."""
    from jaxscale.search import search

    cluster = request.cluster
    with Bars(quiet=quiet) as bars:
        result = search(
            request.shape, request.workload, cluster, stack=own_stack(cluster, request.workload), top=1,
            progress=bars.searching(cluster.name),
        )  # fmt: skip
    best = result.ranked or result.closest
    return best[0].layout if best else None
