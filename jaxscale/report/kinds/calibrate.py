"""The report of a calibration: what measured runs changed of a stack's constants, and how far predictions are now."""

import math
from collections.abc import Sequence

import numpy as np

from jaxscale.calibrate import CONSTANTS, Calibration, Run
from jaxscale.report.figures.constants import FittedConstant, constants_figure
from jaxscale.report.figures.errors import parity_figure
from jaxscale.report.kinds.shared import assumptions_section, versions
from jaxscale.report.page import Block, Card, Cards, Evidence, Page, Prose, Section
from jaxscale.report.words import plural, short_layout
from jaxscale.validate import predict
from jaxscale.validate.predict import NORMAL_80
from jaxscale.validate.residuals import log_errors


def calibrate_page(runs: Sequence[Run], calibration: Calibration, start: Calibration) -> Page:
    """Lay the report of a calibration out: `runs` were fitted, `start` is what was believed before."""
    timed = [run for run in runs if run.outcome == "ok" and math.isfinite(run.step_time_s)]
    before, after = (np.abs(np.expm1(_errors(timed, constants))) for constants in (start, calibration))
    held = calibration.provenance.get("held_out")
    sure = f"{plural(len(timed), 'timed run')} of {calibration.stack} on {calibration.chip}; these runs were fitted."
    fitted = Evidence(tiers=("predicted", "measured"), sure=sure)
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(before, after, calibration, held)),
        Section(anchor="constants-section", heading="Constants", blocks=(_constants(calibration, start, fitted),)),
        Section(anchor="fit", heading="Predicted against measured", blocks=(_parity(timed, calibration, fitted),)),
        assumptions_section(_provenance(calibration, start)),
    ]
    return Page(
        title=f"{calibration.stack} on {calibration.chip}: jaxscale calibrate",
        eyebrow=f"jaxscale calibrate: {calibration.stack} on {calibration.chip}",
        headline=(
            f"{plural(len(timed), 'run')} move the median error of {calibration.stack} on {calibration.chip} from "
            f"{np.median(before):.1%} to {np.median(after):.1%}."
        ),
        lead=(f"Before: {start.describe()}.",),
        sections=sections,
    )


def _errors(runs: Sequence[Run], constants: Calibration) -> np.ndarray:
    """Log of predicted over measured step time, [n]."""
    return log_errors(runs, predict(runs, lambda _: constants))


def _answer(before: np.ndarray, after: np.ndarray, calibration: Calibration, held: dict | None) -> tuple[Block, ...]:
    cards = [
        Card(name="Median error before", value=f"{np.median(before):.1%}", note=f"of {plural(len(before), 'run')}"),
        Card(name="Median error after", value=f"{np.median(after):.1%}", note="of the same runs, which were fitted"),
        Card(
            name="80% interval",
            value=f"x {math.exp(NORMAL_80 * calibration.sigma_log):.3f}",
            note="of a prediction, either way",
        ),
    ]
    if held:
        note = f"left out of the fit by {held['left_out']}"
        cards.insert(2, Card(name="Median error, held out", value=f"{held['median']:.1%}", note=note))
    said = "Constants that the runs say nothing about stay as they were."
    return (Cards(cards=cards), Prose(sentences=(said,)))


def _constants(calibration: Calibration, start: Calibration, evidence: Evidence) -> Block:
    rows = [
        FittedConstant(
            name=c.name, before=start.value(c), value=found.value, low=found.low, high=found.high, source=c.source
        )
        for c in CONSTANTS
        if (found := calibration.fitted.get(c.name)) is not None
    ]
    return constants_figure(rows, evidence)


def _parity(runs: Sequence[Run], calibration: Calibration, evidence: Evidence) -> Block:
    predictions = predict(runs, lambda _: calibration)
    names = [f"{run.id}: {short_layout(run.layout)}" for run in runs]
    measured = np.array([run.step_time_s for run in runs])
    return parity_figure([run.group for run in runs], names, measured, predictions.step_time_s, evidence)


def _provenance(calibration: Calibration, start: Calibration) -> list[str]:
    return [
        f"Fitted: {calibration.describe()}.",
        f"Started from: {start.describe()}.",
        "Each constant is fitted on a scale on which it is unbounded, with what it was before as the prior.",
        versions(),
    ]
