"""What `jaxscale sweep` prints: the plan of a dry run, and what came of a sweep."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxscale.cli.sweep_points import Point, Skipped
from jaxscale.report.words import plural
from jaxscale.types.measurement import Measurement
from jaxscale.units import format_bytes, format_seconds

MOST_ROWS = 60
FASTEST = 12
MOST_REASONS = 5


def plan_table(points: Sequence[Point], skipped: Sequence[Skipped], known: Sequence[bool]) -> RenderableType:
    """What a sweep would measure, with predicted time and memory."""
    table = _table("", "model", "batch", "step", "memory", "layout")
    for point, here in list(zip(points, known, strict=True))[:MOST_ROWS]:
        e = point.predicted
        memory = format_bytes(e.memory_bytes) + ("" if e.fits else " !")
        table.add_row("kept" if here else "", *_what(point), format_seconds(e.step_time_s), memory, _layout(point))
    lines = []
    if len(points) > MOST_ROWS:
        lines.append(f"... and {len(points) - MOST_ROWS} more")
    todo = len(points) - sum(known)
    lines.append(
        f"{plural(todo, 'measurement')} to make, {sum(known)} in the store already (kept). Step and memory are"
    )
    lines.append("predicted; ! does not fit.")
    return Group(table, Text("\n".join(["", *lines, *_reasons(skipped)])))


def result_table(points: Sequence[Point], measured: Mapping[int, Measurement]) -> Table:
    """The fastest of what was measured, with what was predicted."""
    table = _table("run", "model", "batch", "measured", "predicted", "layout")
    timed = [(m.median_s, index) for index, m in measured.items() if m.status == "ok" and m.median_s]
    for seconds, index in sorted(timed)[:FASTEST]:
        point = points[index]
        times = format_seconds(seconds), format_seconds(point.predicted.step_time_s)
        table.add_row(measured[index].identifier[:8], *_what(point), *times, _layout(point))
    return table


def summary(
    points: Sequence[Point], skipped: Sequence[Skipped], outcomes: Mapping[str, int], in_store: int, address: str,
    *, interrupted: bool,
) -> Text:  # fmt: skip
    """How it went, in words."""
    done = sum(outcomes.values())
    ended = ", ".join(f"{count} {status}" for status, count in sorted(outcomes.items()))
    lines = [
        f"{plural(done, 'measurement')} made" + (f" ({ended})" if ended else "") + f", {in_store} were in {address}"
    ]
    left = len(points) - done - in_store
    if interrupted:
        lines.append(f"stopped with {left} to go; what was measured is kept, and the same command goes on")
    return Text("\n".join([*lines, *_reasons(skipped)]))


def _reasons(skipped: Sequence[Skipped]) -> list[str]:
    lines = [f"{plural(len(skipped), 'combination')} cannot run:"] if skipped else []
    lines += [f"  {entry.what}: {entry.why}" for entry in skipped[:MOST_REASONS]]
    return lines + ([f"  ... and {len(skipped) - MOST_REASONS} more"] if len(skipped) > MOST_REASONS else [])


def _what(point: Point) -> tuple[str, str]:
    asked = point.request
    return asked.shape.name, f"{asked.workload.global_batch_size}x{asked.workload.seq_len}"


def _layout(point: Point) -> str:
    return str(point.request.layout).replace(",", ", ")  # so that it can be wrapped


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in headings:
        right = heading in ("batch", "step", "memory", "measured", "predicted")
        table.add_column(heading, justify="right" if right else "left", no_wrap=right)
    return table
