"""`jaxscale compile`: the real training step through the real compiler, for devices that need not be there."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jaxscale.aot.cache import Cache
from jaxscale.aot.compile import DEFAULT_TIMEOUT_S, compile_step
from jaxscale.aot.result import CompiledStep
from jaxscale.api.compiled import compile_request, compiled_estimate, compiled_trace
from jaxscale.cli.common import (
    Request,
    check_writable,
    json_option,
    print_json,
    report_option,
    request_options,
    write_atomically,
    write_report,
)
from jaxscale.cli.progress import Bars
from jaxscale.errors import InfeasibleError, SpecError
from jaxscale.types import Collective, Estimate
from jaxscale.units import format_bytes, format_seconds, format_si

if TYPE_CHECKING:
    from rich.table import Table

_MOST_ROWS = 16


@click.command()
@request_options(layout=True)
@click.option("--flag", "flags", multiple=True, metavar="K=V", help="A compiler option of XLA or libtpu; repeatable.")
@click.option(
    "--dump", type=click.Path(path_type=Path), metavar="DIR", help="Leave the optimized program and a trace there."
)
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=1), default=DEFAULT_TIMEOUT_S, metavar="S", show_default=True,
    help="Seconds until the compiler is stopped.",
)  # fmt: skip
@click.option(
    "--quick", is_flag=True, help="Stop once memory is assigned: ten times sooner, but no code size or cycles."
)
@click.option("--no-cache", is_flag=True, help="Compile even if the answer is kept from before.")
@report_option
@json_option
def command(
    request: Request,
    flags: tuple[str, ...],
    dump: Path | None,
    timeout_s: float,
    quick: bool,
    no_cache: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compile the real step ahead of time for a described cluster.

    \b
    jaxscale compile llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 32 --layout "fsdp=32,remat=full"

    Tells what the compiler allocates, computes and sends. TPU slices need libtpu, GPUs need JAX's CUDA plugin; neither
    needs the hardware. Exits with 3 where the step does not fit.
    """
    layout = request.only_layout
    if report is not None:
        check_writable(report)
    asked = compile_request(
        request.shape, request.workload, request.cluster, layout, flags=flags, dump=_dump_folder(dump), quick=quick
    )
    with Bars(quiet=as_json) as bars:
        bars.said(f"compiling for {request.cluster.name}; a large model takes a minute or two")
        step = compile_step(asked, timeout_s=timeout_s, cache=Cache(max_bytes=0) if no_cache else None)
    if dump is not None and step.status == "compiled":
        trace = compiled_trace(step, request.shape, request.workload, request.cluster)
        write_atomically(dump / "step.trace.json", trace)
    estimate = compiled_estimate(step, request.shape, request.workload, request.cluster)
    if report is not None:
        _write_report(report, request, step, estimate)
    if as_json:
        print_json(_record(step, estimate))
    else:
        _print(request, step, estimate)
    if not step.fits:
        raise InfeasibleError(f"{request.shape.name} on {request.cluster.name}: {estimate.reasons[0]}")


def _dump_folder(dump: Path | None) -> str:
    if dump is None:
        return ""
    try:
        dump.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"--dump: {dump} cannot be made: {error.strerror}") from error
    return str(dump.resolve())


def _write_report(path: Path, request: Request, step: CompiledStep, compiled: Estimate) -> None:
    """The compiler's answer beside the prediction."""
    from jaxscale.api.facts import compiler_facts
    from jaxscale.calibrate import own_stack
    from jaxscale.cost import estimate, problem
    from jaxscale.report.kinds.compile import compile_page
    from jaxscale.report.kinds.shared import Subject

    shape, workload, cluster = request.shape, request.workload, request.cluster
    stack = own_stack(cluster, workload)
    predicted = estimate(shape, workload, cluster, step.layout, stack)
    facts = compiler_facts(step, problem(shape, workload, cluster))
    subject = Subject(shape=shape, workload=workload, cluster=cluster, stack=stack)
    write_report(path, compile_page(subject, predicted, compiled, facts))


def _record(step: CompiledStep, estimate: Estimate) -> dict[str, Any]:
    """What `--json` prints: the estimate, and what only a compiler knows. A figure that is not known is null."""
    memory = step.memory
    program = step.program
    record = {"model": step.model, "cluster": step.cluster, "status": step.status, "message": step.message}
    record |= estimate.to_json()
    record["compiler"] = {
        "backend": step.target.backend,
        "note": step.target.note,
        "versions": dict(step.versions),
        "flags": dict(step.flags),
        "lower_s": step.lower_s,
        "compile_s": step.compile_s,
        "total_s": step.total_s,
        "peak_rss_bytes": step.peak_rss_bytes,
        "cached": step.cached,
        "hlo_path": step.hlo_path,
    }
    record["allocations_bytes"] = {name: getattr(memory, name) for name in memory.__slots__} if memory else None
    record["largest_buffers"] = [
        {"name": b.name, "bytes": b.num_bytes, "type": b.type_text, "source": b.source} for b in step.largest_buffers
    ]
    record["collectives"] = [_collective_record(c) for c in step.collectives]
    record["memory_traffic_bytes"] = program.device_bytes if program else None
    record["compiler_cycles_s"] = step.cycles_s
    record["unknown_loops"] = list(program.unknown_loops) if program else []
    record["uncounted_kernels"] = dict(program.uncounted_kernels) if program else {}
    return _without_nan(record)


