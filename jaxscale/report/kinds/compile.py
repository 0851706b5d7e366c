"""The report of a compiled step, beside what was predicted of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxscale.report.figures.marks import count_bars
from jaxscale.report.figures.parts import communication_figure, memory_figure, time_figure
from jaxscale.report.figures.readings import (
    Reading,
    memory_reading,
    memory_readings_figure,
    time_reading,
    time_readings_figure,
)
from jaxscale.report.figures.roofline import OpPoint, roofline_figure
from jaxscale.report.kinds.shared import (
    Subject,
    assumptions,
    communication_evidence,
    memory_evidence,
    step_cards,
    time_evidence,
)
from jaxscale.report.ops import device_roof
from jaxscale.report.page import Block, Card, Cards, Evidence, Page, Prose, Section, Table, number_table
from jaxscale.report.words import layout_sentences, short_layout
from jaxscale.types import Collective, Estimate
from jaxscale.units import GIB, format_bytes, format_seconds

MOST_BUFFERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerFacts:
    """What only a compiler knows of a step.

    `buffers` are names with bytes, largest first; `ops` every op that computes; `cycles_s` the compiler's own cycle
    count as seconds (NaN where it makes none); `versions` name the compiler; `note` is what it was compiled for.
    """

    status: str
    message: str
    compile_s: float
    cached: bool
    buffers: Sequence[tuple[str, float]] = ()
    ops: Sequence[OpPoint] = ()
    cycles_s: float = math.nan
    versions: Mapping[str, str] = field(default_factory=dict)
    flags: Sequence[tuple[str, str]] = ()
    note: str = ""


def compile_page(subject: Subject, predicted: Estimate, compiled: Estimate, facts: CompilerFacts) -> Page:
    """Lay the report of a compile out; times of `compiled` are NaN where there is no program."""
    bars = [("predicted", predicted), ("compiled", compiled)]
    timed = math.isfinite(compiled.step_time_s)
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(subject, predicted, compiled, facts)),
        Section(anchor="memory-section", heading="Memory", blocks=_memory(predicted, compiled, facts)),
        *([Section(anchor="time", heading="Time", blocks=_time(predicted, compiled, facts))] if timed else []),
        *(
            [Section(anchor="roofline-section", heading="Every op", blocks=_roofline(subject, facts))]
            if facts.ops
            else []
        ),
        Section(
            anchor="communication-section",
            heading="Communication",
            blocks=(
                communication_figure(bars, communication_evidence([predicted, compiled])),
                _collectives(compiled.collectives),
            ),
        ),
        assumptions(subject, _provenance(facts), predicted=predicted),
    ]
    return Page(
        title=f"{subject.shape.name} on {subject.cluster.name}: jaxscale compile",
        eyebrow=subject.eyebrow("compile"),
        headline=_headline(subject, compiled, facts),
        lead=(f"Layout {short_layout(compiled.layout)}.", *([facts.note] if facts.note else [])),
        sections=sections,
    )


def _headline(subject: Subject, compiled: Estimate, facts: CompilerFacts) -> str:
    where = f"{subject.shape.name} on {subject.cluster.name}"
    if not math.isfinite(compiled.memory_bytes):
        return f"{where} did not compile: {facts.message}"
    needed, limit = format_bytes(compiled.memory_bytes), format_bytes(compiled.memory_limit_bytes)
    if not compiled.fits or facts.status != "compiled":
        return f"{where} does not fit: the compiler needs {needed} of {limit} per device."
    time = f" and its schedule takes {format_seconds(compiled.step_time_s)}" if compiled.step_time_s > 0 else ""
    return f"{where} fits: the compiler needs {needed} of {limit} per device{time}."


def _answer(subject: Subject, predicted: Estimate, compiled: Estimate, facts: CompilerFacts) -> tuple[Block, ...]:
    cards = [
        Card(
            name="Compiled memory",
            value=format_bytes(compiled.memory_bytes) if math.isfinite(compiled.memory_bytes) else "unknown",
            note=f"of {format_bytes(compiled.memory_limit_bytes)} per device",
        ),
        Card(
            name="Predicted memory",
            value=format_bytes(predicted.memory_bytes),
            note=_off(predicted.memory_bytes, compiled.memory_bytes),
        ),
    ]
    if math.isfinite(compiled.step_time_s):
        cards = [*step_cards(compiled, subject.cluster)[:3], *cards]
    how = "kept from before" if facts.cached else "on this machine"
    cards.append(Card(name="Compiling took", value=format_seconds(facts.compile_s), note=how))
    words = layout_sentences(compiled.layout, subject.workload, subject.cluster)
    return (Cards(cards=cards), Prose(sentences=words, kind="list"))


def _off(predicted: float, compiled: float) -> str:
    """How far a prediction is from the compiler's figure."""
    return f"{predicted / compiled - 1.0:+.1%} of compiled" if math.isfinite(compiled) and compiled else ""


