"""From a budget to a model, a batch, a layout, days and money."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from jaxscale.api.result import Result
from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster
from jaxscale.errors import SpecError
from jaxscale.plan.budget.ask import Ask, parse_budget, time_for_money
from jaxscale.plan.budget.front import Alternative
from jaxscale.plan.budget.planner import Plan, make_plan
from jaxscale.plan.budget.text import plan_json, plan_text
from jaxscale.report.kinds.plan import plan_page
from jaxscale.report.page import Page
from jaxscale.search import parse_limits, search
from jaxscale.types import Cluster, Estimate, ModelShape, Workload

# What the planner lets the search try: the same answer for dense models in a tenth of the time.
_LIMITS = ("remat=full|none|dots|attention", "offload_optimizer=false")
_LONG_CONTEXT = 8192  # beyond this the context axis is tried too


class Question(TypedDict, total=False):
    """What may be asked of a plan beside its budget; see `plan_run`."""

    flops: float
    loss: float
    tokens: float
    unique_tokens: float
    inference_tokens: float
    max_params: float
    moe: bool
    seq_len: int
    second_hand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan(Result):
    """What to train, how, where, for how long; `plan` holds it, with what the laws disagree about."""

    plan: Plan

    def __str__(self) -> str:
        return plan_text(self.plan)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each size and token count on a front of loss against cost, near the plan."""
        return [_row(point, self.plan.cost_unit) for point in self.plan.alternatives]

    def page(self) -> Page:
        """The report of `jaxscale plan`."""
        return plan_page(self.plan)

    def to_json(self) -> dict[str, Any]:
        """As `jaxscale plan --json`."""
        return plan_json(self.plan)


def _row(point: Alternative, unit: str) -> dict[str, Any]:
    return {
        "params": point.params,
        "tokens": point.tokens,
        "loss": point.loss,
        f"training_{unit}": point.training_cost,
        f"lifetime_{unit}": point.lifetime_cost,
        "on_training_front": point.on_training_front,
        "on_lifetime_front": point.on_lifetime_front,
    }


def plan_run(
    budget: str | None = None, *, cluster: Cluster | str | Path | None = None, **question: Unpack[Question]
) -> RunPlan:
    """From a budget to a model, a batch, a layout, days and money.

    `budget` is "256xh100-sxm for 21 days" or "$2M on h100-sxm:256"; without it `flops` (6ND), `loss` (nats per token)
    or `tokens` is, and `cluster` may say where it runs. `unique_tokens` exist, `inference_tokens` will be served,
    `max_params` is the largest total count, `moe` allows experts, `seq_len` is in tokens, `second_hand` asks laws with
    unverified constants too. Every scaling law that applies is asked, and none is averaged.
    """
    where = load_cluster(str(cluster)) if isinstance(cluster, str | Path) else cluster
    return RunPlan(plan=make_plan(ask_of(budget, where, **question), best_estimate))


def ask_of(budget: str | None, cluster: Cluster | None, **question: Any) -> Ask:
    """A question as the planner reads it: a budget in words names its cluster and how long it may run."""
    if budget is None:
        return Ask(cluster=cluster, **question)
    if cluster is not None:
        raise SpecError("--budget names the cluster already; give --cluster only without it")
    read = parse_budget(budget)
    where = load_cluster(read.cluster)
    time_s = read.time_s if read.dollars is None else time_for_money(where, read.dollars)
    return Ask(cluster=where, time_s=time_s, **question)


def best_estimate(shape: ModelShape, workload: Workload, cluster: Cluster) -> Estimate | None:
    """The best layout that the search finds, or None."""
    limits = _LIMITS if workload.seq_len > _LONG_CONTEXT else (*_LIMITS, "context<=1")
    result = search(shape, workload, cluster, stack=own_stack(cluster, workload), top=1, limits=parse_limits(*limits))
    return result.ranked[0] if result.ranked else None
