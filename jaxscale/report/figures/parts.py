"""What a step is made of: bars of time, memory and communication, of one or more estimates of any tier."""

from collections.abc import Mapping, Sequence

from jaxscale.report.explain import MEMORY_WORDS
from jaxscale.report.figures.marks import stacked_bars
from jaxscale.report.page import Evidence, Figure
from jaxscale.report.words import TIME_WORDS
from jaxscale.types import Estimate
from jaxscale.units import GIB

Labelled = Sequence[tuple[str, Estimate]]  # a bar's name and what it shows


def time_figure(bars: Labelled, evidence: Evidence) -> Figure:
    """Where the step's time goes: predicted, and the compiler's schedule at the same prices."""
    caption = (
        "Time of a step by part. Communication counts where no compute hides it; a compiled bar is the compiler's own "
        "ops and overlap at the cost model's prices."
    )
    parts = [(label, _time_parts(e)) for label, e in bars if e.time_parts_s]
    return stacked_bars("time-parts", caption, evidence, parts, unit="seconds", scale=1.0)


def _time_parts(e: Estimate) -> Mapping[str, float]:
    if e.tier == "compiled":
        return {
            "compiled compute" if k == "compute" else f"compiled, exposed {k}": s for k, s in e.time_parts_s.items()
        }
    return {TIME_WORDS.get(part, part): s for part, s in e.time_parts_s.items()}


def memory_figure(bars: Labelled, limit_bytes: float, evidence: Evidence) -> Figure:
    """Memory at the peak, predicted and as compiled, side by side."""
    caption = "Memory of one device at the peak, by what holds it. The dashed line is what a program can allocate."
    parts = [(label, _memory_parts(e)) for label, e in bars if e.memory_parts_bytes]
    limit = limit_bytes, f"limit {limit_bytes / GIB:.1f} GiB"
    return stacked_bars("memory-parts", caption, evidence, parts, unit="GiB", scale=GIB, limit=limit)


def _memory_parts(e: Estimate) -> Mapping[str, float]:
    if e.tier == "compiled":
        return {f"compiled {name}": size for name, size in e.memory_parts_bytes.items()}
    return {MEMORY_WORDS.get(part, part): size for part, size in e.memory_parts_bytes.items()}


def communication_figure(bars: Labelled, evidence: Evidence) -> Figure:
    """Bytes that one device sends a step, by mesh axes."""
    caption = "What one device sends in a step, by the mesh axes that the collective spans."
    return stacked_bars(
        "communication", caption, evidence, [(label, e.comm_bytes) for label, e in bars], unit="GiB", scale=GIB
    )
