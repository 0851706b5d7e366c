"""Bytes of one device by part, and the peak: the moment at which the most is alive.

State (parameters, gradients, optimizer) lives through the whole step. On top of it come, at different moments:

* in the backward pass of the head: every saved activation, the logits with their gradient, the head's whole weights;
* in the backward pass of a layer: every saved activation, one layer's recomputed tensors and gradients
  (`liveness.py`), its gathered weights with their gradient, and the gradients of the layers before it;
* in the backward pass of the embedding: all gradients, that of the embedding's whole table among them.

The peak is the fullest of these moments. All pipeline stages of one XLA program are alike; where they are not, see
`stages.py`. ZeRO state formulas: Rajbhandari et al. 2020, section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.cost.compute import local_tokens
from jaxscale.cost.ends import LANES, embedding_gradient_bytes, head_copy_bytes, head_gradient_bytes
from jaxscale.cost.numbers import Number
from jaxscale.cost.parallel import LayerKind
from jaxscale.cost.parts import Parts, at_rows, layer_slots, shared
from jaxscale.cost.problem import Problem
from jaxscale.cost.weights import Weights, held_vocabulary, layer_weights, padded_vocabulary, vocabulary_weights
from jaxscale.types import AXES, LayoutBatch
from jaxscale.types.layout import SCHEDULES

LAYERED = SCHEDULES.index("layered")
WEIGHT_COLUMNS = (*AXES, "params_shard", "grads_shard", "optimizer_shard", "virtual_stages")
FETCHED_EARLY_BYTES = 2.0 * 2**30  # of optimizer state on a TPU's host that is on its way (libtpu 0.0.52)
NARROW_MODEL = 2048.0  # width up to which matrices of narrow shards are laid out with padding
PACKED_ROWS = 2.0  # of bf16 in one row of a vector register
PARTS = (
    "parameters", "gradients", "optimizer", "activations", "working", "logits", "gathered weights", "reserved",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBytes:
    """Training state on one device."""

    parameters: Number
    gradients: Number
    optimizer: Number  # moments; with unlike stages also the master copy where it is split wider than the parameters
    elements: Number  # parameters whose update this device computes


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """Weights and training state on one device, and what is gathered of them for a moment."""

    state: StateBytes
    cast: Number  # shards of the layers' weights in the compute format, beside the master copy
    ends_cast: Number  # the same of embedding and head
    gathered: Number  # for the layers at work
    head_gathered: Number
    embedding_gradient: Number  # whole, with what it is reduced into
    fetched_early: Number  # of optimizer state in host memory: copies under way long before the update
    embedding_share: Number  # of the gradients: what only the embedding's backward pass, the last, makes
    layer_elements: Number  # weights of one layer, and of embedding and head, whole
    ends_elements: Number


def state_bytes(p: Problem, sets: tuple[tuple[Weights, Number], ...], layouts: LayoutBatch) -> StateBytes:
    """State of `(weights, copies)`: what ZeRO splits over its group, and what stays whole.

    Parameters split like the optimizer are one master copy. Else the master copy is split with the optimizer; one XLA
    program gathers weights to compute with from it at the start of a step (`cast_bytes`), a framework keeps them beside
    it, in the compute format.
    """
    xp = p.xp
    params = grads = optim = updated = 0.0
    one_copy = (layouts.params_shard == layouts.optimizer_shard) | p.stack.spmd
    stored = xp.where(one_copy, p.master_bytes, p.compute_bytes)
    master = xp.where(one_copy, 0.0, p.master_bytes)
    for weights, copies in sets:
        over = zero_divisors(weights, layouts)
        elements, small = weights.elements * copies, weights.small.elements * copies
        holders = over["optimizer" if p.stack.spmd else "params"]
        params = params + elements * stored / holders + small * p.master_bytes
        grads = grads + elements * p.grad_bytes / over["grads"] + small * p.grad_bytes
        optim = optim + elements * (p.state_bytes + master) / over["optimizer"] + small * p.state_bytes
        if p.factored:  # held whole by every device
            optim = optim + (weights.lines * copies + small) * p.master_bytes
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
        cast=at_rows(cast_bytes(p, sets[: -len(ends)], rows) + _padded_bytes(p, slots, rows), index),
        ends_cast=at_rows(cast_bytes(p, sets[-len(ends) :], rows), index),
        gathered=at_rows(gathered, index),
        layer_elements=at_rows(layer_elements, index),
        ends_elements=at_rows(sum(weights.elements for weights in ends), index),
        embedding_share=at_rows(_embedding_share(p, ends[0], state, rows), index),
        embedding_gradient=at_rows(embedding_gradient_bytes(p, ends[0], rows), index),
        fetched_early=at_rows(_fetched_early_bytes(p, slots, rows), index),
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
    """Shards of weights to compute with, where those stored are of another format, or are split wider.

    XLA casts the whole stack of layers once, before the loop over them, and keeps it until the backward pass is over.
    Under ZeRO-1 and ZeRO-2 the step gathers it at its start.
    """
    apart = (layouts.params_shard != layouts.optimizer_shard) | (p.master_bytes != p.compute_bytes)
    cast: Number = 0.0
    for weights, copies in sets:
        cast = cast + weights.elements * copies / zero_divisors(weights, layouts)["params"]
    return cast * p.compute_bytes * apart


def _padded_bytes(p: Problem, slots: Mapping[LayerKind, Number], layouts: LayoutBatch) -> Number:
    """A copy of all layers' output projections whose shard of a head's width is padded to a vector's lanes.

    The TPU compiler lays it out so where ZeRO's group does not divide the heads and splits their width to 2: on TPU7x,
    and elsewhere in models of up to `NARROW_MODEL` (seen with libtpu 0.0.52).
    """
    s = p.inventory.numbers
    if p.device.kind != "tpu" or not p.stack.spmd:
        return 0.0
    heads, group = s.num_heads / layouts.tensor, layouts.fsdp * layouts.expert * layouts.context
    narrow = (heads % group > 0) & (s.v_head_dim % group == 0) & (s.v_head_dim <= PACKED_ROWS * group)
    narrow = narrow & (layouts.params_shard == 1)
    seen = (s.d_model <= NARROW_MODEL) | (p.devices_per_chip == 2)
    return narrow * seen * sum(slots.values()) * heads * LANES * s.d_model * p.compute_bytes


def head_weights_bytes(p: Problem, head: Weights, layouts: LayoutBatch) -> Number:
    """The head's gathered matrix, where ZeRO splits it; its gradient comes when one copy of the logits is gone."""
    width = p.inventory.numbers.structure.tied * 1.0
    elements = head.elements + width * padded_vocabulary(p, layouts) / layouts.tensor * p.inventory.numbers.d_model
    return elements * p.compute_bytes * (layouts.params_shard > 0)


