"""The report of predictions against measured runs."""

import math
from collections.abc import Sequence

import numpy as np

from jaxscale.calibrate import Run
from jaxscale.report.figures.errors import coverage_figure, factors_figure, parity_figure, sources_figure
from jaxscale.report.kinds.shared import assumptions_section, versions
from jaxscale.report.page import Block, Card, Cards, Evidence, Page, Section, Table, number_table
from jaxscale.report.words import plural, short_layout
from jaxscale.types.results import TierOfTruth
from jaxscale.units import GIB
from jaxscale.validate import Predictions, Refusal, Scores, residual_levels
from jaxscale.validate.predict import NORMAL_80
from jaxscale.validate.residuals import log_errors

BOTH: tuple[TierOfTruth, ...] = ("predicted", "measured")
MOST_ROWS = 2000  # of the table of runs: beyond that the page would pass its size
SCORE_HEADER = (
    "source", "runs", "refused", "timed", "median error, %", "90th percentile, %", "bias, %", "inside 80%, %",
    "sweeps", "rank correlation", "regret, %", "out of memory: precision, %", "recall, %", "fits or not, %",
    "memory error, %",
)  # fmt: skip


def validate_page(
    runs: Sequence[Run], predictions: Predictions, scores: Sequence[Scores], refusals: Sequence[Refusal], name: str
) -> Page:
    """Lay the report of a validation out; the last of `scores` is of all runs, `name` is the table's."""
    overall = scores[-1]
    sources = plural(len(scores) - 1, "source")
    sure = f"{plural(overall.timed, 'timed run')} of {sources}; runs are as their sources report them."
    evidence = Evidence(tiers=BOTH, sure=sure)
    errors = log_errors(runs, predictions)
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(overall)),
        Section(
            anchor="parity-section",
            heading="Predicted against measured",
            blocks=(_parity(runs, predictions, errors, evidence),),
        ),
        Section(anchor="by-source", heading="By source", blocks=_by_source(scores, evidence)),
        Section(anchor="by-factor", heading="By factor", blocks=(_factors(runs, predictions, evidence),)),
        Section(
            anchor="intervals", heading="Are the intervals honest?", blocks=(_coverage(predictions, errors, evidence),)
        ),
        Section(anchor="runs", heading="Every run", blocks=(_runs_table(runs, predictions),)),
        *([Section(anchor="refused", heading="Refused rows", blocks=(_refused(refusals),))] if refusals else []),
        assumptions_section(_provenance(predictions, name)),
    ]
    return Page(
        title=f"{name}: jaxscale validate",
        eyebrow=f"jaxscale validate: {name}",
        headline=_headline(overall),
        lead=(f"{plural(overall.predicted, 'run')} predicted, {plural(overall.refused, 'row')} refused.",),
        sections=sections,
    )


def _headline(s: Scores) -> str:
    if not s.timed:
        return (
            f"No run of the table was timed; {s.fit_accuracy:.0%} of {plural(s.fit_rows, 'run')} are told right to fit."
        )
    return (
        f"Half of all step times are predicted within {s.median_error:.0%} and nine in ten within {s.p90_error:.0%} of "
        f"what was measured, over {plural(s.timed, 'timed run')}."
    )


def _answer(s: Scores) -> tuple[Block, ...]:
    cards = (
        ("Median error", s.median_error, f"of step time, {plural(s.timed, 'run')}"),
        ("90th percentile", s.p90_error, "of the absolute error"),
        ("Bias", s.bias, "median of the signed error"),
        ("Inside 80% intervals", s.coverage, "of measured times"),
        ("Regret", s.regret, f"of the layout predicted fastest, {plural(s.sweeps, 'sweep')}"),
        ("Fits or not", s.fit_accuracy, f"told right, of {plural(s.fit_rows, 'run')}"),
        ("Memory error", s.memory_error, f"median, {plural(s.memory_rows, 'measured peak')}"),
    )
    return (
        Cards(
            cards=[
                Card(name=name, value=f"{value:+.1%}" if name == "Bias" else f"{value:.1%}", note=note)
                for name, value, note in cards
                if math.isfinite(value)
            ]
        ),
    )


