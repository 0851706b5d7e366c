"""`jaxscale fit`: the remat policy and the microbatch that make a layout fastest, confirmed by the compiler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import Request, json_option, print_json, request_options
from jaxscale.errors import InfeasibleError
from jaxscale.search.remat_fit import RematFit, fit_remat
from jaxscale.search.search import DEFAULT_HEADROOM
from jaxscale.types import Estimate
from jaxscale.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

MOST_COMPILES = 3
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What the compiler said of a candidate: memory it needs, or why there is no answer."""

    predicted: Estimate
    compiled: Estimate | None
    sentence: str

    @property
    def fits(self) -> bool:
        """Whether it compiled and fits."""
        return self.compiled is not None and self.compiled.fits


@click.command()
@request_options(layout=True)
@click.option(
    "--compiles", type=click.IntRange(0, MOST_COMPILES), default=MOST_COMPILES, show_default=True, metavar="N",
    help="Most candidates to compile until one is confirmed; 0 trusts the prediction.",
)  # fmt: skip
@click.option(
    "--headroom", type=click.FloatRange(0.0, 1.0, max_open=True), default=DEFAULT_HEADROOM, show_default=True,
    metavar="F", help="Share of device memory that must stay free.",
)  # fmt: skip
@json_option
def command(request: Request, compiles: int, headroom: float, as_json: bool) -> None:
    """Fit remat policy and microbatch to a layout's memory.

    \b
    jaxscale fit llama3-8b --cluster v5e-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=64"

    An integer program decides for every op of a layer whether its output is kept, waits in host memory or is computed
    again; the fastest that fits is compiled, at most three candidates in all. Exits with 3 where nothing fits.
    """
    from jaxscale.cli.progress import Bars

    stack = own_stack(request.cluster, request.workload)
    fit = fit_remat(
        request.shape, request.workload, request.cluster, request.only_layout, stack=stack, headroom=headroom
    )
    with Bars(quiet=as_json) as bars:
        confirmations = confirm(request, fit, compiles, bars.said) if fit.ranked else ()
    chosen = next((c.predicted for c in confirmations if c.fits), None)
    if chosen is None and not any(c.compiled for c in confirmations) and fit.ranked:
        chosen = fit.ranked[0]  # the compiler was not asked or had no answer
    if as_json:
        print_json(_record(request, fit, confirmations, chosen))
    else:
        _print(request, fit, confirmations, chosen)
    if chosen is None:
        raise InfeasibleError(
            f"{request.shape.name} on {request.cluster.name}: no remat policy and microbatch makes "
            f"{request.only_layout} fit; shard more, or ask `jaxscale search`"
        )


def confirm(request: Request, fit: RematFit, compiles: int, said: Callable[[str], None]) -> tuple[Confirmation, ...]:
    """Compile the ranked candidates, best first, until one fits.

    What the compiler needs over what was predicted moves the limit for those that follow.
    """
    from jaxscale.aot.compile import try_compile
    from jaxscale.api.compiled import compile_request, compiled_estimate

    done: list[Confirmation] = []
    over = 1.0
    for e in fit.ranked:
        if len(done) == compiles or (done and (done[-1].fits or done[-1].compiled is None)):
            break
        if e.memory_bytes * over > e.memory_limit_bytes:
            continue
        said(f"compiling {e.layout} for {request.cluster.name}")
        step = try_compile(compile_request(request.shape, request.workload, request.cluster, e.layout, quick=True))
        record = compiled_estimate(step, request.shape, request.workload, request.cluster) if step.memory else None
        if record is None:
            sentence = step.message
        else:
            over = record.memory_bytes / e.memory_bytes
            sentence = (
                f"the compiler needs {format_bytes(record.memory_bytes)} of {format_bytes(record.memory_limit_bytes)}: "
                f"it {'fits' if record.fits else 'does not fit'} (predicted {format_bytes(e.memory_bytes)})"
            )
        done.append(Confirmation(predicted=e, compiled=record, sentence=sentence))
        said(sentence)
    return tuple(done)


def _record(
    request: Request, fit: RematFit, confirmations: tuple[Confirmation, ...], chosen: Estimate | None
) -> dict[str, Any]:
    return {
        "model": request.shape.name,
        "cluster": request.cluster.name,
        "given": fit.given.to_json() if fit.given else None,
        "chosen": chosen.to_json() | {"layout_text": str(chosen.layout)} if chosen else None,
        "ranked": [e.to_json() for e in fit.ranked[:_SHOWN]],
        "integer_programs": fit.num_programs,
        "policies_priced": fit.num_policies,
        "headroom": fit.headroom,
        "compiles": [
            {
                "layout": str(c.predicted.layout),
                "predicted_memory_bytes": c.predicted.memory_bytes,
                "compiled_memory_bytes": c.compiled.memory_bytes if c.compiled else None,
                "fits": c.fits,
                "message": c.sentence,
            }
            for c in confirmations
        ],
    }


def _print(request: Request, fit: RematFit, confirmations: tuple[Confirmation, ...], chosen: Estimate | None) -> None:
    from jaxscale.report.terminal import console, title
    from jaxscale.report.words import remat_words

    out = console()
    out.print(title(request.shape, request.workload, request.cluster))
    out.print()
    if chosen is not None:
        gain = ""
        if fit.given is not None and fit.given.fits:
            gain = f", {fit.given.step_time_s / chosen.step_time_s:.2f}x as fast as the layout given"
        out.print(f"[bold]{chosen.layout}[/bold]")
        out.print(f"Predicted {format_seconds(chosen.step_time_s)} a step, MFU {chosen.mfu:.1%}{gain}.")
        out.print(f"Microbatch {chosen.layout.microbatch_size}; {remat_words(chosen.layout.remat)}.")
    for c in confirmations:
        out.print(f"Compiled, {c.predicted.layout.remat}: {c.sentence}.")
    if not confirmations:
        out.print("Not compiled.")
    out.print()
    out.print(_table(fit))
    out.print(
        f"{fit.num_programs} integer programs, {fit.num_policies} pairs of policy and microbatch priced, "
        f"{len(confirmations)} compiled.",
        style="dim",
    )


def _table(fit: RematFit) -> "Table":
    from rich.table import Table

    table = Table(title="Predicted", title_justify="left", title_style="bold", box=None, padding=(0, 1))
    for column in ("", "microbatch", "step", "MFU", "memory", "host", "remat"):
        numeric = column in ("microbatch", "step", "MFU", "memory", "host")
        table.add_column(column, justify="right" if numeric else "left", header_style="dim", overflow="fold")
    rows = [("given", fit.given)] if fit.given else []
    rows += [(f"#{rank}", e) for rank, e in enumerate(fit.ranked[:_SHOWN], start=1)]
    for name, e in rows:
        table.add_row(
            name, str(e.layout.microbatch_size), format_seconds(e.step_time_s), f"{e.mfu:.1%}",
            format_bytes(e.memory_bytes), format_bytes(e.host_memory_bytes) if e.host_memory_bytes else "",
            e.layout.remat.removeprefix("save:"),
        )  # fmt: skip
    return table