def _collective_record(c: Collective) -> dict[str, Any]:
    return {
        "kind": c.kind,
        "axes": list(c.axes),
        "name": c.name,
        "bytes_each": c.bytes_each,
        "count": c.count,
        "wire_bytes": c.wire_bytes,
        "overlapped": c.asynchronous,
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(request: Request, step: CompiledStep, estimate: Estimate) -> None:
    from rich.text import Text

    from jaxscale.report.terminal import console, title

    out = console()
    out.print(title(request.shape, request.workload, request.cluster))
    out.print()
    out.print(_figures(step, estimate))
    if step.memory:
        out.print()
        out.print(_memory_table(step, estimate))
    if step.largest_buffers:
        out.print()
        out.print(_buffer_table(step))
    if step.collectives:
        out.print()
        out.print(_collective_table(step))
    if step.target.note:
        out.print()
        out.print(Text(step.target.note, style="dim"))


def _figures(step: CompiledStep, estimate: Estimate) -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    how = "kept from before" if step.cached else f"{format_seconds(step.total_s)}, {format_bytes(step.peak_rss_bytes)}"
    compiler = {"tpu": "libtpu", "gpu": "jax-cuda12-plugin", "cpu": "jaxlib"}[step.target.backend]
    table.add_row("layout", str(step.layout))
    table.add_row("compiled", f"for {step.target.backend} by {compiler} {step.versions.get(compiler, '')} ({how})")
    if step.program:
        table.add_row("FLOPs", f"{format_si(step.flops)}FLOP a device, {estimate.model_flops / step.flops:.1%} model's")
    if math.isfinite(estimate.step_time_s):
        bounds = f"{format_seconds(estimate.lower_s)} if all overlapped, {format_seconds(estimate.upper_s)} if nothing"
        table.add_row("step time", f"{format_seconds(estimate.step_time_s)} of this schedule ({bounds})")
        table.add_row("MFU, HFU", f"{estimate.mfu:.1%}, {estimate.hfu:.1%}")
    if step.program and step.program.cycles:
        table.add_row("diagnostic", f"{format_seconds(step.cycles_s)} by the compiler's cycles, collectives left out")
    if step.program and step.program.uncounted_kernels:
        table.add_row("not counted", f"FLOPs of {len(step.program.uncounted_kernels)} kernels that state none")
    if step.program and step.program.unknown_loops:
        table.add_row("not counted", f"trips of {len(step.program.unknown_loops)} loops: taken as one")
    return table


def _memory_table(step: CompiledStep, estimate: Estimate) -> "Table":
    from jaxscale.report.terminal import memory_table

    table = memory_table(estimate)
    used, limit = estimate.memory_bytes, estimate.memory_limit_bytes
    verdict = "fits" if step.fits else "does not fit"
    table.add_row("peak", verdict, format_bytes(used), f"of {format_bytes(limit)}")
    if estimate.host_memory_bytes:
        table.add_row("host memory", "", format_bytes(estimate.host_memory_bytes), "")
    return table


def _buffer_table(step: CompiledStep) -> "Table":
    table = _plain_table("Largest buffers", "op", "from", "bytes")
    for buffer in step.largest_buffers[: 8 if step.fits else _MOST_ROWS]:
        table.add_row(buffer.name, _tail(buffer.source), format_bytes(buffer.num_bytes))
    return table


def _tail(source: str) -> str:
    """The end of an op's path, which says most."""
    parts = source.replace("\\'", "'").split("/")
    return "/".join(parts[-2:])[-40:]


def _collective_table(step: CompiledStep) -> "Table":
    table = _plain_table("Collectives of a step", "kind", "axes", "bytes each", "count", "sent", "overlapped")
    for c in step.collectives[:_MOST_ROWS]:
        table.add_row(
            c.kind, "+".join(c.axes), format_bytes(c.bytes_each), f"{c.count:,.0f}", format_bytes(c.wire_bytes),
            "yes" if c.asynchronous else "no",
        )  # fmt: skip
    rest = step.collectives[_MOST_ROWS:]
    if rest:
        table.add_row(f"{len(rest)} smaller", "", "", "", format_bytes(sum(c.wire_bytes for c in rest)), "")
    for axes, sent in step.comm_bytes.items():
        table.add_row("all", axes, "", "", format_bytes(sent), "", style="bold")
    return table


def _plain_table(heading: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title=heading, title_justify="left", title_style="bold", box=None, padding=(0, 1))
    for column in columns:
        numeric = column in ("bytes", "bytes each", "count", "sent")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True, header_style="dim")
    return table
