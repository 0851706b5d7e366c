"""`jaxscale launch`: files that start a measurement or a sweep on a slice."""

from pathlib import Path

import click

from jaxscale.cli.common import check_writable, json_option, print_json, write_atomically
from jaxscale.launch import TARGETS, load_slice, make_job, render


@click.command()
@click.argument("where", metavar="SLICE")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...")
@click.option("--to", "target", required=True, type=click.Choice(list(TARGETS)), help="What starts it.")
@click.option("--name", default="", metavar="NAME", help="Of the job.  [default: from command and slice]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there.  [default: stdout]")
@click.option(
    "--with", "extra", multiple=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Another file that the command reads. May repeat.",
)  # fmt: skip
@click.option("--package", default="", metavar="P", help="What pip installs.  [default: jaxscale[tpu] or [cuda]]")
@click.option("--store", default="runs.db", show_default=True, metavar="S", help="Where results go; not for gke.")
@click.option("--image", default="python:3.12-slim", show_default=True, metavar="I", help="Container image, for gke.")
@click.option("--queue", default="", metavar="Q", help="Kueue's local queue, for gke; xpk's is multislice-queue.")
@click.option("--partition", default="", metavar="P", help="For slurm.")
@click.option("--hours", default=4.0, show_default=True, type=float, help="Longest run, for gke and slurm.")
@json_option
def command(
    where: str, words: tuple[str, ...], target: str, name: str, out: Path | None, extra: tuple[Path, ...], package: str,
    store: str, image: str, queue: str, partition: str, hours: float, as_json: bool,
) -> None:  # fmt: skip
    """Write the file that starts a command on every host of a slice.

    \b
    jaxscale launch tpu_configs/v5p-64.yaml --to gke -- sweep sweep.yaml
    jaxscale launch h100-sxm:16 --to slurm --out job.sbatch -- \\
        measure llama3-8b --cluster h100-sxm:16 --layout "fsdp=16" \\
        --seq-len 8192 --global-batch-size 16

    SLICE is a file of tpu_configs/, or a cluster of GPUs. COMMAND is measure or sweep (on one host also tune or probe)
    with its arguments; the files that it names travel inside the launch file. The hosts find each other through
    jax.distributed.
    """
    if out is not None:
        check_writable(out)
    job = make_job(
        load_slice(where), words, name=name, extra_files=extra, package=package, image=image, queue=queue,
        partition=partition, hours=hours, store=store,
    )  # fmt: skip
    text = render(job, target)
    if out is not None:
        write_atomically(out, text)
    if as_json:
        print_json({"target": target, "text": text, "out": str(out) if out else None})
        return
    if out is None:
        click.echo(text, nl=False)
        return
    click.echo(f"written to {out}; {_start(target, out)}")


def _start(target: str, out: Path) -> str:
    """How to start what was written."""
    how = {"gcloud": "bash", "gke": "kubectl apply -f", "slurm": "sbatch", "skypilot": "sky launch"}[target]
    return f"start it with: {how} {out}"
