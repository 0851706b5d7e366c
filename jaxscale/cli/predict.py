"""`jaxscale predict`: time, memory, MFU and money of one layout."""

import click

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import Request, json_option, print_json, request_options
from jaxscale.cost import estimate


@click.command()
@request_options(layout=True)
@json_option
def command(request: Request, as_json: bool) -> None:
    """Predict time, memory, MFU and money of one layout.

    \b
    jaxscale predict llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=32,remat=dots"

    MODEL is a preset (`jaxscale models`), a Hugging Face config.json, a YAML shape, or a run spec that stands for all
    flags.
    """
    layout = request.only_layout
    estimates = [
        estimate(request.shape, request.workload, cluster, layout, own_stack(cluster, request.workload))
        for cluster in request.clusters
    ]
    if as_json:
        records = [
            {"model": request.shape.name, "cluster": cluster.name} | e.to_json()
            for cluster, e in zip(request.clusters, estimates, strict=True)
        ]
        print_json(records[0] if len(records) == 1 else {"results": records})
        return
    from jaxscale.report.terminal import console, estimate_view, title

    out = console()
    for cluster, e in zip(request.clusters, estimates, strict=True):
        out.print(title(request.shape, request.workload, cluster))
        out.print()
        out.print(estimate_view(e))
