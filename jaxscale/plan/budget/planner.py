"""From a question to a plan: size and tokens by the laws, a shape, a recipe, a layout, days, money and energy.

The planner knows the cost model only as a function that it is given: `evaluate(shape, workload, cluster)` returns the
estimate of the best layout, or None where none fits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import InfeasibleError
from jaxscale.plan.budget.ask import Ask
from jaxscale.plan.budget.decide import Decision, compute_of, decide, truth_of, with_tokens
from jaxscale.plan.budget.front import Alternative, Rates, alternatives
from jaxscale.plan.budget.recipe import Recipe, recipe
from jaxscale.plan.budget.run import PROMPT_SHARE, Run, failures, run_of, serving_of
from jaxscale.plan.economics.goodput import Reliability
from jaxscale.plan.laws import data, moe
from jaxscale.plan.panel import sensitivity
from jaxscale.plan.shapes import dense_shape, moe_shape, point_of
from jaxscale.types import Cluster, Estimate, ModelShape, Workload

Evaluate = Callable[[ModelShape, Workload, Cluster], Estimate | None]

_FIRST_GUESS_MFU = 0.4  # only starts the iteration; the answer's utilisation comes from the cost model
_CLOSE_ENOUGH = 0.03
_MOST_EVALUATIONS = 2  # the second starts from the speed that the first found, and moves it by a few percent
_VOCABULARY_STEP = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer: what to train, how, where, for how long, and what the laws disagree about."""

    decision: Decision
    shape: ModelShape
    total_params: int
    active_params: int
    recipe: Recipe
    run: Run | None
    sensitivity: dict[float, float]  # factor on the size -> compute wasted under the reference law
    alternatives: tuple[Alternative, ...]
    cost_unit: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A decision made buildable, and what the cost model says of it."""

    decision: Decision
    shape: ModelShape
    recipe: Recipe
    estimate: Estimate | None

    @property
    def joint_loss(self) -> float:
        """Loss under the joint law, the one that compares mixtures of experts with dense models."""
        return float(moe.JOINT_MOE.loss(self.decision.params, self.decision.tokens, self.decision.experts))

    def rate(self, cluster: Cluster) -> float:
        """6ND FLOPs a second of the whole cluster."""
        assert self.estimate is not None, "evaluated on a cluster"
        return 6.0 * count_parameters(self.shape).active * self.estimate.tokens_per_s_per_chip * cluster.num_chips


def make_plan(ask: Ask, evaluate: Evaluate | None = None, *, reliability: Reliability | None = None) -> Plan:
    """Answer a question; without `evaluate` or a cluster the answer has no layout, days or money."""
    if ask.time_s is not None and ask.cluster is not None:
        if evaluate is None:
            raise InfeasibleError("a budget in time needs the cost model to know what a cluster delivers")
        draft = _draft_for_time(ask, ask.cluster, ask.time_s, evaluate, reliability)
    else:
        flops, by_law = compute_of(ask)
        draft = _drafted(ask, decide(ask, flops, flops_by_law=by_law), evaluate)
        if ask.inference_tokens and draft.estimate and ask.cluster:
            weight = _serving_weight(ask, ask.cluster, draft)
            draft = _drafted(ask, decide(ask, flops, flops_by_law=by_law, serving_weight=weight), evaluate)
    return _assembled(ask, draft, reliability)


def _draft_for_time(
    ask: Ask, cluster: Cluster, time_s: float, evaluate: Evaluate, reliability: Reliability | None
) -> _Draft:
    """The draft for a cluster and a time; with experts, the best of three counts under the joint law."""
    first = _FIRST_GUESS_MFU * cluster.num_chips * cluster.chip.peak("bf16")
    best = _iterated(ask, cluster, time_s, evaluate, reliability, first)
    if best.decision.experts > 1:
        for experts in (max(2, best.decision.experts // 4), 1):
            other = _iterated(ask, cluster, time_s, evaluate, reliability, best.rate(cluster), experts=experts)
            best = min(best, other, key=lambda draft: draft.joint_loss)
    return best


def _iterated(
    ask: Ask, cluster: Cluster, time_s: float, evaluate: Evaluate, reliability: Reliability | None, rate: float,
    experts: int | None = None,
) -> _Draft:  # fmt: skip
    """Iterate: compute follows from the speed of a layout, the layout from the shape, the shape from the compute.

    `rate` are 6ND FLOPs a second to start from.
    """
    share, weight = 1.0, 1.0
    for _ in range(_MOST_EVALUATIONS):
        decision = decide(ask, rate * time_s * share, serving_weight=weight, experts=experts)
        draft = _drafted(ask, decision, evaluate)
        reached = draft.rate(cluster)
        share = failures(draft.shape, cluster, reliability).share
        weight = _serving_weight(ask, cluster, draft) if ask.inference_tokens else 1.0
        if abs(reached / rate - 1.0) < _CLOSE_ENOUGH:
            break
        rate = reached
    assert draft.estimate is not None, "evaluated on a cluster"
    steps = max(1, int(time_s * share / draft.estimate.step_time_s))
    chosen = replace(draft.recipe, steps=steps, tokens=steps * draft.recipe.batch_tokens)
    active = count_parameters(draft.shape).active
    return replace(
        draft, recipe=chosen, decision=with_tokens(decision, active, chosen.tokens, ask.unique_tokens or 0.0)
    )


def _drafted(ask: Ask, decision: Decision, evaluate: Evaluate | None) -> _Draft:
    shape, chosen = _designed(ask, decision)
    estimate = _evaluated(evaluate, ask, shape, chosen) if evaluate and ask.cluster else None
    return _Draft(decision=decision, shape=shape, recipe=chosen, estimate=estimate)


def _serving_weight(ask: Ask, cluster: Cluster, draft: _Draft) -> float:
    """Dollars of a FLOP of serving, by roofline, over those of a FLOP of training, by the cost model."""
    serving = serving_of(draft.shape, cluster, ask.seq_len)
    if serving is None or draft.estimate is None or not cluster.dollars_per_chip_hour:
        return 1.0
    active = count_parameters(draft.shape).active
    served = serving.dollars(PROMPT_SHARE, 1.0 - PROMPT_SHARE) / (2.0 * active)
    trained = draft.estimate.dollars_per_billion_tokens / 1e9 / (6.0 * active)
    return served / trained


def _designed(ask: Ask, decision: Decision) -> tuple[ModelShape, Recipe]:
    """Shape and recipe of a decision. The vocabulary is what the laws ask for, up to what tokenizers in use have."""
    tile = ask.cluster.chip.matmul_tile if ask.cluster else 128
    vocabulary = _vocabulary(decision.params)
    shape = dense_shape(decision.params, vocab_size=vocabulary, tile=tile)
    if decision.experts > 1:
        shape = moe_shape(
            decision.params, _experts_within(ask, decision, vocabulary, tile), vocab_size=vocabulary, tile=tile
        )
    active = count_parameters(shape).active
    point = point_of(shape, decision.flops / (6.0 * active), ask.seq_len, unique_tokens=ask.unique_tokens or 0.0)
    num_chips = ask.cluster.num_chips if ask.cluster else 1
    return shape, recipe(point, num_chips=num_chips, second_hand=ask.second_hand)


def _experts_within(ask: Ask, decision: Decision, vocabulary: int, tile: int) -> int:
    """The decided experts, halved until the built shape keeps to the limit on total parameters."""
    experts = decision.experts
    while experts > 1 and ask.max_params:
        if (
            count_parameters(moe_shape(decision.params, experts, vocab_size=vocabulary, tile=tile)).total
            <= ask.max_params
        ):
            break
        experts //= 2
    return experts


def _vocabulary(params: float) -> int:
    """Approach 1 of Tao et al., between 32k and 256k, in whole steps of 1024 so that tensor parallelism divides it."""
    wanted = data.vocabulary_isoflops(params)
    return round(min(max(wanted, 32_768), 262_144) / _VOCABULARY_STEP) * _VOCABULARY_STEP


def _evaluated(evaluate: Evaluate, ask: Ask, shape: ModelShape, chosen: Recipe) -> Estimate:
    assert ask.cluster is not None, "only asked with a cluster"
    workload = Workload(seq_len=ask.seq_len, global_batch_size=chosen.global_batch_size, training_tokens=chosen.tokens)
    estimate = evaluate(shape, workload, ask.cluster)
    if estimate is None:
        raise InfeasibleError(
            f"no layout of {shape.name} at {chosen.global_batch_size} sequences of {ask.seq_len} fits "
            f"{ask.cluster.name}; use more chips, a shorter --context, or --max-params"
        )
    return estimate


def _assembled(ask: Ask, draft: _Draft, reliability: Reliability | None) -> Plan:
    shape, chosen = draft.shape, draft.recipe
    count = count_parameters(shape)
    unique = ask.unique_tokens or 0.0
    decision = with_tokens(draft.decision, count.active, chosen.tokens, unique)
    run = None
    if ask.cluster and draft.estimate:
        run = run_of(ask, ask.cluster, shape, chosen, draft.estimate, reliability)
    rates = _rates(ask, decision, run)
    truth = truth_of(ask)
    point = point_of(shape, chosen.tokens, ask.seq_len, unique_tokens=unique)
    around = alternatives(
        truth, count.active, chosen.tokens, rates, unique_tokens=unique, max_params=ask.max_params or float("inf")
    )
    return Plan(
        decision=decision,
        shape=shape,
        total_params=count.total,
        active_params=count.active,
        recipe=chosen,
        run=run,
        sensitivity=sensitivity(truth, replace(point, total=float(count.active))),
        alternatives=tuple(around),
        cost_unit=rates.unit,
        warnings=(*decision.warnings, *chosen.notes),
    )


def _rates(ask: Ask, decision: Decision, run: Run | None) -> Rates:
    """Dollars where the run has a price, else FLOPs: 6 a parameter and token of training, 2 of serving."""
    demand = ask.inference_tokens or 0.0
    if run is None or run.dollars is None:
        return Rates(training_per_flop=1.0, serving_per_param=2.0 * demand, unit="FLOPs")
    return Rates(
        training_per_flop=run.dollars / decision.flops,
        serving_per_param=(run.serving_dollars or 0.0) / decision.params,
        unit="dollars",
    )
