"""A plan in words and as JSON."""

import dataclasses
import math
import textwrap
from typing import Any

from jaxscale.plan.budget.ask import DAY_S
from jaxscale.plan.budget.front import front_of
from jaxscale.plan.budget.planner import Plan
from jaxscale.plan.budget.run import Run
from jaxscale.plan.law import MARK_MEANING
from jaxscale.types import ModelShape
from jaxscale.units import format_dollars, format_seconds

_ROWS_OF_A_FRONT = 6
_WIDTH = 80


def plan_json(plan: Plan) -> dict[str, Any]:
    """The whole plan as plain values; the estimate as `jaxscale predict --json` prints it."""
    record: dict[str, Any] = dataclasses.asdict(dataclasses.replace(plan, run=None))
    for row, allocation in zip(record["decision"]["allocations"], plan.decision.allocations, strict=True):
        row["tokens_per_param"] = allocation.tokens_per_param
    record["decision"]["regret"] |= {"worst": plan.decision.regret.worst, "choice": plan.decision.regret.choice}
    record["sensitivity"] = {str(factor): wasted for factor, wasted in plan.sensitivity.items()}
    if plan.run is not None:
        run = {f.name: getattr(plan.run, f.name) for f in dataclasses.fields(Run)}
        run["estimate"] = plan.run.estimate.to_json()
        run["goodput"] = dataclasses.asdict(plan.run.goodput)
        run["shortest"] = dataclasses.asdict(plan.run.shortest)
        run["assumptions"] = [dataclasses.asdict(effect) for effect in plan.run.assumptions]
        run["serving"] = dataclasses.asdict(plan.run.serving) if plan.run.serving else None
        record["run"] = run
    return record


def plan_text(plan: Plan) -> str:
    """The plan for a terminal."""
    blocks = [_model(plan), _recipe(plan)]
    if plan.run is not None:
        blocks.append(_run(plan.run))
    blocks += [_laws(plan), _regret(plan), _sensitivity(plan), _fronts(plan)]
    if plan.warnings:
        blocks.append("Beware\n" + "\n".join(f"  - {line}" for line in plan.warnings))
    return "\n".join(_wrapped(line) for line in "\n\n".join(blocks).split("\n"))


def _wrapped(line: str) -> str:
    """A line broken at the width of a terminal, its rest indented below it. Words longer than that stay whole."""
    hanging = " " * (len(line) - len(line.lstrip()) + 4)
    kept = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(line, _WIDTH, subsequent_indent=hanging, **kept) if len(line) > _WIDTH else line


def count(value: float) -> str:
    """A count as people write parameters and tokens.

    >>> count(39.3e9), count(1.5e12), count(512.0)
    ('39.3B', '1.5T', '512')
    """
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def shape_line(shape: ModelShape) -> str:
    """A shape in one line."""
    line = (
        f"{shape.num_layers} layers, d_model {shape.d_model}, {shape.num_heads} heads of {shape.head_dim} "
        f"({shape.num_kv_heads} KV), d_ff {shape.d_ff}, vocabulary {shape.vocab_size:,}"
    )
    if shape.moe:
        moe = shape.moe
        line += f", {moe.num_experts} experts of {moe.expert_d_ff}, {moe.experts_per_token} a token"
    return line


def _model(plan: Plan) -> str:
    decision = plan.decision
    active = f" ({count(plan.active_params)} active)" if plan.active_params != plan.total_params else ""
    lines = [
        f"Train {plan.shape.name}: {count(plan.total_params)} parameters{active} on {count(decision.tokens)} tokens",
        f"  {shape_line(plan.shape)}",
        f"  {decision.flops:.3g} FLOPs (6ND), {decision.tokens / decision.params:.1f} tokens a parameter"
        + (f", {decision.epochs:.2f} epochs" if decision.epochs > 1.0 else ""),
        *(f"  because {reason}" for reason in decision.why),
    ]
    for law, loss in decision.losses.items():
        lines.append(f"  loss under {law:<14} {loss:.3f} nats per token of its own data")
    for law, flops in decision.flops_by_law.items():
        lines.append(f"  compute by {law:<16} {flops:.3g} FLOPs")
    return "\n".join(lines)


def _recipe(plan: Plan) -> str:
    r = plan.recipe
    lines = [
        f"Recipe: batch {r.global_batch_size} sequences = {count(r.batch_tokens)} tokens, {r.steps:,} steps",
        f"  batch path {r.batch_path}",
        f"  critical batch {count(r.critical_batch_tokens)} tokens; {100 * (r.data_over_least - 1):.0f}% more data "
        "than a small batch would need",
        f"  learning rate {r.learning_rate:.3g}, weight decay {r.weight_decay}, {r.warmup_steps:,} warmup steps",
        f"  {r.schedule}, over the last {r.cooldown_steps:,} steps",
    ]
    for what, values in (("batch", r.batch_by_law), ("learning rate", r.learning_rate_by_law)):
        for value in values:
            far = ", ".join(f"{k} {v:.1f} decades outside" for k, v in value.decades_outside.items())
            path = f" on path {value.batch_path}" if value.batch_path else ""
            lines.append(f"  {what} by {value.law} [{value.mark}] {value.value:.3g}{path}{'; ' + far if far else ''}")
    return "\n".join(lines)


