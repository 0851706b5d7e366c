"""From compute to parameters and tokens: the panel of laws, the choice among them, and the constraints on it."""

import math
from dataclasses import dataclass, replace

from jaxscale.errors import SpecError
from jaxscale.plan.budget.ask import LEAST_FLOPS, MOST_FLOPS, Ask
from jaxscale.plan.economics import lifetime
from jaxscale.plan.law import Law
from jaxscale.plan.laws import LAWS, data, dense, laws_for, moe
from jaxscale.plan.panel import Allocation, Regret, allocate, flops_for_loss, flops_for_tokens, loss_of, regret
from jaxscale.plan.shapes import LARGEST_PARAMS, SMALLEST_PARAMS

REFERENCE = "besiroglu"  # where one law must turn a loss or a token count into compute
TRAINING_BYTES_PER_PARAM = 18.0  # bf16 copy, float32 master, gradient and two Adam moments, less what is never whole
_MEMORY_SHARE = 0.8  # of a cluster's memory that state may take; activations need the rest
_WARN_DECADES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to train: total and active parameters, tokens, and how it was decided.

    `losses` is what each loss law predicts for it, in nats/token of that law's own data.
    """

    flops: float  # 6 N_active D
    params: float  # of a dense model, or active ones of a mixture of experts
    tokens: float
    experts: int
    epochs: float
    allocations: tuple[Allocation, ...]
    regret: Regret
    chosen_law: str
    losses: dict[str, float]
    flops_by_law: dict[str, float]  # compute that each law would need, where the question was a loss or a token count
    why: tuple[str, ...]
    warnings: tuple[str, ...]


def compute_of(ask: Ask) -> tuple[float, dict[str, float]]:
    """Compute that the question implies without hardware, and what each law would say it takes."""
    if ask.flops is not None:
        return ask.flops, {}
    if ask.loss is not None:
        by_law = {law.name: flops_for_loss(law, ask.loss) for law in laws_for("loss")}
        if ask.moe:
            by_law["joint_moe"] = moe.joint_moe_flops(ask.loss, memory_params=_params_for_experts(ask))
    else:
        assert ask.tokens is not None, "an Ask has a budget"
        by_law = {law.name: flops_for_tokens(law, ask.tokens) for law in _allocation_laws(ask)}
    flops = by_law.get("joint_moe", by_law[REFERENCE])
    if ask.tokens is not None:
        flops = by_law[_choose(ask, flops)[1].choice]
    if not LEAST_FLOPS <= flops <= MOST_FLOPS:
        what = f"--loss {ask.loss:g}" if ask.loss is not None else f"--tokens {ask.tokens:.3g}"
        raise SpecError(
            f"{what} takes {flops:.2g} FLOPs by the reference law, a hundred times outside of every run known; "
            f"ask for something between {LEAST_FLOPS:.0e} and {MOST_FLOPS:.0e} FLOPs"
        )
    return flops, by_law


def decide(
    ask: Ask,
    flops: float,
    *,
    flops_by_law: dict[str, float] | None = None,
    serving_weight: float = 1.0,
    experts: int | None = None,
) -> Decision:
    """Ask every law that applies, choose by least regret, then apply the constraints in the order they bind.

    `serving_weight` is what a FLOP of serving costs over one of training; `experts` overrides the joint MoE law.
    """
    unique = ask.unique_tokens or 0.0
    allocations, crossed, scarce = _choose(ask, flops)
    choice = next(a for a in allocations if a.law == crossed.choice)
    worst = 100.0 * min(crossed.worst)
    why = [f"{choice.title} wastes least in its worst case ({worst:.1f}% of compute) among {len(allocations)} laws"]
    params = _sized(ask, flops, choice.params, scarce, why, serving_weight)
    experts, params = _experts(ask, flops, params, why, experts)
    tokens = flops / (6.0 * params)
    epochs = tokens / unique if unique else 1.0
    return Decision(
        flops=flops,
        params=params,
        tokens=tokens,
        experts=experts,
        epochs=max(1.0, epochs),
        allocations=allocations,
        regret=crossed,
        chosen_law=choice.law,
        losses=_losses(params, tokens, experts, unique if epochs > 1.0 else 0.0),
        flops_by_law=flops_by_law or {},
        why=tuple(why),
        warnings=tuple(_warnings(ask, flops, params, tokens, epochs, choice)),
    )


def truth_of(ask: Ask) -> Law:
    """The loss law that sensitivities and fronts are drawn under."""
    return LAWS["muennighoff" if ask.unique_tokens else REFERENCE]


def with_tokens(decision: Decision, params: float, tokens: float, unique_tokens: float = 0.0) -> Decision:
    """The decision after rounding to a real shape and to whole steps."""
    epochs = tokens / unique_tokens if unique_tokens else 1.0
    losses = _losses(params, tokens, decision.experts, unique_tokens if epochs > 1.0 else 0.0)
    return replace(
        decision, params=params, tokens=tokens, flops=6.0 * params * tokens, epochs=max(1.0, epochs), losses=losses
    )


def _choose(ask: Ask, flops: float) -> tuple[tuple[Allocation, ...], Regret, bool]:
    """Every law's answer, their crossed regret, and whether the unique tokens run out under all of them."""
    unique = ask.unique_tokens or 0.0
    allocations = tuple(allocate(law, flops, unique_tokens=unique) for law in _allocation_laws(ask))
    scarce = 0.0 < unique < min(a.tokens for a in allocations)
    truths = [LAWS["muennighoff"]] if scarce else laws_for("loss")
    return allocations, regret(allocations, truths, flops, unique_tokens=unique if scarce else 0.0), scarce