def _fetched_early_bytes(p: Problem, slots: Mapping[LayerKind, Number], layouts: LayoutBatch) -> Number:
    """Optimizer state whose copies from a TPU's host are under way when memory is fullest.

    XLA starts them before the step's loops, both moments of one stacked matrix after the other, the largest first,
    until `FETCHED_EARLY_BYTES` are reached.
    """
    if p.device.kind != "tpu" or p.factored:
        return 0.0
    s = p.inventory.numbers
    # Layers that alternate between window and full attention are two stacks.
    windows = s.num_window_layers / s.num_layers
    share = p.xp.where((windows > 0) & (windows < 1), p.xp.minimum(windows, 1.0 - windows), 1.0)
    pair: Number = 0.0
    for kind, layers in slots.items():
        for op in p.inventory.layer(kind):
            split = (1.0 if op.shard == "whole" else layouts.tensor) * (layouts.expert if op.expert else 1.0)
            group = layouts.fsdp * layouts.context * (1.0 if op.expert else layouts.expert)
            over = _choose(layouts.optimizer_shard, 1.0, group, group * layouts.data)
            pair = p.xp.maximum(pair, op.params * layers * share / (split * over) * p.state_bytes)
    return p.xp.ceil(FETCHED_EARLY_BYTES / pair) * pair


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
        "parameters": state.parameters,
        "optimizer": xp.where(offload, xp.minimum(held_weights.fetched_early, state.optimizer), state.optimizer),
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
    # The layered schedule sums up whole layers instead. A pipeline's ticks are a loop, even of one microbatch.
    accumulates = (pieces.num_microbatches > 1) | (layouts.pipeline > 1)
    sums = weights.state.gradients * (accumulates & (layouts.schedule != LAYERED))
    own = weights.state.gradients * p.xp.where(accumulates, 1.0, p.reduce_bytes / p.grad_bytes)
    of_layers = own * (1.0 - weights.embedding_share)
    nothing = 0.0 * own
    # A loop over microbatches is another loop that the casts of embedding and head are moved out of. Weights that are
    # gathered from a wider split are there from the start.
    cast = weights.cast + weights.ends_cast * (accumulates | (layouts.params_shard != layouts.optimizer_shard))
    held_open = cast + _layered_bytes(p, layouts, weights) + _ticks_bytes(p, layouts, weights)
    logits = p.xp.maximum(pieces.head.working_bytes, head_copy_bytes(p, layouts))
    head = {
        "gradients": sums, "activations": activations, "working": nothing, "logits": logits,
        "gathered weights": held_open + weights.head_gathered + head_gradient_bytes(p, layouts),
    }  # fmt: skip
    layers = {
        "gradients": sums + of_layers, "activations": activations, "working": working, "logits": nothing,
        "gathered weights": held_open + weights.gathered,
    }  # fmt: skip
    tables = _tick_end_bytes(p, layouts, weights)
    # Those of embedding and head are whole at a tick's end, and not yet in parts.
    parts = p.xp.where(tables > 0, own * (1.0 - 2.0 * weights.embedding_share), own)
    embedding = {
        "gradients": sums + parts, "activations": nothing, "working": weights.embedding_gradient, "logits": nothing,
        "gathered weights": cast * accumulates + tables,
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


def _layered_bytes(p: Problem, layouts: LayoutBatch, weights: WeightBytes) -> Number:
    """What the layered schedule holds beyond the others: whole gradients that are summed up over all microbatches.

    With a pipeline these are two chunks', which stages are in at once, and embedding's and head's; so are the weights.
    """
    layered, piped = _runs_layered(p, layouts), layouts.pipeline > 1
    chunk_layers = _chunk_layers(p, layouts)
    sums = weights.layer_elements * p.grad_bytes * np.where(piped, 2.0 * chunk_layers, 1.0)
    ends = weights.ends_elements * (p.grad_bytes + p.compute_bytes * (layouts.params_shard > 0))
    return layered * (sums + piped * (ends + (chunk_layers - 1.0) * weights.gathered))


def _ticks_bytes(p: Problem, layouts: LayoutBatch, weights: WeightBytes) -> Number:
    """What the scan over a pipeline's ticks holds of weights and streams, beside what layers save.

    1f1b: embedding and head whole, and the gradient of one. gpipe and interleaved, which are differentiated as a whole:
    the head whole and, of every tick, the stream that it reads; in the backward pass of a tick the chunk's weights and
    its layers' inputs once more, since a condition copies what one part of it hands to the other (libtpu 0.0.52).
    """
    piped, schedule = layouts.pipeline > 1, layouts.schedule
    as_a_whole = (schedule == SCHEDULES.index("gpipe")) | (schedule == SCHEDULES.index("interleaved"))
    ends = weights.ends_elements * p.compute_bytes
    table = ends / (2.0 - p.inventory.numbers.structure.tied)
    gathered = layouts.params_shard > 0  # else they are among the casts
    stream = local_tokens(p, layouts).residual * p.inventory.numbers.d_model * p.compute_bytes
    num_microbatches = p.global_batch_size / (layouts.batch_shards * layouts.microbatch_size)
    ticks = num_microbatches * layouts.virtual_stages + layouts.pipeline - 1.0
    kept = table * gathered + weights.cast / layouts.virtual_stages + stream * (ticks + _chunk_layers(p, layouts))
    one_by_one = schedule == SCHEDULES.index("1f1b")
    return piped * (as_a_whole * kept + one_by_one * (ends * gathered + table))


def _tick_end_bytes(p: Problem, layouts: LayoutBatch, weights: WeightBytes) -> Number:
    """Whole tables at the end of a pipeline's tick beside the embedding's gradient: weights, the head's gradient."""
    gathered = weights.ends_elements * p.compute_bytes * (layouts.params_shard > 0)
    head = weights.ends_elements * 0.5 * p.reduce_bytes * (1.0 - p.inventory.numbers.structure.tied)
    return (layouts.pipeline > 1) * (layouts.schedule != LAYERED) * (gathered + head)


def _chunk_layers(p: Problem, layouts: LayoutBatch) -> Number:
    """Layers of the fullest chunk."""
    return np.ceil(p.inventory.numbers.num_layers / (layouts.pipeline * layouts.virtual_stages))


def _runs_layered(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    """Where the layered schedule differs from plain accumulation: one microbatch passes layer by layer in any case."""
    several = p.global_batch_size > layouts.batch_shards * layouts.microbatch_size
    return (layouts.schedule == LAYERED) & ((layouts.pipeline > 1) | several)


def _waiting_bytes(p: Problem, layouts: LayoutBatch) -> Number:
    """Streams that wait for their backward pass in one XLA program, beside what layers save.

    1f1b: a ring of those that entered a stage. Layered: of all microbatches, those that left the last layer and their
    gradients; with a pipeline, those that entered each chunk, and the gradients of those that left one.
    """
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