def _parity(runs: Sequence[Run], predictions: Predictions, errors: np.ndarray, evidence: Evidence) -> Block:
    timed = np.flatnonzero(np.isfinite(errors))
    measured = np.array([runs[i].step_time_s for i in timed.tolist()])
    names = [f"{runs[i].id}: {short_layout(runs[i].layout)}" for i in timed.tolist()]
    sources = [runs[i].group for i in timed.tolist()]
    return parity_figure(sources, names, measured, predictions.step_time_s[timed], evidence)


def _by_source(scores: Sequence[Scores], evidence: Evidence) -> tuple[Block, ...]:
    rows = [(s.name, s.median_error, s.p90_error, s.timed) for s in scores]
    return (sources_figure(rows, evidence), _scores_table(scores))


def _scores_table(scores: Sequence[Scores]) -> Table:
    rows = [
        (
            s.name, s.predicted, s.refused, s.timed,
            *(100.0 * x for x in (s.median_error, s.p90_error, s.bias, s.coverage)), s.sweeps, s.spearman,
            *(100.0 * x for x in (s.regret, s.oom_precision, s.oom_recall, s.fit_accuracy, s.memory_error)),
        )
        for s in scores
    ]  # fmt: skip
    return number_table("Scores by source; the last row is all runs.", SCORE_HEADER, rows)


def _factors(runs: Sequence[Run], predictions: Predictions, evidence: Evidence) -> Block:
    levels = residual_levels(runs, predictions)
    return factors_figure([(v.factor, v.label, v.runs, v.bias, v.median_error) for v in levels], evidence)


def _coverage(predictions: Predictions, errors: np.ndarray, evidence: Evidence) -> Block:
    """Log errors over the spread that each prediction states."""
    sigma = np.log(predictions.upper_s / predictions.step_time_s) / NORMAL_80
    known = np.isfinite(errors) & (sigma > 0)
    return coverage_figure(errors[known] / sigma[known], evidence)


def _runs_table(runs: Sequence[Run], predictions: Predictions) -> Table:
    header = (
        "run", "source", "model", "cluster", "layout", "measured", "measured, s", "predicted, s", "error, %",
        "predicted, GiB", "predicted to fit",
    )  # fmt: skip
    rows = []
    for i, run in enumerate(runs[:MOST_ROWS]):
        predicted_s = float(predictions.step_time_s[i])
        measured_s = run.step_time_s if run.outcome == "ok" else math.nan
        rows.append(
            (
                run.id, run.group, run.shape.name, run.cluster.name, short_layout(run.layout), run.outcome, measured_s,
                predicted_s, 100.0 * (predicted_s / measured_s - 1.0), float(predictions.peak_memory_bytes[i]) / GIB,
                "yes" if predictions.fits[i] else "no",
            )
        )  # fmt: skip
    rest = f" The first {MOST_ROWS:,} of {len(runs):,}." if len(runs) > MOST_ROWS else ""
    return number_table(f"Every run; an empty error was not timed.{rest}", header, rows)


def _refused(refusals: Sequence[Refusal]) -> Block:
    return number_table(
        "Rows that cannot be predicted, and why.",
        ("row", "source", "why"),
        [(r.id, r.group, r.reason) for r in refusals],
    )


def _provenance(predictions: Predictions, name: str) -> list[str]:
    counts: dict[str, int] = {}
    for constants in predictions.calibrations:
        counts[constants] = counts.get(constants, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [
        f"Table: {name}.",
        "A run's error is predicted over measured step time, less one; factors are judged by the log of that ratio.",
        *(f"Constants of {plural(count, 'run')}: {constants}." for constants, count in ordered),
        "A run on which constants were fitted is no evidence for them; `jaxscale calibrate` states errors on runs that "
        "were left out of the fit.",
        versions(),
    ]
