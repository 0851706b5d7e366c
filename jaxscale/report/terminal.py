"""Results as text for a terminal of 80 columns; colours and bars survive a pipe as plain characters."""

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jaxscale.report.explain import COMMUNICATION
from jaxscale.report.words import RULE_WORDS, largest_parts, layout_sentences, plural, short_layout
from jaxscale.types import Cluster, Estimate, ModelShape, Workload
from jaxscale.types.checks import CheckedLayout, winner_of
from jaxscale.types.search import SearchResult
from jaxscale.units import format_bytes, format_dollars, format_seconds

WIDTH = 80
_EIGHTHS = " ▏▎▍▌▋▊▉"
BAR_CELLS = 26
MARKS = {True: ("ok  ", "green"), False: ("no  ", "red bold"), None: ("?   ", "yellow")}


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that is never wider than 80 columns, so that a piped table looks like a shown one."""
    made = Console(stderr=stderr, quiet=quiet, highlight=False)
    made.width = min(made.width, WIDTH) if made.is_terminal else WIDTH
    return made


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """A bar of block characters that fills `share` of `cells`.

    >>> bar(0.5, 4), bar(0.40625, 4), bar(1.7, 4)
    ('██  ', '█▋  ', '████')
    """
    eighths = round(max(0.0, min(share, 1.0)) * cells * 8)
    text = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return text.ljust(cells)


def title(shape: ModelShape, workload: Workload, cluster: Cluster) -> Text:
    """What is asked, in two lines."""
    text = Text()
    text.append(f"{shape.name}", style="bold")
    text.append(f" on {cluster.name}", style="bold")
    text.append(
        f"\n{workload.global_batch_size} sequences of {workload.seq_len} tokens a step, {workload.precision.name}, "
        f"{workload.optimizer.name}; {cluster.note or plural(cluster.num_chips, 'chip')}",
        style="dim",
    )
    return text


def estimate_view(estimate: Estimate) -> Group:
    """One layout: figures, then time and memory by part."""
    return Group(figures(estimate), Text(), time_table(estimate), Text(), memory_table(estimate), *_comm(estimate))


def figures(estimate: Estimate) -> Table:
    """The figures that people compare."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    interval = ""
    if estimate.interval_80_s:
        low, high = estimate.interval_80_s
        interval = f"  (80% interval {format_seconds(low)} to {format_seconds(high)})"
    table.add_row("layout", short_layout(estimate.layout))
    table.add_row("step time", f"[bold]{format_seconds(estimate.step_time_s)}[/]{interval}")
    table.add_row("throughput", f"{estimate.tokens_per_s_per_chip:,.0f} tokens/s per chip")
    table.add_row("MFU, HFU", f"{estimate.mfu:.1%}, {estimate.hfu:.1%}")
    if estimate.dollars_per_billion_tokens:
        table.add_row("money", f"{format_dollars(estimate.dollars_per_billion_tokens)} per billion tokens")
    fits = "[green]fits[/]" if estimate.fits else "[red bold]does not fit[/]"
    used, limit = format_bytes(estimate.memory_bytes), format_bytes(estimate.memory_limit_bytes)
    table.add_row("memory", f"{used} of {limit} per device, {fits}")
    if estimate.host_memory_bytes:
        table.add_row("host memory", f"{format_bytes(estimate.host_memory_bytes)} per device")
    return table


def time_table(estimate: Estimate) -> Table:
    """Seconds of a step by part, as bars of the step; of communication what no compute hides."""
    parts = {f"{part} exposed" if part in COMMUNICATION else part: s for part, s in estimate.time_parts_s.items()}
    return _parts_table("Time of a step", parts, estimate.step_time_s, format_seconds, "cyan")


def memory_table(estimate: Estimate) -> Table:
    """Bytes at the peak by part, as bars of the memory there is."""
    limit = estimate.memory_limit_bytes
    heading = "Memory per device at the peak"
    table = _parts_table(heading, estimate.memory_parts_bytes, limit, format_bytes, "magenta")
    free = limit - estimate.memory_bytes
    if free > 0:
        table.add_row("free", "", format_bytes(free), f"{free / limit:.1%}", style="dim")
    return table


