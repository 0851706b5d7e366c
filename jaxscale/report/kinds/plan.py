"""The report of a plan: what a budget should train, under which laws, for how long and what money."""

from jaxscale.plan.budget.ask import DAY_S
from jaxscale.plan.budget.decide import REFERENCE
from jaxscale.plan.budget.planner import Plan
from jaxscale.plan.budget.run import Run
from jaxscale.plan.budget.text import count, shape_line
from jaxscale.plan.law import MARK_MEANING
from jaxscale.report.figures.laws import (
    contours_figure,
    cost_figure,
    frontier_figure,
    fronts_figure,
    lifetime_figure,
    regret_figure,
    sensitivity_figure,
)
from jaxscale.report.figures.parts import memory_figure, time_figure
from jaxscale.report.figures.readings import time_reading, time_readings_figure
from jaxscale.report.kinds.shared import assumptions_section, memory_evidence, time_evidence, versions
from jaxscale.report.page import Block, Card, Cards, Cell, Evidence, Page, Prose, Section, Table, number_table
from jaxscale.report.words import TIME_WORDS, plural, short_layout
from jaxscale.units import format_dollars, format_seconds


def plan_page(plan: Plan) -> Page:
    """Lay the report of a plan out."""
    worst = min(plan.decision.regret.worst)
    sure = (
        f"Extrapolated from published laws, none averaged; the chosen one wastes at most {worst:.0%} of the compute if "
        "another of them is the true one."
    )
    laws = Evidence(tiers=("predicted",), sure=sure)
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(plan)),
        Section(anchor="compute", heading="Loss against compute", blocks=(frontier_figure(plan, laws),)),
        Section(
            anchor="sizes", heading="Parameters and tokens", blocks=(contours_figure(plan, laws), _laws_table(plan))
        ),
        Section(
            anchor="doubt",
            heading="If the laws are wrong",
            blocks=(regret_figure(plan, laws), sensitivity_figure(plan.sensitivity, laws)),
        ),
        Section(anchor="money", heading="What else the cost buys", blocks=_fronts(plan, laws)),
        *([Section(anchor="run", heading="The run", blocks=_run(plan.run))] if plan.run is not None else []),
        Section(anchor="recipe", heading="The recipe", blocks=_recipe(plan)),
        *(
            [Section(anchor="beware", heading="Beware", blocks=(Prose(sentences=plan.warnings, kind="list"),))]
            if plan.warnings
            else []
        ),
        assumptions_section(_provenance(plan)),
    ]
    return Page(
        title=f"{plan.shape.name}: jaxscale plan",
        eyebrow="jaxscale plan" + (f" on {plan.run.cluster}" if plan.run is not None else ""),
        headline=_headline(plan),
        lead=(shape_line(plan.shape) + ".",),
        sections=sections,
    )


def _headline(plan: Plan) -> str:
    active = f" ({count(plan.active_params)} active)" if plan.active_params != plan.total_params else ""
    what = f"Train {count(plan.total_params)} parameters{active} on {count(plan.decision.tokens)} tokens"
    if plan.run is None:
        return f"{what}: {plan.decision.flops:.3g} FLOPs."
    money = f" and {format_dollars(plan.run.dollars)}" if plan.run.dollars is not None else ""
    return f"{what}: {format_seconds(plan.run.days * DAY_S)}{money} on {plan.run.cluster}."


def _answer(plan: Plan) -> tuple[Block, ...]:
    d, r = plan.decision, plan.recipe
    dense = plan.active_params == plan.total_params
    meet = "all meet every token" if dense else f"{count(plan.active_params)} meet a token"
    cards = [
        Card(name="Parameters", value=count(plan.total_params), note=meet),
        Card(name="Tokens", value=count(d.tokens), note=f"{d.tokens / d.params:.0f} a parameter"),
        Card(name="Compute", value=f"{d.flops:.3g}", note="FLOPs, 6ND"),
        Card(
            name="Batch",
            value=count(r.batch_tokens),
            note=f"tokens, {r.global_batch_size} sequences, {r.steps:,} steps",
        ),
    ]
    if plan.run is not None:
        run = plan.run
        goodput = f"{run.goodput.share:.1%} of them on steps that count"
        cards.append(Card(name="Time", value=format_seconds(run.days * DAY_S), note=goodput))
        if run.dollars is not None:
            cards.append(Card(name="Money", value=format_dollars(run.dollars), note=f"{plural(run.num_chips, 'chip')}"))
        cards.append(Card(name="MFU", value=f"{run.estimate.mfu:.1%}", note=f"HFU {run.estimate.hfu:.1%}"))
    return (Cards(cards=cards), Prose(sentences=[f"Because {reason}." for reason in d.why], kind="list"))


