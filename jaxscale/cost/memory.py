"""Bytes of one device by part, and the peak: the moment at which the most is alive.

State (parameters, gradients, optimizer) lives through the whole step. On top of it come, at different moments:

* in the backward pass of the head: every saved activation, and the logits with their gradient;
* in the backward pass of a layer: every saved activation, one layer's recomputed tensors and gradients, and its
  gathered weights with their gradient.

The peak is state + saved activations + the larger of the two. All pipeline stages of one XLA program are alike; where
they are not, see `stages.py`. ZeRO state formulas: Rajbhandari et al. 2020, section 3.
"""

from dataclasses import dataclass

from jaxscale.cost.compute import local_tokens
from jaxscale.cost.numbers import Number
from jaxscale.cost.parts import Parts, at_rows, layer_slots, shared
from jaxscale.cost.problem import Problem
from jaxscale.cost.weights import Weights, held_vocabulary, layer_weights, padded_vocabulary, vocabulary_weights
from jaxscale.types import AXES, LayoutBatch
from jaxscale.types.layout import SCHEDULES

WEIGHT_COLUMNS = (*AXES, "params_shard", "grads_shard", "optimizer_shard", "virtual_stages")
GATHERED_LAYERS = 2.0  # the layer at work and the next, prefetched


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """Training state on one device."""

    parameters: Number
    gradients: Number
    optimizer: Number  # moments, and the master copy where it is split wider than the parameters
    elements: Number  # parameters whose update this device computes


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """Weights and training state on one device, and what is gathered of them for a moment."""

    state: StateBytes
    gathered: Number  # for the layers at work
    head_gathered: Number


def state_bytes(p: Problem, sets: tuple[tuple[Weights, Number], ...], layouts: LayoutBatch) -> StateBytes:
    """State of `(weights, copies)`: what ZeRO splits over its group, and what stays whole.

    Parameters split like the optimizer are one master copy; else every rank keeps a working copy in the compute
    format and the master copy is split with the optimizer state.
    """
    xp = p.xp
    params = grads = optim = updated = 0.0
    one_copy = layouts.params_shard == layouts.optimizer_shard
    stored = xp.where(one_copy, p.master_bytes, p.compute_bytes)
    master = xp.where(one_copy, 0.0, p.master_bytes)
    for weights, copies in sets:
        over = zero_divisors(weights, layouts)
        elements, small = weights.elements * copies, weights.small.elements * copies
        params = params + elements * stored / over["params"] + small * p.master_bytes
        grads = grads + elements * p.grad_bytes / over["grads"] + small * p.grad_bytes
        optim = optim + elements * (p.state_bytes + master) / over["optimizer"] + small * p.state_bytes
        updated = updated + elements / over["optimizer"] + small
    return StateBytes(parameters=params, gradients=grads, optimizer=optim, elements=updated)


def weight_bytes(p: Problem, layouts: LayoutBatch) -> WeightBytes:
    """What one device holds of weights and their state, and gathers of them.

    It depends on the mesh and on what is sharded over what, so that it is worked out once per distinct row.
    """
    rows, index = shared(p, layouts, WEIGHT_COLUMNS)
    slots = layer_slots(p, rows)
    sets = [(group, slots[kind]) for kind in slots for group in layer_weights(p, kind, rows)]
    sets += [(group, 1.0) for group in held_vocabulary(p, rows)]
    state = state_bytes(p, tuple(sets), rows)
    gathered: Number = 0.0
    for kind in slots:
        gathered = p.xp.maximum(gathered, gathered_bytes(p, layer_weights(p, kind, rows), rows))
    return WeightBytes(
        state=StateBytes(
            parameters=at_rows(state.parameters, index),
            gradients=at_rows(state.gradients, index),
            optimizer=at_rows(state.optimizer, index),
            elements=at_rows(state.elements, index),
        ),
        gathered=at_rows(gathered, index),
        head_gathered=at_rows(head_weights_bytes(p, vocabulary_weights(p, rows)[1], rows), index),
    )


def zero_divisors(weights: Weights, layouts: LayoutBatch) -> dict[str, Number]:
    """Ways that parameters, gradients and optimizer state are split: 1, the ZeRO group, or the group and data."""
    group: Number = 1.0
    for axis in weights.group:
        group = group * getattr(layouts, axis)
    splits = {"params": layouts.params_shard, "grads": layouts.grads_shard, "optimizer": layouts.optimizer_shard}
    return {name: _choose(level, 1.0, group, group * layouts.data) for name, level in splits.items()}