def _allocation_laws(ask: Ask) -> list[Law]:
    return laws_for("allocation", second_hand=ask.second_hand)


def _sized(ask: Ask, flops: float, params: float, scarce: bool, why: list[str], serving_weight: float) -> float:
    """Constraints on size: given tokens, serving, scarce data, a limit, memory."""
    if ask.tokens is not None and ask.flops is None and ask.time_s is None:
        why.append(f"{ask.tokens:.3g} tokens are given; the size is what they are compute-optimal for")
        params = flops / (6.0 * ask.tokens)
    elif ask.tokens is not None:
        why.append(f"{ask.tokens:.3g} tokens are given, so the compute sets the size")
        params = flops / (6.0 * ask.tokens)
    elif ask.inference_tokens:
        cost = lifetime.UnitCost(serving=serving_weight)
        params, _ = lifetime.split_of_budget(dense.BESIROGLU, flops, ask.inference_tokens, cost)
        why.append(
            f"serving {ask.inference_tokens:.3g} tokens, a FLOP of it at {serving_weight:.1f} times one of training, "
            "makes a smaller, longer-trained model the cheapest to own at its quality (Sardana et al. 2024)"
        )
    if scarce:
        repeated, _ = data.repeated_optimum(flops, ask.unique_tokens or 0.0)
        if ask.tokens is None and not ask.inference_tokens:
            params = repeated
        why.append("the unique tokens run out: size and epochs follow Muennighoff et al. 2023")
    limit = ask.max_params or LARGEST_PARAMS
    memory = _params_in_memory(ask)
    if ask.cluster is not None and memory < min(params, limit):
        why.append(f"memory of {ask.cluster.name} limits the state of training to about {memory:.3g} parameters")
    limit = min(limit, memory)
    if ask.max_params and params > ask.max_params:
        why.append(f"limited to {ask.max_params:.3g} parameters; the rest of the compute buys more tokens")
    return max(SMALLEST_PARAMS, min(params, limit))


def _params_in_memory(ask: Ask) -> float:
    """Parameters whose training state a cluster holds; no limit without a cluster."""
    if ask.cluster is None:
        return math.inf
    memory_bytes = ask.cluster.num_chips * ask.cluster.chip.usable_hbm_bytes
    return memory_bytes * _MEMORY_SHARE / TRAINING_BYTES_PER_PARAM


def _params_for_experts(ask: Ask) -> float:
    """Total parameters that a mixture of experts may have, by memory and by what was asked."""
    return min(_params_in_memory(ask), ask.max_params or math.inf)


def _experts(ask: Ask, flops: float, params: float, why: list[str], given: int | None) -> tuple[int, float]:
    """Experts by the joint law under the cluster's memory, and active parameters scaled by its MoE to dense ratio."""
    if not ask.moe:
        return 1, params
    experts = given or moe.joint_moe_best(flops, memory_params=_params_for_experts(ask))[0]
    if experts <= 1:
        why.append("a dense model does better than a mixture of experts here, by the joint MoE law and this hardware")
        return 1, params
    reason = "what this hardware makes of the joint MoE law" if given else "the joint MoE law"
    why.append(f"{experts} experts by {reason} (Ludziejewski et al. 2025)")
    if ask.tokens is not None:
        return experts, params
    ratio = float(moe.JOINT_MOE.optimum(flops, experts)[0] / moe.JOINT_MOE.optimum(flops, 1.0)[0])
    why.append(f"active parameters are {ratio:.2f} of the dense size, the joint law's own ratio")
    return experts, params * ratio


def _losses(params: float, tokens: float, experts: int, unique_tokens: float) -> dict[str, float]:
    if experts > 1:
        return {"joint_moe": float(moe.JOINT_MOE.loss(params, tokens, experts))}
    return {law.name: loss_of(law, params, tokens, unique_tokens=unique_tokens) for law in laws_for("loss")}


def _warnings(ask: Ask, flops: float, params: float, tokens: float, epochs: float, choice: Allocation) -> list[str]:
    lines = [line for law in _allocation_laws(ask) if not law.verified for line in law.warnings()]
    outside = LAWS[choice.law].decades_outside(flops=flops, params=params, tokens=tokens)
    far = {name: decades for name, decades in outside.items() if decades > _WARN_DECADES}
    if far:
        reach = ", ".join(f"{name} by {decades:.1f} decades" for name, decades in far.items())
        lines.append(f"outside what {choice.title} was fitted on: {reach}; read the numbers as extrapolation")
    if epochs > 40:
        lines.append(f"{epochs:.0f} epochs: repeated tokens are worth almost nothing after about 40")
    elif epochs > 4:
        lines.append(f"{epochs:.1f} epochs: repetition costs little up to 4 epochs and more and more after")
    if ask.loss is not None:
        lines.append(
            "a loss means something on a law's own data only; the laws need different compute for the same number"
        )
    ratio = tokens / params
    if ratio > 500:
        lines.append(f"{ratio:.0f} tokens a parameter is beyond the runs of every law; gains there are over-estimated")
    return lines