def _run(run: Run) -> str:
    e, g = run.estimate, run.goodput
    lines = [
        f"On {run.cluster} ({run.num_chips} chips): {format_seconds(run.days * DAY_S)}"
        + (f", {format_dollars(run.dollars)}" if run.dollars is not None else ", price not known")
        + (f", {_megawatt_hours(run.megawatt_hours)}" if run.megawatt_hours is not None else ", power not known"),
        f"  layout {e.layout}",
        f"  step {format_seconds(e.step_time_s)}, MFU {100 * e.mfu:.1f}%, "
        f"{e.tokens_per_s_per_chip:,.0f} tokens/s a chip",
        f"  goodput {100 * g.share:.1f}%: a failure every {format_seconds(g.mean_time_between_failures_s)}, "
        f"a checkpoint of {format_seconds(g.checkpoint_s)} every {format_seconds(g.interval_s)}",
    ]
    if run.serving is not None:
        s = run.serving
        lines.append(
            f"  serving on {s.num_chips} chips, batch {s.batch}, {s.partition}: "
            f"{format_seconds(s.decode_s_per_token)} a token, "
            f"${s.decode_dollars_per_million:.3g} a million answered, "
            f"${s.prefill_dollars_per_million:.3g} a million read"
        )
    if run.serving_dollars is not None:
        lines.append(f"  serving demand {format_dollars(run.serving_dollars)}")
    for effect in run.assumptions:
        result = f"loss {effect.loss:.3f}" if effect.loss is not None else f"{effect.days:.1f} days"
        lines.append(f"  if {effect.assumption}: {effect.moved}, then {result}")
    fastest = run.shortest
    parts = ", ".join(f"{name} {100 * part / fastest.step_s:.0f}%" for name, part in fastest.parts_s.items() if part)
    lines.append(
        f"  shortest possible: {format_seconds(fastest.training_s)} on {fastest.num_chips:,} such chips at the "
        f"critical batch with layered accumulation ({parts})"
    )
    return "\n".join(lines)


def _megawatt_hours(value: float) -> str:
    return f"{value:,.0f} MWh" if value >= 10.0 else f"{1e3 * value:,.0f} kWh"


def _laws(plan: Plan) -> str:
    lines = ["What each law would train with this compute (none is averaged)"]
    for a in plan.decision.allocations:
        interval = f" ({count(a.interval[0])} to {count(a.interval[1])})" if a.interval else ""
        far = max(a.decades_outside.values(), default=0.0)
        lines.append(
            f"  {a.law:<14} [{a.mark}] {count(a.params)}{interval} on {count(a.tokens)} tokens, "
            f"{a.tokens_per_param:.0f} a parameter"
        )
        lines.append(f"  {'':<19} N is {a.convention.replace('_', ' ')}, {far:.1f} decades outside its runs")
    marks = sorted({a.mark for a in plan.decision.allocations})
    lines += [f"  {mark}: {MARK_MEANING[mark]}" for mark in marks]
    return "\n".join(lines)


def _regret(plan: Plan) -> str:
    r = plan.decision.regret
    header = "".join(f"{truth:>14}" for truth in r.truths)
    lines = [
        "Compute wasted if a law (row) allocates and another (column) is true, %",
        f"  {'':<14}{header}{'worst':>10}",
    ]
    for law, row, worst in zip(r.laws, r.wasted, r.worst, strict=True):
        mark = "  <- least" if law == r.choice else ""
        lines.append(f"  {law:<14}" + "".join(f"{100 * w:14.1f}" for w in row) + f"{100 * worst:10.1f}{mark}")
    return "\n".join(lines)


def _sensitivity(plan: Plan) -> str:
    cells = ", ".join(f"{factor:g}x {100 * wasted:.0f}%" for factor, wasted in plan.sensitivity.items())
    return f"Compute wasted for training alone if the model were that many times larger: {cells}"


def _fronts(plan: Plan) -> str:
    lines: list[str] = []
    served = plan.run is not None and plan.run.serving_dollars is not None
    for lifetime in (False, True) if served or plan.cost_unit == "FLOPs" else (False,):
        front = front_of(plan.alternatives, lifetime=lifetime)
        name = "training and serving" if lifetime else "training"
        lines.append(f"Least loss for the cost of {name} (at the plan's utilisation)")
        step = max(1, math.ceil(len(front) / _ROWS_OF_A_FRONT))
        for p in front[::step]:
            cost = p.lifetime_cost if lifetime else p.training_cost
            money = format_dollars(cost) if plan.cost_unit == "dollars" else f"{cost:.2e} FLOPs"
            lines.append(f"  {money:>16}  {count(p.params)} on {count(p.tokens)} tokens, loss {p.loss:.3f}")
    return "\n".join(lines)
