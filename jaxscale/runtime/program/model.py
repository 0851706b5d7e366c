"""The model on one device's shards: embedding, chunks of layers, head and loss."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxscale.runtime.placement.params import is_plan
from jaxscale.runtime.program.batch import NO_TARGET, Batch, token_positions
from jaxscale.runtime.program.branch import switch_where
from jaxscale.runtime.program.program import Program
from jaxscale.runtime.program.remat import LAYER_INPUT, remat_layer
from jaxscale.runtime.program.weights import fetch, stage_index
from jaxscale.zoo import Context, LayerKind, embed, head_loss, layer_body, make_context

Array = jax.Array
Params = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What passes from layer to layer."""

    stream: Array  # [b, t, D]
    aux: Array  # float32: auxiliary losses of the layers so far, weighted, summed over this shard's tokens


# (stored row, slot row, flow, context) -> flow
Layer = Callable[[Params, Params, Flow, Context], Flow]
# How a layer gets its weights, and its gradients go back: (program, stored row, slot row, plans) -> weights
Read = Callable[[Program, Params, Params, Any], Params]

FETCHED: Read = functools.partial(fetch, stacked=True)  # gathered for every microbatch: shards, and slots of their size


def build_context(program: Program, microbatch: Batch) -> Context:
    """Positions and rotary tables of this shard's tokens."""
    positions = token_positions(program, microbatch)
    return make_context(program.shape, positions, microbatch.segments, seq_len=program.workload.seq_len)


def embed_tokens(program: Program, embedding: Params, microbatch: Batch) -> Array:
    """Token ids to the residual stream, with the embedding's weights fetched already."""
    positions = token_positions(program, microbatch)
    return embed(
        program.shape, embedding, microbatch.tokens, positions, comms=program.comms, dtype=program.compute_dtype
    )


def token_loss(program: Program, head: Params, embedding: Params, stream: Array, microbatch: Batch) -> Array:
    """Cross-entropy summed over this shard's tokens, with the weights of the head fetched already."""
    weights = microbatch.targets != NO_TARGET
    return head_loss(
        program.shape,
        head,
        embedding,
        stream,
        microbatch.targets,
        weights,
        comms=program.comms,
        z_loss=program.options.z_loss,
    )


@jax.custom_vjp
def _report_load(stream: Array, slot: Array, load: Array) -> Array:
    """Pass `stream` on; in the backward pass, hand `load` to the gradient slot of a balancing bias.

    That bias has no gradient (arXiv 2408.15664): what it needs is each expert's load, summed over microbatches and
    shards, which is what happens to whatever is in a slot.
    """
    return stream


_report_load.defvjp(
    lambda stream, slot, load: (stream, (slot, load)),
    lambda kept, ct: (ct, kept[1].astype(kept[0].dtype), None),
)


def make_layer(program: Program, kind: LayerKind, plans: Any, read: Read, *, in_loop: bool) -> Layer:
    """One layer that gets its weights by `read`, under the layout's remat policy."""
    body = layer_body(program.shape, kind, comms=program.comms, execution=program.execution)
    options, shards = program.options, program.rules.size(program.comms.token_axes)

    def layer(stored: Params, slots: Params, flow: Flow, context: Context) -> Flow:
        stream = checkpoint_name(flow.stream, LAYER_INPUT)
        stream, stats = body(read(program, stored, slots, plans), stream, context)
        if stats is None:
            return Flow(stream=stream, aux=flow.aux)
        for plan, slot in zip(jax.tree.leaves(plans, is_leaf=is_plan), jax.tree.leaves(slots), strict=True):
            if not plan.trained:
                stream = _report_load(stream, slot, stats.load / shards)
        aux = options.router_aux_loss * stats.aux_loss + options.router_z_loss * stats.z_loss
        return Flow(stream=stream, aux=flow.aux + aux)

    return remat_layer(layer, program.layout.remat, in_loop=in_loop)


def run_chunk(
    program: Program,
    stored: Params,
    slots: Params,
    stream: Array,
    context: Context,
    chunk: Array | int,
    read: Read = FETCHED,
) -> Flow:
    """One chunk of layers: its rows of the stacked parameters, the slots of their gradients, the stream that enters.

    `chunk` is which of this stage's chunks it is. The auxiliary losses returned are of its own layers only.
    """
    flow = Flow(stream=stream, aux=jnp.zeros((), jnp.float32))
    if program.stages.chunk_segments:
        return _run_uniform(program, stored, slots, flow, context, read)
    number = chunk * program.stages.num_stages + stage_index(program)
    return _run_tabled(program, stored, slots, flow, context, number, read)


def _run_uniform(program: Program, stored: Params, slots: Params, flow: Flow, context: Context, read: Read) -> Flow:
    segments = zip(program.stages.chunk_segments, program.plans["segments"], stored, slots, strict=True)
    for segment, plans, rows, slot_rows in segments:
        layers = [
            make_layer(program, kind, plan, read, in_loop=segment.repeats > 1)
            for kind, plan in zip(segment.kinds, plans, strict=True)
        ]

        def step(flow: Flow, row: Any, layers: list[Layer] = layers) -> tuple[Flow, None]:
            for layer, stored_row, slot_row in zip(layers, *row, strict=True):
                flow = layer(stored_row, slot_row, flow, context)
            return flow, None

        flow, _ = lax.scan(step, flow, (rows, slot_rows))
    return flow


def _run_tabled(
    program: Program, stored: Params, slots: Params, flow: Flow, context: Context, number: Array | int, read: Read
) -> Flow:
    """Slot by slot, each running the kind of layer that the table names; chunks may have different numbers of them."""
    plans, stages = program.plans["segments"][0], program.stages
    layers = [
        make_layer(program, kind, plans[stack], read, in_loop=True)
        for kind, stack in zip(stages.kinds, stages.kind_stacks, strict=True)
    ]

    def run(kind: int, row: Array, flow: Flow) -> Flow:
        stack = stages.kind_stacks[kind]
        stored_row, slot_row = (
            jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, row, axis=0, keepdims=False), tree[0][stack])
            for tree in (stored, slots)
        )
        return layers[kind](stored_row, slot_row, flow, context)

    def step(flow: Flow, slot: Array) -> tuple[Flow, None]:
        kinds = [functools.partial(run, kind, slot[1], flow) for kind in range(len(layers))]
        return switch_where(program, slot[0] + 1, [lambda: flow, *kinds]), None

    table = jnp.asarray(stages.slots, jnp.int32)  # [chunks, slots, 2]
    flow, _ = lax.scan(step, flow, table[number])
    return flow
