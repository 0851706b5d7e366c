"""Bytes of one device by part, and the peak: the moment at which the most is alive.

State (parameters, gradients, optimizer) lives through the whole step. On top of it come, at different moments:

* in the backward pass of the head: every saved activation, the logits with their gradient, the head's whole weights;
* in the backward pass of a layer: every saved activation, one layer's recomputed tensors and gradients
  (`liveness.py`), its gathered weights with their gradient, and the gradients of the layers before it;
* in the backward pass of the embedding: all gradients, that of the embedding's whole table among them.

The peak is the fullest of these moments. All pipeline stages of one XLA program are alike; where they are not, see
`stages.py`. ZeRO state formulas: Rajbhandari et al. 2020, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.cost.compute import local_tokens
from jaxscale.cost.numbers import Number
from jaxscale.cost.parts import Parts, at_rows, layer_slots, shared
from jaxscale.cost.problem import Problem
from jaxscale.cost.weights import Weights, held_vocabulary, layer_weights, padded_vocabulary, vocabulary_weights
from jaxscale.types import AXES, LayoutBatch
from jaxscale.types.layout import SCHEDULES

LAYERED = SCHEDULES.index("layered")
WEIGHT_COLUMNS = (*AXES, "params_shard", "grads_shard", "optimizer_shard", "virtual_stages")
FETCHED_EARLY = 0.25  # of optimizer state on a TPU's host: its copies start long before the update (libtpu 0.0.52)
EMBEDDING_GRADIENTS = 2.0  # the gradient of the whole table, and the room in which it is scattered
PARTS = (
    "parameters", "gradients", "optimizer", "activations", "working", "logits", "gathered weights", "reserved",
)  # fmt: skip


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
    cast: Number  # shards of the layers' weights in the compute format
    ends_cast: Number  # the same of embedding and head
    gathered: Number  # for the layers at work
    head_gathered: Number
    embedding_gradient: Number  # before it is scattered
    embedding_share: Number  # of the gradients: what only the embedding's backward pass, the last, makes
    layer_elements: Number  # weights of one layer, and of embedding and head, whole
    ends_elements: Number


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
    ends = held_vocabulary(p, rows)
    sets += [(group, 1.0) for group in ends]
    state = state_bytes(p, tuple(sets), rows)
    gathered = layer_elements = 0.0
    for kind in slots:
        layer = layer_weights(p, kind, rows)
        gathered = p.xp.maximum(gathered, gathered_bytes(p, layer, rows))
        layer_elements = p.xp.maximum(layer_elements, sum(weights.elements for weights in layer))
    return WeightBytes(
        state=StateBytes(
            parameters=at_rows(state.parameters, index),
            gradients=at_rows(state.gradients, index),
            optimizer=at_rows(state.optimizer, index),
            elements=at_rows(state.elements, index),
        ),
        cast=at_rows(cast_bytes(p, sets[: -len(ends)], rows), index),
        ends_cast=at_rows(cast_bytes(p, sets[-len(ends) :], rows), index),
        gathered=at_rows(gathered, index),
        layer_elements=at_rows(layer_elements, index),
        ends_elements=at_rows(sum(weights.elements for weights in ends), index),
        embedding_share=at_rows(_embedding_share(p, ends[0], state, rows), index),
        embedding_gradient=at_rows(ends[0].elements * p.reduce_bytes * EMBEDDING_GRADIENTS, index),
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
    """Whole weights of the layers at work, and one layer's whole gradient before it is scattered.

    XLA gathers each matrix where it is used and scatters its gradient at once: at the fullest point those of the MLP or
    the experts and a gradient, about the weights of a whole layer. Frameworks that gather by layer hold one layer,
    prefetch the next and keep the gradients of a layer.
    """
    total: Number = 0.0
    for weights in layer:
        gathered = weights.elements * p.compute_bytes * (layouts.params_shard > 0)
        scattered = weights.elements * p.reduce_bytes * (layouts.grads_shard > 0)
        total = total + (p.xp.maximum(gathered, scattered) if p.stack.spmd else 2.0 * gathered + scattered)
    return total


def _embedding_share(p: Problem, embedding: Weights, state: StateBytes, layouts: LayoutBatch) -> Number:
    """Share of the gradients that comes last; a tied embedding has one from the head from the start."""
    if p.inventory.numbers.structure.tied:
        return 0.0
    return embedding.elements * p.grad_bytes / zero_divisors(embedding, layouts)["grads"] / state.gradients


def cast_bytes(p: Problem, sets: Sequence[tuple[Weights, Number]], layouts: LayoutBatch) -> Number:
    """Shards of weights in the compute format, where they are stored in another.

    XLA casts the whole stack of layers once, before the loop over them, and keeps it until the backward pass is over.
    """
    one_copy = layouts.params_shard == layouts.optimizer_shard
    cast: Number = 0.0
    for weights, copies in sets:
        cast = cast + weights.elements * copies / zero_divisors(weights, layouts)["params"]
    return cast * p.compute_bytes * one_copy * (p.master_bytes != p.compute_bytes)


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
    offloaded = held * sum(pieces.slots[k] * layer.offloaded_bytes for k, layer in pieces.layers.items())
    state = held_weights.state
    always = {
        "parameters": state.parameters * _parameter_copies(p, layouts),
        "optimizer": state.optimizer * xp.where(offload, FETCHED_EARLY * (p.device.kind == "tpu"), 1.0),
        "reserved": p.stack.reserved_bytes + 0.0 * state.optimizer,
    }
    fullest = _fullest(p, _moments(p, layouts, pieces, held_weights, held))
    parts = {part: always.get(part, fullest.get(part)) for part in PARTS}
    return parts, offloaded + xp.where(offload, state.optimizer, 0.0)


def _moments(
    p: Problem, layouts: LayoutBatch, pieces: Parts, weights: WeightBytes, held: Number
) -> tuple[dict[str, Number], ...]:
    """What is alive beside parameters and optimizer state in the backward passes of head, layers and embedding."""
    working: Number = 0.0
    for layer in pieces.layers.values():
        working = p.xp.maximum(working, layer.working_bytes)
    saved = held * sum(pieces.slots[k] * layer.saved_bytes for k, layer in pieces.layers.items())
    activations = saved * (1.0 + p.stack.fragmentation_frac) + _waiting_bytes(p, layouts)
    # XLA keeps the sum over microbatches so far beside the microbatch's own; a single one's stay in the wire's format.
    # The layered schedule sums up whole layers instead.
    accumulates = pieces.num_microbatches > 1
    sums = weights.state.gradients * (accumulates & (layouts.schedule != LAYERED))
    own = weights.state.gradients * p.xp.where(accumulates, 1.0, p.reduce_bytes / p.grad_bytes)
    of_layers = own * (1.0 - weights.embedding_share)
    nothing = 0.0 * own
    # A loop over microbatches is another loop that the casts of embedding and head are moved out of.
    cast = weights.cast + weights.ends_cast * accumulates
    held_open = cast + _layered_bytes(p, layouts, weights) + _ticks_bytes(p, layouts, weights)
    head = {
        "gradients": sums, "activations": activations, "working": nothing, "logits": pieces.head.working_bytes,
        "gathered weights": held_open + weights.head_gathered,
    }  # fmt: skip
    layers = {
        "gradients": sums + of_layers, "activations": activations, "working": working, "logits": nothing,
        "gathered weights": held_open + weights.gathered,
    }  # fmt: skip
    embedding = {
        "gradients": sums + own, "activations": nothing, "working": weights.embedding_gradient, "logits": nothing,
        "gathered weights": cast * accumulates,
    }  # fmt: skip
    return head, layers, embedding


def _fullest(p: Problem, moments: tuple[dict[str, Number], ...]) -> dict[str, Number]:
    """The parts of the moment at which they sum to most, row by row."""
    best = moments[0]
    most = sum(best.values())
    for moment in moments[1:]:
        total = sum(moment.values())
        fuller = total > most
        best = {part: p.xp.where(fuller, size, best[part]) for part, size in moment.items()}
        most = p.xp.maximum(total, most)
    return best


def _parameter_copies(p: Problem, layouts: LayoutBatch) -> Number:
    """Copies of stored parameters: XLA copies a working copy that it both reads in the loop and replaces after it."""
    if not p.stack.spmd:
        return 1.0
    return 1.0 + (layouts.params_shard != layouts.optimizer_shard)


def _layered_bytes(p: Problem, layouts: LayoutBatch, weights: WeightBytes) -> Number:
    """What the layered schedule holds beyond the others: whole gradients that are summed up over all microbatches.

    With a pipeline these are two chunks', which stages are in at once, and embedding's and head's; so are the weights.
    """
    layered, piped = _runs_layered(p, layouts), layouts.pipeline > 1
    chunk_layers = np.ceil(p.inventory.numbers.num_layers / (layouts.pipeline * layouts.virtual_stages))
    sums = weights.layer_elements * p.grad_bytes * np.where(piped, 2.0 * chunk_layers, 1.0)
    ends = weights.ends_elements * (p.grad_bytes + p.compute_bytes * (layouts.params_shard > 0))
    return layered * (sums + piped * (ends + (chunk_layers - 1.0) * weights.gathered))


def _ticks_bytes(p: Problem, layouts: LayoutBatch, weights: WeightBytes) -> Number:
    """What the scan over a pipeline's ticks holds of weights and streams, beside what layers save.

    1f1b: embedding and head whole, and the gradient of one. gpipe and interleaved, which are differentiated as a whole:
    for every tick the weights that its chunk computed with, the head's whole weights and the stream, since a branch
    that a stage may skip hands all that its backward pass reads from tick to tick (seen with libtpu 0.0.52).
    """
    if not p.stack.spmd:
        return 0.0
    piped, chunks = layouts.pipeline > 1, layouts.virtual_stages
    table = weights.ends_elements * p.compute_bytes / (2.0 - p.inventory.numbers.structure.tied)
    stream = local_tokens(p, layouts).residual * p.inventory.numbers.d_model * p.compute_bytes
    ticks = p.global_batch_size / (layouts.batch_shards * layouts.microbatch_size) * chunks + layouts.pipeline - 1.0
    as_a_whole = (layouts.schedule == SCHEDULES.index("gpipe")) | (layouts.schedule == SCHEDULES.index("interleaved"))
    one_by_one = layouts.schedule == SCHEDULES.index("1f1b")
    ends = weights.ends_elements * p.compute_bytes + table
    return piped * (as_a_whole * ticks * (weights.cast / chunks + table + stream) + one_by_one * ends)


def _runs_layered(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    """Where the layered schedule differs from plain accumulation: one microbatch passes layer by layer in any case."""
    several = p.global_batch_size > layouts.batch_shards * layouts.microbatch_size
    return (layouts.schedule == LAYERED) & ((layouts.pipeline > 1) | several)


def _waiting_bytes(p: Problem, layouts: LayoutBatch) -> Number:
    """Streams that wait for their backward pass in one XLA program, beside what layers save.

    1f1b: a ring of those that entered a stage. Layered: of all microbatches, those that left the last layer and their
    gradients; with a pipeline, those that entered each chunk, and the gradients of those that left one.
    """
    if not p.stack.spmd:
        return 0.0
    stream = local_tokens(p, layouts).residual * p.inventory.numbers.d_model * p.compute_bytes
    piped, layered = layouts.pipeline > 1, _runs_layered(p, layouts)
    ring = piped & (layouts.schedule == SCHEDULES.index("1f1b"))
    num_microbatches = p.global_batch_size / (layouts.batch_shards * layouts.microbatch_size)
    table = num_microbatches * np.where(piped, layouts.virtual_stages + 1.0, 2.0)
    return stream * (ring * (2.0 * layouts.pipeline - 1.0) + layered * table)


def _microbatches_held(p: Problem, layouts: LayoutBatch, num_microbatches: Number) -> Number:
    """Microbatches of a whole stage whose saved activations are alive at once, at the stage that holds most."""
    xp, stages, v = p.xp, layouts.pipeline, layouts.virtual_stages
    held: Number = 0.0
    for code, name in enumerate(SCHEDULES):
        # One tick at a time, or every tick of a scan that is differentiated as a whole.
        chunks = {"1f1b": v, "zero_bubble": v, "layered": 1.0}.get(name, num_microbatches * v + stages - 1)
        held = held + xp.where(layouts.schedule == code, chunks / v, 0.0)
    return xp.where(stages > 1, held, xp.where(layouts.schedule == LAYERED, num_microbatches, 1.0))
