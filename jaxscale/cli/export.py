"""`jaxscale export`: a layout as another framework's configuration."""

from pathlib import Path

import click

from jaxscale.cli.common import Request, check_writable, json_option, print_json, request_options, write_atomically
from jaxscale.export import TARGETS


@click.command()
@request_options(layout=True)
@click.option("--to", "target", type=click.Choice(list(TARGETS)), required=True, help="The framework to write for.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here instead of to stdout.")
@json_option
def command(request: Request, target: str, out: Path | None, as_json: bool) -> None:
    """Write a layout as the configuration of another training framework.

    \b
    jaxscale export llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=32" --to maxtext

    What that framework cannot be told is said on stderr.
    """
    if out is not None:
        check_writable(out)
    made = TARGETS[target](request.shape, request.workload, request.cluster, request.only_layout)
    if out is not None:
        write_atomically(out, made.text)
    if as_json:
        print_json({"target": target, "filename": made.filename, "text": made.text, "notes": made.notes})
        return
    if out is None:
        click.echo(made.text, nl=False)
    else:
        click.echo(f"written: {out}", err=True)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
