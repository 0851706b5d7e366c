"""The report of one predicted layout."""

from collections.abc import Sequence

from jaxscale.report import explain
from jaxscale.report.figures.parts import communication_figure, memory_figure, time_figure
from jaxscale.report.figures.readings import time_reading, time_readings_figure
from jaxscale.report.kinds.shared import (
    Subject,
    assumptions,
    communication_evidence,
    memory_evidence,
    predicted_roofline,
    step_cards,
    time_evidence,
)
from jaxscale.report.page import Cards, Page, Prose, Section
from jaxscale.report.pipeline import schedule_drawing
from jaxscale.report.words import layout_sentences, short_layout
from jaxscale.types import Estimate
from jaxscale.types.search import Change
from jaxscale.units import format_seconds


def predict_page(subject: Subject, e: Estimate, changes: Sequence[Change] = ()) -> Page:
    """Lay the report of one layout out; `changes` are its neighbours, of which the best are told."""
    bars = [("predicted", e)]
    words = layout_sentences(e.layout, subject.workload, subject.cluster)
    times, memory = time_evidence([e]), memory_evidence([e])
    drawing = schedule_drawing(e, subject.workload)
    sections = [
        Section(
            anchor="answer",
            heading="The answer",
            blocks=(Cards(cards=step_cards(e, subject.cluster)), Prose(sentences=words, kind="list")),
        ),
        Section(
            anchor="parts",
            heading="Where time and memory go",
            blocks=(
                time_readings_figure([time_reading("predicted", e)], times),
                time_figure(bars, times),
                memory_figure(bars, e.memory_limit_bytes, memory),
            ),
        ),
        *([] if drawing is None else [Section(anchor="pipeline", heading="Pipeline", blocks=(drawing,))]),
        Section(anchor="roofline-section", heading="Every op", blocks=(predicted_roofline(subject, e),)),
        Section(
            anchor="communication-section",
            heading="Communication",
            blocks=(communication_figure(bars, communication_evidence([e])),),
        ),
        Section(anchor="why", heading="Why", blocks=_why(subject, e, changes)),
        assumptions(subject, (), predicted=e),
    ]
    return Page(
        title=f"{subject.shape.name} on {subject.cluster.name}: jaxscale predict",
        eyebrow=subject.eyebrow("predict"),
        headline=_headline(subject, e),
        lead=(f"Layout {short_layout(e.layout)}.",),
        sections=sections,
    )


def _headline(subject: Subject, e: Estimate) -> str:
    verdict = "" if e.fits else ", but it does not fit in memory"
    return (
        f"{subject.shape.name} on {subject.cluster.name} takes {format_seconds(e.step_time_s)} a step at {e.mfu:.0%} "
        f"MFU{verdict}."
    )


def _why(subject: Subject, e: Estimate, changes: Sequence[Change]) -> tuple[Prose, ...]:
    said = Prose(
        sentences=(
            *explain.time_sentences(e, subject.workload, subject.cluster),
            *explain.memory_sentences(e),
            explain.communication_sentence(e),
        )
    )
    better = explain.improvements(e, changes)
    if not better:
        return (said,)
    lead = "The best single changes:" if e.fits else "Single changes after which it fits:"
    return (
        said,
        Prose(sentences=(lead,)),
        Prose(sentences=[explain.change_sentence(e, change) for change in better], kind="list"),
    )
