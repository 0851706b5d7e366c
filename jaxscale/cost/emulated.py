"""The step on emulated devices, which share the cores and the memory of one machine.

A device that waits leaves its time to the others: what counts is the work of all of them together. Prices of ops are of
one device while all work at once, so the step is the mean over devices of the work that each does:

* a pipeline's bubble costs nothing, since a stage without work skips it; embedding and head are on one stage only;
* 1f1b and layered repeat a stage's forward pass in its backward pass, and all stages but the last also run it apart;
* with ring attention a stage always works and throws away what it should not have done (`runtime.program.branch`);
* nothing hides behind anything: copies and arithmetic run on the same cores.
"""

from dataclasses import dataclass

from jaxscale.cost.numbers import Number
from jaxscale.cost.parts import Parts
from jaxscale.cost.problem import Problem
from jaxscale.cost.weights import layer_weights, vocabulary_weights
from jaxscale.types import LayoutBatch
from jaxscale.types.layout import CONTEXT_METHODS, SCHEDULES

RING = CONTEXT_METHODS.index("ring")
ONE_F_ONE_B, LAYERED = SCHEDULES.index("1f1b"), SCHEDULES.index("layered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """How often a mean device runs each piece in a step; arrays [n]."""

    ticks: Number  # rounds of the loop over microbatches
    forward: Number  # of its stage
    backward: Number
    head_forward: Number
    head_backward: Number
    stacked: Number  # microbatches whose saved activations go into a stack, by loop


def runs(layouts: LayoutBatch, num_microbatches: Number) -> Runs:
    """Count them, as the loops of `runtime.program.pipeline` do."""
    m, p, v = num_microbatches, layouts.pipeline, layouts.virtual_stages
    one_f_one_b, layered = ((p > 1) & (layouts.schedule == code) for code in (ONE_F_ONE_B, LAYERED))
    ring = (p > 1) & (layouts.context > 1) & (layouts.context_method == RING)
    ticks = m + (2 * (p - 1)) * one_f_one_b + (p - 1) / v * (1 - one_f_one_b)
    worked = m + (ticks - m) * ring
    # Forward passes outside of backward ones: of all stages but the last, of all chunks but the last stage's last.
    apart = one_f_one_b * worked * (ring + (1 - ring) * (p - 1) / p)
    apart = apart + layered * worked * (ring + (1 - ring) * (1 - 1 / (p * v)))
    heads = (m + (ticks - m) * (ring & one_f_one_b)) / p
    again = (p > 1) & ~one_f_one_b & ~layered  # the loss is recomputed, so that logits are not kept
    # Layers are one loop; ticks that are differentiated as a whole are another around it.
    return Runs(
        ticks=ticks, forward=worked + apart, backward=worked, head_forward=heads * (1 + again), head_backward=heads,
        stacked=worked + ticks * again,
    )  # fmt: skip


def emulated_parts_s(
    p: Problem,
    layouts: LayoutBatch,
    pieces: Parts,
    ahead: dict[str, Number],
    back: dict[str, Number],
    step_comm: dict[str, Number],
    send_s: Number,
    optimizer_s: Number,
) -> dict[str, Number]:
    """Seconds of a step by part; `ahead` and `back` are of one microbatch through a stage, `send_s` of one hop."""
    count, head = runs(layouts, pieces.num_microbatches), pieces.head
    parts = {
        part: count.forward * ahead.get(part, 0.0) + count.backward * back.get(part, 0.0)
        for part in (*ahead, "recompute")
    }
    for part in ("matmul", "attention", "elementwise"):
        parts[part] = (
            parts[part] + count.head_forward * head.forward_s[part] + count.head_backward * head.backward_s[part]
        )
    parts["elementwise"] = parts["elementwise"] + 2.0 * count.head_backward * pieces.embedding_s
    parts["weights"] = count.ticks * _weight_traffic_s(p, layouts, pieces)
    parts["saved"] = count.stacked * _saved_traffic_s(p, pieces)
    parts["pipeline"] = 2.0 * count.ticks * send_s
    parts["data"] = step_comm["data"]
    parts["optimizer"] = optimizer_s
    parts["overhead"] = p.stack.step_overhead_s + count.ticks * p.stack.microbatch_overhead_s
    return parts


def _saved_traffic_s(p: Problem, pieces: Parts) -> Number:
    """What a microbatch leaves for its backward pass, written into a stack and read out of it."""
    saved = sum(pieces.slots[kind] * layer.saved_bytes for kind, layer in pieces.layers.items())
    return 2.0 * saved * p.stack.saved_passes / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)


def _weight_traffic_s(p: Problem, layouts: LayoutBatch, pieces: Parts) -> Number:
    """Weights cut out of their stack of layers, their gradients written into one and added to the sum so far."""
    held: Number = 0.0
    for kind, layers in pieces.slots.items():
        for weights in layer_weights(p, kind, layouts):
            held = held + layers * weights.elements / _split(layouts, weights.group)
    for weights in vocabulary_weights(p, layouts):
        held = held + weights.elements / _split(layouts, weights.group)
    return held * p.grad_bytes * p.stack.weight_passes / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)


def _split(layouts: LayoutBatch, group: tuple[str, ...]) -> Number:
    """Over how many devices gradients are split while they are summed up."""
    size: Number = 1.0
    for axis in group:
        size = size * getattr(layouts, axis)
    return 1.0 + (layouts.grads_shard > 0) * (size * (1.0 + (layouts.grads_shard > 1) * (layouts.data - 1.0)) - 1.0)
