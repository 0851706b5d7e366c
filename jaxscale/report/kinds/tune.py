"""The report of a tuning run: the fastest layout found by measuring few, and what was learned on the way."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxscale.report.figures.tuning import Candidate, Effect, beliefs_figure, best_so_far_figure, effects_figure
from jaxscale.report.kinds.shared import Subject, assumptions
from jaxscale.report.page import Block, Card, Cards, Evidence, Page, Prose, Section, Table, number_table
from jaxscale.report.words import plural
from jaxscale.types.results import TierOfTruth
from jaxscale.units import format_seconds

BOTH: tuple[TierOfTruth, ...] = ("predicted", "measured")
MOST_BELIEFS = 20  # candidates drawn with what was believed of them
STOPPED = {
    "budget": "the runs of the budget are spent",
    "gain": "one more run is expected to save too little",
    "exhausted": "every candidate was tried",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneFacts:
    """How a tuning run went; `expected_gain` is the share of the best time that one more run would save."""

    stopped: str
    expected_gain: float
    num_from_store: int
    sigma_log: float  # how far the predictor was trusted: standard deviation of its log error
    scale: float | None  # measured over predicted at the median


def tune_page(subject: Subject, candidates: Sequence[Candidate], effects: Sequence[Effect], facts: TuneFacts) -> Page:
    """Lay the report of a tuning run out; `candidates` are all that were considered, tried or not."""
    tried = sorted((c for c in candidates if c.trial), key=lambda c: c.trial)
    ran = [c for c in tried if c.measured_s is not None]
    sure = (
        f"{plural(len(tried), 'layout')} measured of {plural(len(candidates), 'candidate')}; beliefs are a Gaussian "
        "process over the predictor's error, so an untried layout's interval is only as good as that."
    )
    evidence = Evidence(tiers=BOTH, sure=sure)
    nearest = sorted(candidates, key=lambda c: c.posterior_s)[:MOST_BELIEFS]
    learned: tuple[Block, ...] = (
        (effects_figure(effects, evidence),) if effects else (Prose(sentences=("Too few trials to say.",)),)
    )
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(tried, ran, len(candidates), facts)),
        Section(anchor="trials", heading="Best so far", blocks=(best_so_far_figure(tried, evidence),)),
        Section(anchor="prior", heading="Before and after", blocks=(beliefs_figure(nearest, evidence),)),
        Section(anchor="wrong", heading="What the predictor got wrong", blocks=learned),
        Section(anchor="candidates", heading="Every candidate", blocks=(_table(candidates),)),
        assumptions(subject, _provenance(facts)),
    ]
    return Page(
        title=f"{subject.shape.name} on {subject.cluster.name}: jaxscale tune",
        eyebrow=subject.eyebrow("tune"),
        headline=_headline(subject, tried, ran),
        lead=(f"Stopped because {STOPPED.get(facts.stopped, facts.stopped)}.",),
        sections=sections,
    )


def _fastest(ran: Sequence[Candidate]) -> Candidate:
    return min(ran, key=lambda c: c.measured_s or 0.0)


def _headline(subject: Subject, tried: Sequence[Candidate], ran: Sequence[Candidate]) -> str:
    where = f"{subject.shape.name} on {subject.cluster.name}"
    if not ran:
        return f"{where}: none of the {plural(len(tried), 'layout')} that were tried ran."
    best = _fastest(ran)
    return f"{where} runs fastest with {best.label}: {format_seconds(best.measured_s or 0.0)} a step, measured."


def _answer(
    tried: Sequence[Candidate], ran: Sequence[Candidate], num_candidates: int, facts: TuneFacts
) -> tuple[Block, ...]:
    kept = f", {facts.num_from_store} from the store" if facts.num_from_store else ""
    cards = [
        Card(name="Measured", value=str(len(tried)), note=f"of {plural(num_candidates, 'candidate')}{kept}"),
        Card(name="Failed", value=str(len(tried) - len(ran)), note="did not run"),
        Card(name="One more run", value=f"{facts.expected_gain:.1%}", note="expected saving of the best time"),
    ]
    if ran:
        best, first = _fastest(ran), ran[0]
        assert best.measured_s is not None, "it ran"
        assert first.measured_s is not None, "it ran"
        saved = 1.0 - best.measured_s / first.measured_s
        cards = [
            Card(name="Best step time", value=format_seconds(best.measured_s), note=f"trial {best.trial}"),
            Card(name="Saved", value=f"{saved:.1%}", note="against the first trial, the predictor's choice"),
            *cards,
        ]
    if facts.scale is not None:
        cards.append(Card(name="Measured over predicted", value=f"{facts.scale:.2f}", note="median; changes no order"))
    return (Cards(cards=cards),)


def _table(candidates: Sequence[Candidate]) -> Table:
    missing = float("nan")
    rows = [
        (c.label, c.prior_s, c.posterior_s, missing if c.measured_s is None else c.measured_s,
         float(c.trial) if c.trial else missing, c.message)
        for c in candidates
    ]  # fmt: skip
    header = ("layout", "predicted, s", "believed now, s", "measured, s", "trial", "why it did not run")
    return number_table("Every candidate; an empty time was not measured.", header, rows)


def _provenance(facts: TuneFacts) -> tuple[str, ...]:
    return (
        f"The predictor's log error was taken to have a standard deviation of {facts.sigma_log:.3f}; a constant error "
        "changes no order.",
    )