def _laws_table(plan: Plan) -> Table:
    rows = [
        (a.title, a.mark, _counted(a.params), _counted(a.tokens), a.tokens_per_param,
         max(a.decades_outside.values(), default=0.0), a.convention.replace("_", " "))
        for a in plan.decision.allocations
    ]  # fmt: skip
    header = (
        "law",
        "mark",
        "parameters",
        "tokens",
        "tokens a parameter",
        "decades outside its runs",
        "what its N counts",
    )
    return number_table("What each law would train with this compute; none is averaged.", header, rows)


def _counted(value: float) -> Cell:
    return Cell(text=count(value), value=value)


def _fronts(plan: Plan, evidence: Evidence) -> tuple[Block, ...]:
    """Loss against cost, and where there is serving, training cost against lifetime cost."""
    d, run = plan.decision, plan.run
    loss = d.losses.get(REFERENCE, next(iter(d.losses.values())))
    if run is None or run.dollars is None:
        training = lifetime = d.flops
    else:
        training, lifetime = run.dollars, run.dollars + (run.serving_dollars or 0.0)
    fronts = fronts_figure(plan.alternatives, plan.cost_unit, (loss, training, lifetime), evidence)
    if lifetime == training:
        return (fronts,)
    return fronts, lifetime_figure(plan.alternatives, plan.cost_unit, (training, lifetime), evidence)


def _run(run: Run) -> tuple[Block, ...]:
    e = run.estimate
    times = time_evidence([e])
    bars = [(run.cluster, e)]
    said = [
        f"On {run.cluster} ({plural(run.num_chips, 'chip')}) with {short_layout(e.layout)}: "
        f"{format_seconds(e.step_time_s)} a step.",
        f"A failure every {format_seconds(run.goodput.mean_time_between_failures_s)} is expected, and a checkpoint of "
        f"{format_seconds(run.goodput.checkpoint_s)} every {format_seconds(run.goodput.interval_s)}.",
    ]
    for effect in run.assumptions:
        result = f"loss {effect.loss:.3f}" if effect.loss is not None else f"{effect.days:.1f} days"
        said.append(f"With {effect.assumption} {effect.moved}: {result}.")
    return (
        Prose(sentences=said, kind="list"),
        _costs(run, times),
        time_readings_figure([time_reading("predicted", e)], times),
        time_figure(bars, times),
        memory_figure(bars, e.memory_limit_bytes, memory_evidence([e])),
    )


def _costs(run: Run, evidence: Evidence) -> Block:
    """The run's money (hours where no price is known) by what the step spends it on; serving beside it."""
    hours = 24.0 * run.days
    share = hours * run.goodput.share / run.estimate.step_time_s
    parts = {TIME_WORDS.get(name, name): s * share for name, s in run.estimate.time_parts_s.items() if s > 0}
    parts["failures and checkpoints"] = hours * (1.0 - run.goodput.share)
    if run.dollars is None:
        return cost_figure(parts, "hours", evidence)
    money = {name: value * run.dollars / hours for name, value in parts.items()}
    if run.serving_dollars is not None:
        money["serving"] = run.serving_dollars
    return cost_figure(money, "dollars", evidence)


def _recipe(plan: Plan) -> tuple[Block, ...]:
    r = plan.recipe
    sentences = (
        f"Batch: {r.global_batch_size} sequences, {count(r.batch_tokens)} tokens; the critical batch is "
        f"{count(r.critical_batch_tokens)} tokens.",
        f"Learning rate {r.learning_rate:.3g}, weight decay {r.weight_decay}, {r.warmup_steps:,} warmup steps.",
        f"{r.schedule}, over the last {r.cooldown_steps:,} steps.",
    )
    rows = [
        (what, v.law, v.mark, v.value, v.batch_path, max(v.decades_outside.values(), default=0.0))
        for what, values in (("batch, tokens", r.batch_by_law), ("learning rate", r.learning_rate_by_law))
        for v in values
    ]
    header = ("what", "law", "mark", "value", "batch path", "decades outside its runs")
    return (Prose(sentences=sentences, kind="list"), number_table("What each law answers.", header, rows))


def _provenance(plan: Plan) -> list[str]:
    laws = [f"{a.title}: {a.source}." for a in plan.decision.allocations]
    marks = sorted({a.mark for a in plan.decision.allocations})
    step = plan.run.estimate.provenance if plan.run is not None else {}
    constants = [f"Software constants: {step.get('stack', '')}: {step.get('stack_source', '')}."] if step else []
    return [*laws, *(f"Mark {mark}: {MARK_MEANING[mark]}." for mark in marks), *constants, versions()]
