"""Layered gradient accumulation: all microbatches pass one layer before the next layer starts.

Lamy-Poirier 2021, "Layered gradient accumulation and modular pipeline parallelism" (arXiv 2106.02679), section 3. A
layer's weights are gathered once a step (and once more for the backward pass), whatever the number of microbatches, and
its gradients, summed over them, are reduced once. What it costs is memory: the inputs of a layer, and what remat keeps
of it, wait for their backward pass for all microbatches. See `modular` for the same with a pipeline.

Notation: M microbatches. The trunk (embedding and layers) is a scan over layers with a scan over microbatches inside,
differentiated as a whole; the head takes loss and gradient of one microbatch after the other between its two passes,
so that no logits are kept.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxscale.runtime.program.batch import Batch, take_microbatch
from jaxscale.runtime.program.model import Flow, Layer, build_context, embed_tokens, make_layer, token_loss
from jaxscale.runtime.program.program import Program
from jaxscale.runtime.program.remat import remat_layer
from jaxscale.runtime.program.weights import (
    fetch_whole,
    gather_whole,
    make_sinks,
    make_slots,
    read_whole,
    reduce_whole,
)
from jaxscale.zoo import Context

Array = jax.Array
Params = Any


def layered_gradients(program: Program, stored: Params, batches: Batch, weight: Array) -> tuple[Params, Array, Array]:
    """Gradients in slots, and this device's share of the mean loss and of the auxiliary loss; without a pipeline."""
    slots = make_slots(program, program.plans)
    trunk = {name: slots[name] for name in ("embedding", "segments")}
    flow, pull = jax.vjp(lambda slots: _run_trunk(program, stored, slots, batches), trunk)
    loss, ends, d_streams = _run_head(program, stored, flow.stream, batches, weight)
    (grads,) = pull(Flow(stream=d_streams, aux=jnp.full_like(flow.aux, 1 / weight)))
    if "embedding" in ends:
        grads["embedding"] = jax.tree.map(jnp.add, grads["embedding"], ends["embedding"])
    return grads | {"head": ends["head"]}, loss / weight, jnp.sum(flow.aux) / weight


def _run_trunk(program: Program, stored: Params, slots: Params, batches: Batch) -> Flow:
    """Embedding and layers of all microbatches: stream [M, b, t, D], auxiliary losses [M]."""
    table, sinks = fetch_whole(
        program, stored["embedding"], slots["embedding"], program.plans["embedding"], stacked=False
    )
    stream = lax.map(lambda one: embed_tokens(program, read_whole(program, table, sinks), one), batches)
    flow = Flow(stream=stream, aux=jnp.zeros(program.num_microbatches))
    segments = (program.stages.chunk_segments, program.plans["segments"], stored["segments"], slots["segments"])
    for segment, plans, rows, slot_rows in zip(*segments, strict=True):
        layers = [
            _for_all(program, make_layer(program, kind, plan, read_whole, in_loop=True), plan, batches, segment.repeats)
            for kind, plan in zip(segment.kinds, plans, strict=True)
        ]

        def step(flow: Flow, row: Any, layers: list[Any] = layers) -> tuple[Flow, None]:
            for layer, stored_row, slot_row in zip(layers, *row, strict=True):
                flow = layer(stored_row, slot_row, flow)
            return flow, None

        flow, _ = lax.scan(step, flow, (rows, slot_rows))
    return flow


def _for_all(program: Program, layer: Layer, plans: Any, batches: Batch, repeats: int) -> Any:
    """A layer for all microbatches, its weights gathered once.

    Two rounds of remat: the outer one gathers the weights again for the backward pass, the inner one recomputes the
    layer of one microbatch at a time.
    """

    def run(stored: Params, slots: Params, flow: Flow) -> Flow:
        held = fetch_whole(program, stored, slots, plans, stacked=True)

        def one(_: None, of: tuple[Flow, Batch]) -> tuple[None, Flow]:
            return None, layer(*held, of[0], _context(program, of[1], batches))

        return lax.scan(one, None, (flow, batches))[1]

    return remat_layer(run, program.layout.remat, in_loop=repeats > 1)


def _context(program: Program, microbatch: Batch, batches: Batch) -> Context:
    """Positions of a microbatch; where documents are not packed all have the same ones, from outside of the loop."""
    return build_context(program, microbatch if batches.segments is not None else take_microbatch(batches, 0))


def _run_head(
    program: Program, stored: Params, streams: Array, batches: Batch, weight: Array
) -> tuple[Array, Params, Array]:
    """Token loss of all microbatches, its gradients in slots, and those of the streams [M, b, t, D]."""
    plans = {name: program.plans[name] for name in program.head_parts}
    weights = gather_whole(program, {name: stored[name] for name in plans}, plans)
    sinks = make_sinks(program, weights)

    def loss(sinks: Params, stream: Array, microbatch: Batch) -> Array:
        ends = read_whole(program, weights, sinks)
        return token_loss(program, ends["head"], ends.get("embedding"), stream, microbatch)

    def one(sums: Any, of: tuple[Array, Batch]) -> tuple[Any, Array]:
        found, pull = jax.vjp(lambda *x: loss(*x, of[1]), sinks, of[0])
        d_ends, d_stream = pull(1 / weight)
        return jax.tree.map(jnp.add, sums, (found, d_ends)), d_stream

    (total, d_ends), d_streams = lax.scan(one, (jnp.zeros(()), sinks), (streams, batches))
    return total, reduce_whole(program, d_ends, plans), d_streams
