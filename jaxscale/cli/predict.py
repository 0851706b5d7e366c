"""`jaxscale predict`: time, memory, MFU and money of one layout."""

from pathlib import Path

import click

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import (
    Request,
    check_writable,
    json_option,
    print_json,
    report_option,
    request_options,
    write_report,
)
from jaxscale.cost import estimate
from jaxscale.types import Estimate


@click.command()
@request_options(layout=True)
@report_option
@json_option
def command(request: Request, report: Path | None, as_json: bool) -> None:
    """Predict time, memory, MFU and money of one layout.

    \b
    jaxscale predict llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=32,remat=dots"

    MODEL is a preset (`jaxscale models`), a Hugging Face config.json, a YAML shape, or a run spec that stands for all
    flags.
    """
    layout = request.only_layout
    if report is not None:
        check_writable(report)
    estimates = [
        estimate(request.shape, request.workload, cluster, layout, own_stack(cluster, request.workload))
        for cluster in request.clusters
    ]
    if report is not None:
        _write_report(report, request, estimates[0])
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


def _write_report(path: Path, request: Request, e: Estimate) -> None:
    """The report of the one layout on the one cluster, with its neighbours."""
    from jaxscale.report.kinds.predict import predict_page
    from jaxscale.report.kinds.shared import Subject
    from jaxscale.search import single_changes

    shape, workload, cluster = request.shape, request.workload, request.cluster
    stack = own_stack(cluster, workload)
    subject = Subject(shape=shape, workload=workload, cluster=cluster, stack=stack)
    write_report(path, predict_page(subject, e, single_changes(shape, workload, cluster, e.layout, stack)))
