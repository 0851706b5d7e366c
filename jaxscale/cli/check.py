"""`jaxscale check`: what is predicted against what the compiler makes, over a grid of layouts."""

import math
from typing import TYPE_CHECKING, Any

import click

from jaxscale.aot.agreement import Agreement, Spread, compare, summarise
from jaxscale.aot.compile import DEFAULT_TIMEOUT_S
from jaxscale.aot.pool import compile_layouts
from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import CompiledStep
from jaxscale.api.compiled import compiled_estimate
from jaxscale.cli.common import json_option, print_json
from jaxscale.cli.grid import Case, cases, load_grids
from jaxscale.cost import estimate, program_flops
from jaxscale.errors import InfeasibleError

if TYPE_CHECKING:
    from rich.table import Table

FIELDS = ("memory", "state", "working", "flops", "communication", "step_time")


@click.command()
@click.option(
    "--grid",
    "grid_path",
    required=True,
    type=click.Path(),
    metavar="GRID.yaml",
    help="The cases; or a folder of such files.",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Compiles at once.  [default: what fits]")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=1), default=DEFAULT_TIMEOUT_S, metavar="S", show_default=True,
    help="Seconds for one compile.",
)  # fmt: skip
@json_option
def command(grid_path: str, workers: int | None, timeout_s: float, as_json: bool) -> None:
    """Compare predictions with the compiler over a grid.

    \b
    models: [llama3-8b, mixtral-8x7b]
    clusters: [v5p-64, v5e-256]
    layouts: ["fsdp=*,remat=full", "fsdp=*,tensor=4,sp=true"]
    seq_lens: [4096, 8192]

    A layout's * takes the devices that are left. Answers are kept: run again, it compiles only what is new. TPU
    compiles stop once memory is assigned: what comes then takes ten times as long and changes nothing compared here.
    """
    found = [case for grid in load_grids(grid_path) for case in cases(grid)]
    if not found:
        raise InfeasibleError(f"{grid_path}: no layout of the grid can run its models on its clusters")
    requests = [
        CompileRequest(shape=c.shape, workload=c.workload, layout=c.layout, cluster=c.cluster, quick=True)
        for c in found
    ]
    rows: dict[int, dict[str, Any]] = {}
    notes: set[str] = set()
    agreements: dict[int, Agreement] = {}
    for index, step in compile_layouts(requests, workers=workers, timeout_s=timeout_s):
        rows[index], agreement = _row(found[index], step)
        notes.add(step.target.note)
        if agreement is not None:
            agreements[index] = agreement
        click.echo(f"{len(rows)}/{len(found)} {_line(found[index], step, agreement)}", err=True)
    summary = summarise([agreements[index] for index in sorted(agreements)])
    verdicts = [a.verdict for a in agreements.values()]
    if as_json:
        print_json(
            {
                "cases": [rows[index] for index in sorted(rows)],
                "summary": {name: _spread_record(s) for name, s in summary.items()},
                "verdicts_agree": sum(verdicts) / len(verdicts) if verdicts else None,
                "notes": sorted(notes - {""}),
            }
        )
        return
    _print(found, agreements, summary, verdicts)
    for note in sorted(notes - {""}):
        click.echo(f"\n{note}")


def _row(case: Case, step: CompiledStep) -> tuple[dict[str, Any], Agreement | None]:
    """The record of one case, and the differences where there is something to compare."""
    record: dict[str, Any] = {
        "model": case.shape.name,
        "cluster": case.cluster.name,
        "seq_len": case.workload.seq_len,
        "layout": str(case.layout),
        "status": step.status,
        "message": step.message,
    }
    if step.status == "failed":
        return record, None
    predicted = estimate(case.shape, case.workload, case.cluster, case.layout)
    compiled = compiled_estimate(step, case.shape, case.workload, case.cluster)
    flops = program_flops(case.shape, case.workload, case.cluster, case.layout)
    agreement = compare(predicted, compiled, program_flops=flops, fitted=step.status == "compiled")
    record |= {
        "predicted": _figures(predicted),
        "compiled": _figures(compiled),
        "difference": {name: _finite(getattr(agreement, name)) for name in FIELDS if name != "communication"}
        | {"communication": {axes: _finite(d) for axes, d in agreement.communication.items()}},
        "verdict_agrees": agreement.verdict,
    }
    return record, agreement


def _figures(e: Any) -> dict[str, Any]:
    return {
        "memory_bytes": _finite(e.memory_bytes),
        "memory_parts_bytes": e.memory_parts_bytes,
        "flops": _finite(e.hardware_flops),
        "comm_bytes": e.comm_bytes,
        "step_time_s": _finite(e.step_time_s),
        "fits": e.fits,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _spread_record(s: Spread | None) -> dict[str, Any] | None:
    return None if s is None else {"count": s.count, "median": s.median, "p95": s.p95, "largest": _finite(s.largest)}


def _line(case: Case, step: CompiledStep, agreement: Agreement | None) -> str:
    """One case's news for the progress on stderr."""
    if agreement is None:
        return f"{case}: {step.message}"
    how = "kept" if step.cached else f"{step.total_s:.0f} s"
    return f"{case} ({how}): memory {_percent(agreement.memory)}, FLOPs {_percent(agreement.flops)}"


def _percent(value: float) -> str:
    return f"{value:+.1%}" if math.isfinite(value) else "-"


def _print(
    found: list[Case], agreements: dict[int, Agreement], summary: dict[str, Spread | None], verdicts: list[bool]
) -> None:
    from jaxscale.report.terminal import console

    out = console()
    out.print(_case_table(found, agreements))
    out.print()
    out.print(_summary_table(summary))
    if verdicts:
        out.print(f"\nverdicts agree in {sum(verdicts)} of {len(verdicts)} cases")
    failed = len(found) - len(agreements)
    if failed:
        out.print(f"{failed} of {len(found)} did not compile: see stderr, or --json")


def _case_table(found: list[Case], agreements: dict[int, Agreement]) -> "Table":
    from rich.table import Table

    table = Table(title="Predicted over compiled, less one", title_justify="left", title_style="bold", box=None)
    table.add_column("case", overflow="fold", ratio=1)
    for column in ("memory", "state", "working", "FLOPs", "sent", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for index in sorted(agreements):
        a = agreements[index]
        worst = max(a.communication.values(), key=abs, default=0.0)
        cells = (a.memory, a.state, a.working, a.flops, worst, a.step_time)
        table.add_row(str(found[index]), *map(_percent, cells), style="" if a.verdict else "red")
    return table


def _summary_table(summary: dict[str, Spread | None]) -> "Table":
    from rich.table import Table

    table = Table(title="Absolute differences", title_justify="left", title_style="bold", box=None)
    table.add_column("field")
    for column in ("median", "95th percentile", "largest", "figures"):
        table.add_column(column, justify="right")
    for name, s in summary.items():
        if s is not None:
            largest = f"{s.largest:.2%}" if math.isfinite(s.largest) else "one side zero"
            table.add_row(name.replace("_", " "), f"{s.median:.2%}", f"{s.p95:.2%}", largest, str(s.count))
    return table