def _parts_table(heading: str, parts: Mapping[str, float], whole: float, form, colour: str) -> Table:
    table = Table(title=heading, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 1))
    table.add_column(min_width=17)
    table.add_column(style=colour, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    for name, value in largest_parts(dict(parts)):
        table.add_row(name, bar(value / whole), form(value), f"{value / whole:.1%}")
    return table


def _comm(estimate: Estimate) -> list[RenderableType]:
    if not estimate.comm_bytes:
        return []
    sent = ", ".join(f"{axes} {format_bytes(size)}" for axes, size in largest_parts(estimate.comm_bytes, share=0.0))
    return [Text(), Text.assemble(("Sent by one device in a step  ", "bold"), sent)]


def counts(result: SearchResult) -> Text:
    """How much was looked at, and what became of it."""
    text = Text(
        f"Looked at {result.num_looked_at:,} layouts in {format_seconds(result.seconds)} "
        f"({result.layouts_per_s / 1e6:.2f} million a second): {result.num_legal:,} can run, "
        f"{result.num_fitting:,} of them fit with {result.headroom:.0%} of memory left free."
    )
    return text


def ranking(rows: Sequence[CheckedLayout]) -> Table:
    """The best layouts, with the compiler's memory beside the predicted where there is one."""
    compiled = any(row.checks for row in rows)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("#", justify="right")
    table.add_column("step", no_wrap=True, justify="right")
    table.add_column("MFU", no_wrap=True, justify="right")
    table.add_column("memory", no_wrap=True, justify="right")
    if compiled:
        table.add_column("compiled", no_wrap=True, justify="right")
    table.add_column("$/1B tok", no_wrap=True, justify="right")
    table.add_column("layout")
    for row in rows:
        e = row.predicted
        style = "" if row.passed else "strike dim"
        cells = [
            f"{row.rank} {row.mark}".rstrip(),
            format_seconds(e.step_time_s),
            f"{e.mfu:.1%}",
            format_bytes(e.memory_bytes),
        ]
        if compiled:
            cells.append(format_bytes(row.compiled.memory_bytes) if row.compiled else "")
        money = format_dollars(e.dollars_per_billion_tokens) if e.dollars_per_billion_tokens else "-"
        table.add_row(*cells, money, short_layout(e.layout), style=style)
    return table


def check_lines(rows: Sequence[CheckedLayout]) -> Group:
    """What each check said, one line each."""
    lines = []
    for row in rows:
        for check in row.checks:
            mark = MARKS[check.passed]
            lines.append(Text.assemble(mark, (f"#{row.rank} {check.kind}: ", "bold"), check.sentence))
    return Group(*lines)


def rejected_table(result: SearchResult) -> Table:
    """Why layouts were rejected, by how many."""
    table = Table(
        title="Rejected", title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 1)
    )
    most = max(result.rejected.values(), default=1)
    for reason, count in sorted(result.rejected.items(), key=lambda item: -item[1]):
        table.add_row(RULE_WORDS.get(reason, reason), Text(bar(count / most, 20), style="yellow"), f"{count:,}")
    return table


def search_view(result: SearchResult, rows: Sequence[CheckedLayout]) -> Group:
    """A whole search: counts, ranking, the winner in detail and in words."""
    parts: list[RenderableType] = [title(result.shape, result.workload, result.cluster), Text(), counts(result)]
    if rows:
        parts += [Text(), ranking(rows)]
    if any(row.checks for row in rows):
        parts += [Text(), check_lines(rows)]
    winner = winner_of(rows)
    if winner is not None:
        e = winner.predicted
        words = layout_sentences(e.layout, result.workload, result.cluster)
        parts += [
            Text(f"\nThe best: #{winner.rank}", style="bold"),
            Padding(Text("\n".join(words)), (0, 0, 1, 2)),
            time_table(e), Text(), memory_table(e), *_comm(e),
        ]  # fmt: skip
    parts += [Text(), rejected_table(result)]
    return Group(*parts)


def comparison(results: Sequence[SearchResult]) -> Table:
    """Clusters against each other: the best layout of each, by time and by money."""
    best = [(result.cluster, result.ranked[0]) for result in results if result.ranked]
    by_time = sorted(best, key=lambda item: item[1].step_time_s)
    priced = [item for item in best if item[1].dollars_per_billion_tokens]
    by_money = [cluster.name for cluster, _ in sorted(priced, key=lambda item: item[1].dollars_per_billion_tokens)]
    table = Table(title="Clusters compared", title_justify="left", title_style="bold", box=None, padding=(0, 1))
    for heading in ("cluster", "chips", "step", "by time", "$/1B tok", "by money", "MFU"):
        table.add_column(heading, justify="left" if heading == "cluster" else "right", no_wrap=heading != "cluster")
    for place, (cluster, e) in enumerate(by_time, start=1):
        money = format_dollars(e.dollars_per_billion_tokens) if e.dollars_per_billion_tokens else "-"
        rank = str(by_money.index(cluster.name) + 1) if cluster.name in by_money else "-"
        table.add_row(
            cluster.name, str(cluster.num_chips), format_seconds(e.step_time_s), str(place), money, rank, f"{e.mfu:.1%}"
        )
    for result in results:
        if not result.ranked:
            table.add_row(
                result.cluster.name, str(result.cluster.num_chips), "none fits", "-", "-", "-", "-", style="dim"
            )
    return table
