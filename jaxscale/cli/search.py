"""`jaxscale search`: the best layouts for a model on a cluster, checked and reported."""

import functools
from collections.abc import Sequence
from pathlib import Path

import click

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster
from jaxscale.cli.checks import CHECKS, checked
from jaxscale.cli.common import (
    Request,
    check_writable,
    json_option,
    print_json,
    report_option,
    request_options,
    write_report,
)
from jaxscale.cli.progress import Bars
from jaxscale.errors import CatalogError, InfeasibleError, SpecError, nearest
from jaxscale.search import (
    DEFAULT_HEADROOM,
    OBJECTIVES,
    Limits,
    SearchResult,
    parse_limits,
    remedies,
    search,
    single_changes,
)
from jaxscale.types import Cluster
from jaxscale.types.checks import CheckedLayout, winner_of
from jaxscale.units import format_bytes, format_seconds


@click.command()
@request_options()
@click.option("--top", type=click.IntRange(1, 1000), metavar="K", help="Layouts to show and check.  [default: 3]")
@click.option("--objective", metavar="O", help=f"{', '.join(OBJECTIVES)}.  [default: time]")
@click.option("--limit", "limits", multiple=True, metavar="L", help='Such as "tensor<=8,remat=full|dots". May repeat.')
@click.option("--headroom", type=float, metavar="F", help=f"Share of memory left free.  [default: {DEFAULT_HEADROOM}]")
@click.option("--check", "check", metavar="C", help=f"{','.join(CHECKS)}: check the best ones for real.")
@report_option
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(
    request: Request,
    top: int | None,
    objective: str | None,
    limits: tuple[str, ...],
    headroom: float | None,
    check: str | None,
    report: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find the best layouts for a model on a cluster, and check them.

    \b
    jaxscale search llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --check compile,twin --report report.html

    MODEL is a preset (`jaxscale models`), a Hugging Face config.json, a YAML shape, or a run spec that stands for all
    flags. Several --cluster are ranked against each other by time and by money.
    """
    settings = request.search
    kinds = parse_checks(check) if check is not None else settings.check
    allowed = parse_limits(*(limits or settings.limits))
    report = report or (Path(request.output.report) if request.output.report else None)
    if report is not None:
        check_writable(report)
    with Bars(quiet=quiet) as bars:
        results = [
            search(
                request.shape, request.workload, cluster, stack=own_stack(cluster, request.workload), limits=allowed,
                objective=objective or settings.objective,
                top=top or settings.top, headroom=_headroom(headroom, settings.headroom),
                progress=bars.searching(cluster.name),
            )
            for cluster in request.clusters
        ]  # fmt: skip
        best = _best(results)
        rows = checked(best, kinds, bars.said) if best.ranked else ()
    as_json = as_json or request.output.json
    _show(results, best, rows, as_json=as_json)
    if report is not None and best.ranked:
        _write_report(report, results, best, rows)
    if not best.ranked:
        raise InfeasibleError(nothing_fits(best, allowed))
    if not any(row.passed for row in rows):
        raise InfeasibleError(f"none of the {len(rows)} best layouts passed its checks; see above why")


def parse_checks(text: str) -> tuple[str, ...]:
    """Read `compile,twin`."""
    kinds = tuple(filter(None, (kind.strip() for kind in text.split(","))))
    for kind in kinds:
        if kind not in CHECKS:
            raise SpecError(f"--check: {kind!r} is not one of {', '.join(CHECKS)}.{nearest(kind, CHECKS)}")
    return kinds


def _headroom(flag: float | None, spec: float) -> float:
    return flag if flag is not None else spec or DEFAULT_HEADROOM


def _best(results: Sequence[SearchResult]) -> SearchResult:
    """The cluster that wins by the objective, or the first where nothing fits anywhere."""
    feasible = [result for result in results if result.ranked]
    if not feasible:
        return results[0]
    by = {
        "time": lambda r: r.ranked[0].step_time_s,
        "money": lambda r: r.ranked[0].dollars_per_billion_tokens,
        "memory": lambda r: r.ranked[0].memory_bytes,
    }
    return min(feasible, key=by[results[0].objective])


def _show(results: Sequence[SearchResult], best: SearchResult, rows: Sequence[CheckedLayout], *, as_json: bool) -> None:
    if as_json:
        records = [
            result.to_json() | ({"top": [row.to_json() for row in rows]} if result is best and rows else {})
            for result in results
        ]
        print_json(records[0] if len(records) == 1 else {"results": records, **_orders(results)})
        return
    from jaxscale.report.terminal import comparison, console, search_view

    out = console()
    if len(results) > 1:
        out.print(comparison(results))
        out.print()
    out.print(search_view(best, rows))


def _orders(results: Sequence[SearchResult]) -> dict[str, list[str]]:
    feasible = [result for result in results if result.ranked]
    priced = [result for result in feasible if result.cluster.dollars_per_chip_hour]
    by_time = sorted(feasible, key=lambda r: r.ranked[0].step_time_s)
    by_money = sorted(priced, key=lambda r: r.ranked[0].dollars_per_billion_tokens)
    return {
        "by_time": [result.cluster.name for result in by_time],
        "by_money": [result.cluster.name for result in by_money],
    }


def _write_report(
    path: Path, results: Sequence[SearchResult], best: SearchResult, rows: Sequence[CheckedLayout]
) -> None:
    from jaxscale.report.kinds.search import search_page

    winner = winner_of(rows) or rows[0]
    stack = own_stack(best.cluster, best.workload)
    changes = single_changes(best.shape, best.workload, best.cluster, winner.predicted.layout, stack)
    write_report(path, search_page(best, rows, results, changes, stack))


def nothing_fits(result: SearchResult, limits: Limits) -> str:
    """Say that no layout fits, how close it came, and what would change that."""
    lines = [f"no layout of {result.shape.name} fits on {result.cluster.name}"]
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in result.rejected.items())
    lines.append(f"  looked at {result.num_looked_at:,} layouts; rejected: {reasons}")
    for e in result.closest[:1]:
        lines.append(
            f"  the closest needs {format_bytes(e.memory_bytes)} of the {format_bytes(result.memory_budget_bytes)} "
            f"that {result.headroom:.0%} headroom leaves: {e.layout}"
        )
    found = remedies(result, limits, functools.partial(_resized, result.cluster))
    for remedy in found:
        e = remedy.estimate
        lines.append(f"  feasible with {remedy.what}: {e.layout}, {format_seconds(e.step_time_s)} a step")
    if not found:
        lines.append("  more chips (up to 64 times), lifted limits and no headroom were tried; none makes it fit")
    return "\n".join(lines)


def _resized(cluster: Cluster, num_chips: int) -> Cluster:
    """The same kind of cluster with more chips: a larger one, or several TPU slices where none is that large."""
    try:
        return load_cluster(cluster.name, num_chips=num_chips)
    except CatalogError:
        return load_cluster(f"{num_chips // cluster.num_chips}x{cluster.name}")
