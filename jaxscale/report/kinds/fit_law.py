"""The report of a scaling law fitted to runs."""

from jaxscale.plan.fit.engine import Fit
from jaxscale.plan.fit.report import LawFit
from jaxscale.report.figures.fits import fitted_figure, isoflop_figure, residuals_figure
from jaxscale.report.kinds.shared import assumptions_section, versions
from jaxscale.report.page import Block, Card, Cards, Evidence, Page, Prose, Section, Table, number_table
from jaxscale.report.words import plural


def fit_law_page(result: LawFit, fit: Fit, name: str) -> Page:
    """Lay the report of a fitted law of the loss out; `name` is the table's."""
    miss = f"{result.rms_log_error:.4f}"
    sure = (
        f"{plural(result.runs, 'measured run')}; the fit misses ln of the loss by {miss} (root mean square), and says "
        "nothing outside of the runs' range."
    )
    evidence = Evidence(tiers=("predicted", "measured"), sure=sure)
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(result)),
        Section(anchor="curves", heading="Loss over size", blocks=(isoflop_figure(fit, evidence),)),
        Section(
            anchor="misses",
            heading="Where it misses",
            blocks=(residuals_figure(fit, evidence), fitted_figure(fit, evidence)),
        ),
        assumptions_section(_provenance(result, name)),
    ]
    return Page(
        title=f"{name}: jaxscale fit-law {result.law}",
        eyebrow=f"jaxscale fit-law: {name}",
        headline=f"{result.formula}, within {result.rms_log_error:.2%} of {plural(result.runs, 'run')}.",
        lead=(f"{result.law}, after {result.source}.",),
        sections=sections,
    )


def _answer(result: LawFit) -> tuple[Block, ...]:
    cards = [
        Card(name=constant, value=f"{value:.4g}", note=_interval(result, constant))
        for constant, value in result.constants.items()
    ]
    blocks: list[Block] = [Cards(cards=cards), _constants(result)]
    if result.leave_out:
        said = [f"Check: {what} {value:.4g}." for what, value in result.leave_out.items()]
        blocks.append(Prose(sentences=said, kind="list"))
    return tuple(blocks)


def _interval(result: LawFit, constant: str) -> str:
    if constant not in result.intervals_95:
        return ""
    low, high = result.intervals_95[constant]
    return f"95%: {low:.4g} to {high:.4g}"


def _constants(result: LawFit) -> Table:
    missing = float("nan")
    rows = [
        (constant, value, *result.intervals_95.get(constant, (missing, missing)),
         result.standard_errors.get(constant, missing))
        for constant, value in result.constants.items()
    ]  # fmt: skip
    header = ("constant", "value", "95% low", "95% high", "standard error")
    return number_table("Fitted constants, with bootstrap intervals where drawn.", header, rows)


def _provenance(result: LawFit, name: str) -> list[str]:
    objective = [f"Objective at the best fit: {result.objective:.8g}."] if result.objective is not None else []
    return [
        f"Table: {name}, {plural(result.runs, 'run')}.",
        f"Law: {result.law}; source: {result.source}.",
        "Compute is counted as 6ND; the loss is in nats per token of the table's own data.",
        *objective,
        versions(),
    ]