def _choose(level: Number, none: Number, fsdp: Number, data: Number) -> Number:
    return (level == 0) * none + (level == 1) * fsdp + (level == 2) * data


def gathered_bytes(p: Problem, layer: tuple[Weights, ...], layouts: LayoutBatch) -> Number:
    """Weights gathered for the layer at work and the next, and one layer's whole gradient before it is scattered."""
    total: Number = 0.0
    for weights in layer:
        gathered = GATHERED_LAYERS * weights.elements * p.compute_bytes * (layouts.params_shard > 0)
        scattered = weights.elements * p.reduce_bytes * (layouts.grads_shard > 0)
        total = total + gathered + scattered
    return total


def head_weights_bytes(p: Problem, head: Weights, layouts: LayoutBatch) -> Number:
    """The head's gathered matrix, where ZeRO splits it; its gradient comes when one copy of the logits is gone."""
    width = p.inventory.numbers.structure.tied * 1.0
    elements = head.elements + width * padded_vocabulary(p, layouts) / layouts.tensor * p.inventory.numbers.d_model
    return elements * p.compute_bytes * (layouts.params_shard > 0)


def peak_parts(
    p: Problem, layouts: LayoutBatch, pieces: Parts, held_weights: WeightBytes
) -> tuple[dict[str, Number], Number]:
    """Bytes alive at the peak by part, which sum to it, and bytes in host memory; arrays [n]."""
    xp = p.xp
    offload = layouts.offload_optimizer > 0
    held = _microbatches_held(p, layouts, pieces.num_microbatches)
    saved = held * sum(pieces.slots[k] * layer.saved_bytes for k, layer in pieces.layers.items())
    offloaded = held * sum(pieces.slots[k] * layer.offloaded_bytes for k, layer in pieces.layers.items())
    layer_working: Number = 0.0
    for layer in pieces.layers.values():
        layer_working = xp.maximum(layer_working, layer.working_bytes)
    state, gathered, head_gathered = held_weights.state, held_weights.gathered, held_weights.head_gathered
    at_head = pieces.head.working_bytes + head_gathered > layer_working + gathered
    activations = saved * (1.0 + p.stack.fragmentation_frac) + _waiting_bytes(p, layouts)
    return {
        "parameters": state.parameters * _parameter_copies(p, layouts),
        "gradients": state.gradients * _gradient_sets(p, layouts, pieces.num_microbatches),
        "optimizer": xp.where(offload, 0.0, state.optimizer),
        "activations": activations,
        "working": xp.where(at_head, 0.0, layer_working),
        "logits": xp.where(at_head, pieces.head.working_bytes, 0.0),
        "gathered weights": xp.where(at_head, head_gathered, gathered),
        "reserved": p.stack.reserved_bytes + 0.0 * activations,
    }, offloaded + xp.where(offload, state.optimizer, 0.0)


def _parameter_copies(p: Problem, layouts: LayoutBatch) -> Number:
    """Copies of stored parameters: XLA copies a working copy that it both reads in the loop and replaces after it."""
    if not p.stack.spmd:
        return 1.0
    return 1.0 + (layouts.params_shard != layouts.optimizer_shard)


def _gradient_sets(p: Problem, layouts: LayoutBatch, num_microbatches: Number) -> Number:
    """Sets of gradients alive: XLA keeps the sum so far beside the microbatch's own, torch adds in place."""
    if not p.stack.spmd:
        return 1.0
    return 1.0 + (num_microbatches > 1) * 1.0


def _waiting_bytes(p: Problem, layouts: LayoutBatch) -> Number:
    """Streams that entered a stage of 1f1b and wait for their backward pass, in one XLA program."""
    if not p.stack.spmd:
        return 0.0
    stream = local_tokens(p, layouts).residual * p.inventory.numbers.d_model * p.compute_bytes
    waits = (layouts.pipeline > 1) & (layouts.schedule == SCHEDULES.index("1f1b"))
    return waits * stream * (2.0 * layouts.pipeline - 1.0)


def _microbatches_held(p: Problem, layouts: LayoutBatch, num_microbatches: Number) -> Number:
    """Microbatches of a whole stage whose saved activations are alive at once, at the stage that holds most."""
    xp, stages, v = p.xp, layouts.pipeline, layouts.virtual_stages
    held: Number = 0.0
    for code, name in enumerate(SCHEDULES):
        # One tick at a time, or every tick of a scan that is differentiated as a whole.
        chunks = v if name in ("1f1b", "zero_bubble") else num_microbatches * v + stages - 1
        held = held + xp.where(layouts.schedule == code, chunks / v, 0.0)
    return xp.where(stages > 1, held, 1.0)
