"""What the screen of `jaxscale explore` shows, as text of at most 80 columns by 24 rows."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from jaxscale.cli.explorer.moves import FIELDS, Point, Problem, Value
from jaxscale.report.explain import MEMORY_WORDS, bound_sentence
from jaxscale.report.terminal import bar
from jaxscale.report.words import TIME_WORDS, largest_parts
from jaxscale.types import Estimate, Layout
from jaxscale.units import format_bytes, format_dollars, format_seconds

FIELD_COLUMNS, FIGURE_COLUMNS = 30, 49
MOST_TIME_PARTS, MOST_MEMORY_PARTS = 4, 4
_BAR_CELLS = 8


def heading(problem: Problem) -> Text:
    """What is explored, in one line."""
    w = problem.workload
    asked = f"{w.global_batch_size} x {w.seq_len} tokens, {w.precision.name}, {w.optimizer.name}"
    return Text.assemble((f"{problem.shape.name} on {problem.cluster.name}", "bold"), (f"  {asked}", "dim"))


def field_lines(layout: Layout, selected: str) -> Text:
    """One line for every field of the layout; the selected one is marked."""
    text = Text()
    for field in FIELDS:
        mark, style = ("›", "reverse") if field == selected else (" ", "")
        line = f"{mark} {field:<17} {value_text(getattr(layout, field))}"
        text.append(line[: FIELD_COLUMNS - 1].ljust(FIELD_COLUMNS - 1) + "\n", style=style)
    return text


def value_text(value: Value) -> str:
    """A value as `--layout` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def figure_lines(here: Point, before: Point) -> Text:
    """Time, memory, MFU and money of a point, with what the last move changed; or why it cannot run."""
    if here.estimate is None:
        return Text.assemble(("cannot run", "red bold"), "\n\n" + "\n".join(f"· {reason}" for reason in here.reasons))
    e = here.estimate
    text = Text()
    text.append("step time  ", style="dim")
    text.append(f"{format_seconds(e.step_time_s):>8}", style="bold")
    text.append_text(_change(e, before.estimate))
    text.append(f"\nMFU, HFU   {e.mfu:>8.1%}  {e.hfu:.1%}\n")
    money = f"  {format_dollars(e.dollars_per_billion_tokens)}/1B tokens" if e.dollars_per_billion_tokens else ""
    text.append(f"a chip     {e.tokens_per_s_per_chip:>8,.0f} tokens/s{money}\n")
    fits = ("fits", "green bold") if e.fits else ("does not fit", "red bold")
    text.append(f"memory     {format_bytes(e.memory_bytes):>8} of {format_bytes(e.memory_limit_bytes)}  ")
    text.append(*fits)
    text.append("\n")
    text.append(_bars("time", e.time_parts_s, TIME_WORDS, e.step_time_s, format_seconds, MOST_TIME_PARTS))
    words, limit = MEMORY_WORDS, e.memory_limit_bytes
    text.append(_bars("memory", e.memory_parts_bytes, words, limit, format_bytes, MOST_MEMORY_PARTS))
    return text


def bound_line(here: Point) -> str:
    """What the step waits for most; empty where it cannot run."""
    return bound_sentence(here.estimate) if here.estimate else ""


def _change(e: Estimate, before: Estimate | None) -> Text:
    if before is None or before.step_time_s == e.step_time_s:
        return Text()
    share = e.step_time_s / before.step_time_s - 1.0
    memory = e.memory_bytes - before.memory_bytes
    signed = f"{'+' if memory >= 0 else '-'}{format_bytes(abs(memory))}"
    return Text(f"  {share:+.1%}, memory {signed}", style="green" if share < 0 else "yellow")


def _bars(heading: str, parts: Mapping[str, float], words: Mapping[str, str], whole: float, form, most: int) -> str:
    """The largest parts as bars of the whole; the line breaks off where the column ends."""
    lines = [f"\n{heading}"]
    for name, amount in largest_parts(dict(parts), share=0.01)[:most]:
        word = words.get(name, name).removeprefix("exposed ")
        lines.append(f"{bar(amount / whole, _BAR_CELLS)} {form(amount):>9}  {word}"[:FIGURE_COLUMNS])
    return "\n".join(lines) + "\n"


def choice_line(field: str, options: Sequence[tuple[Value, Point]], layout: Layout) -> Text:
    """Every value of the selected field with the step time it leads to."""
    text = Text(f"{field}: ", style="dim")
    for value, there in options:
        said = "no" if there.estimate is None else format_seconds(there.estimate.step_time_s).replace(" ", "")
        if there.estimate is not None and not there.estimate.fits:
            said += "!"
        own = value == getattr(layout, field)
        text.append(value_text(value), style="bold reverse" if own else "")
        text.append(f" {said}", style="reverse" if own else "red" if there.estimate is None else "dim")
        text.append("  ")
    return text