def _memory(predicted: Estimate, compiled: Estimate, facts: CompilerFacts) -> tuple[Block, ...]:
    both = [("predicted", predicted), ("compiled", compiled)]
    evidence, limit = memory_evidence([predicted, compiled]), compiled.memory_limit_bytes
    blocks: list[Block] = [
        memory_readings_figure([memory_reading(label, e) for label, e in both], limit, evidence),
        memory_figure(both, limit, evidence),
    ]
    if facts.buffers:
        sizes = {name: size / GIB for name, size in facts.buffers[:MOST_BUFFERS]}
        sure = "The compiler's own allocation; values that share a place count once, by the largest."
        exact = Evidence(tiers=("compiled",), sure=sure)
        blocks.append(
            count_bars("buffers", "The largest buffers of one device, by the op that makes them.", exact, sizes, "GiB")
        )
    return tuple(blocks)


def _time(predicted: Estimate, compiled: Estimate, facts: CompilerFacts) -> tuple[Block, ...]:
    evidence = time_evidence([predicted, compiled])
    readings = [time_reading("predicted", predicted), time_reading("compiled", compiled)]
    if facts.cycles_s > 0:
        readings.append(Reading(label="compiler's cycles, no collectives", tier="compiled", value=facts.cycles_s))
    return (
        time_readings_figure(readings, evidence),
        time_figure([("predicted", predicted), ("compiled", compiled)], evidence),
    )


def _roofline(subject: Subject, facts: CompilerFacts) -> tuple[Block, ...]:
    caption = (
        "Every op of the compiled step under the roof of one device; the larger a point, the more of the step it "
        "takes. An op without a matmul counts as one FLOP for each byte that it moves."
    )
    sure = "FLOPs, bytes and runs are read from the program; seconds are the cost model's prices."
    roof = device_roof(subject.cluster, subject.workload)
    return (roofline_figure(facts.ops, roof, caption, Evidence(tiers=("compiled",), sure=sure)),)


def _collectives(collectives: Sequence[Collective]) -> Table:
    """Every collective of the program."""
    overlapped = {True: "yes", False: "no", None: "unknown"}
    rows = [
        (c.kind, "+".join(c.axes) or "self", c.bytes_each / GIB, float(c.count), c.wire_bytes / GIB,
         overlapped[c.asynchronous])
        for c in collectives
    ]  # fmt: skip
    header = ("kind", "axes", "GiB each", "count a step", "GiB sent a step", "computes meanwhile")
    return number_table("Collectives of the compiled step, per device.", header, rows)


def _provenance(facts: CompilerFacts) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    flags = ", ".join(f"{name}={value}" for name, value in facts.flags)
    return (
        f"Compiler: {versions or 'unknown'}{f'; flags {flags}' if flags else ''}.",
        *([facts.note] if facts.note else []),
    )
