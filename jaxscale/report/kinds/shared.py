"""What the kinds of report share: what they are about, figures in large, how sure, assumptions and provenance."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

from jaxscale import __version__
from jaxscale.report.figures.roofline import roofline_figure
from jaxscale.report.ops import device_roof, predicted_ops
from jaxscale.report.page import Card, Evidence, Figure, Prose, Section
from jaxscale.report.words import plural
from jaxscale.types import Cluster, Estimate, ModelShape, Stack, Workload
from jaxscale.types.results import TierOfTruth
from jaxscale.units import format_bytes, format_dollars, format_seconds

TIERS: tuple[TierOfTruth, ...] = ("predicted", "compiled", "measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a report is about; `stack` holds the constants that its prediction was made with."""

    shape: ModelShape
    workload: Workload
    cluster: Cluster
    stack: Stack | None = None

    def eyebrow(self, verb: str) -> str:
        """The line above a report's headline."""
        return f"jaxscale {verb}: {self.shape.name} on {self.cluster.name}"


def tiers_of(estimates: Sequence[Estimate]) -> tuple[TierOfTruth, ...]:
    """The tiers of some estimates, in the order predicted, compiled, measured."""
    return tuple(tier for tier in TIERS if any(e.tier == tier for e in estimates))


def time_evidence(estimates: Sequence[Estimate]) -> Evidence:
    """How sure step times are: the interval of the prediction, and what a compiled time rests on."""
    said = []
    for e in estimates:
        if e.tier == "predicted" and e.interval_80_s is not None:
            low, high = (bound / e.step_time_s - 1.0 for bound in e.interval_80_s)
            said.append(f"80% of real steps should lie within {low:+.0%} and {high:+.0%} of the prediction")
            source = e.provenance.get("stack_source", "")
            if source:
                said.append(f"constants from {source}")
            break
    if any(e.tier == "compiled" for e in estimates):
        said.append("a compiled step has the compiler's ops and overlap, at the cost model's prices")
    return Evidence(tiers=tiers_of(estimates), sure=_sentence(said or ["no interval is known"]))


def memory_evidence(estimates: Sequence[Estimate]) -> Evidence:
    """How sure memory is."""
    said = []
    if any(e.tier == "predicted" for e in estimates):
        said.append("a count of every tensor at the peak, with no interval of its own")
    if any(e.tier == "compiled" for e in estimates):
        said.append("compiled bytes are what the compiler allocates, exact for its version")
    else:
        said.append("`jaxscale compile` gives the compiler's own figure")
    return Evidence(tiers=tiers_of(estimates), sure=_sentence(said))


def communication_evidence(estimates: Sequence[Estimate]) -> Evidence:
    """How sure communication volumes are."""
    said = []
    if any(e.tier == "predicted" for e in estimates):
        said.append("counted from the layout, exact for the step that jaxscale runs")
    if any(e.tier == "compiled" for e in estimates):
        said.append("compiled bytes are read from the program, loops run out")
    return Evidence(tiers=tiers_of(estimates), sure=_sentence(said))


def _sentence(clauses: Sequence[str]) -> str:
    text = "; ".join(clauses)
    return text[:1].upper() + text[1:] + "."


def step_cards(e: Estimate, cluster: Cluster) -> list[Card]:
    """The figures of an estimate that people compare."""
    cards = [
        Card(name="Step time", value=format_seconds(e.step_time_s), note=_time_note(e)),
        Card(
            name="Throughput",
            value=f"{e.tokens_per_s_per_chip:,.0f}",
            note=f"tokens/s per chip, {plural(cluster.num_chips, 'chip')}",
        ),
        Card(name="MFU", value=f"{e.mfu:.1%}", note=f"HFU {e.hfu:.1%}"),
        Card(
            name="Memory",
            value=format_bytes(e.memory_bytes),
            note=f"of {format_bytes(e.memory_limit_bytes)} per device" + ("" if e.fits else ": does not fit"),
        ),
    ]
    if e.dollars_per_billion_tokens:
        price = format_dollars(cluster.dollars_per_chip_hour)
        money = format_dollars(e.dollars_per_billion_tokens)
        cards.append(Card(name="Money", value=money, note=f"per billion tokens at {price} per chip-hour"))
    return cards


def _time_note(e: Estimate) -> str:
    if e.interval_80_s is not None:
        low, high = e.interval_80_s
        return f"80%: {format_seconds(low)} to {format_seconds(high)}"
    return f"{format_seconds(e.lower_s)} to {format_seconds(e.upper_s)} by overlap"


def predicted_roofline(subject: Subject, e: Estimate) -> Figure:
    """The roofline of a predicted step."""
    points = predicted_ops(subject.shape, subject.workload, subject.cluster, e, subject.stack)
    caption = (
        "Every op of a step under the roof of one device, forward and backward; the larger a point, the more of the "
        "step it takes, recomputing included. A backward point of a matmul is its two together. An element-wise op "
        "counts as one FLOP for each element that it moves."
    )
    sure = "Priced by the cost model with the constants named under assumptions; the roof is the chip's data sheet."
    roof = device_roof(subject.cluster, subject.workload)
    return roofline_figure(points, roof, caption, Evidence(tiers=("predicted",), sure=sure))


def assumptions(subject: Subject, provenance: Sequence[str], *, predicted: Estimate | None = None) -> Section:
    """What a report rests on: workload, model, chip, constants, versions; `provenance` is what a kind adds."""
    w, cluster, chip = subject.workload, subject.cluster, subject.cluster.chip
    peak = chip.peak(w.precision.matmul) / 1e12
    constants = []
    if predicted is not None:
        known = predicted.provenance
        constants = [f"Software constants: {known.get('stack', 'defaults')}: {known.get('stack_source', '')}"]
    sentences = [
        f"Workload: {w.global_batch_size} sequences of {w.seq_len} tokens a step, {w.precision.name}, "
        f"{w.optimizer.name}.",
        f"Model: {subject.shape.name}; source: {subject.shape.source or 'as given'}.",
        f"Cluster: {cluster.note or cluster.name}.",
        f"Chip: {chip.name}, {peak:,.0f} TFLOP/s, {format_bytes(chip.hbm_bytes)} of memory. "
        f"Sources: {chip.source or 'as given'}.",
        *constants,
        "MFU counts the model's FLOPs, attention in full; HFU adds what is recomputed.",
        *provenance,
        versions(),
    ]
    return assumptions_section(sentences)


def assumptions_section(sentences: Sequence[str]) -> Section:
    """The last section of every report."""
    return Section(
        anchor="assumptions", heading="Assumptions and provenance", blocks=(Prose(sentences=sentences, kind="list"),)
    )


def versions() -> str:
    """With what a report was made."""
    return f"Versions: jaxscale {__version__}, Python {platform.python_version()}."
