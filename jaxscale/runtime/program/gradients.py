"""Gradients of one step on one device: accumulated over microbatches, then summed over the devices that share them."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxscale.runtime.comms.collectives import all_sum
from jaxscale.runtime.placement.params import ParamPlan, is_plan, replicas, scatter_sum, sum_rest
from jaxscale.runtime.placement.rules import PIPELINE_AXES, TOKEN_AXES
from jaxscale.runtime.program.batch import Batch, microbatches, take_microbatch, total_weight
from jaxscale.runtime.program.layered import layered_gradients
from jaxscale.runtime.program.model import build_context, embed_tokens, run_chunk, token_loss
from jaxscale.runtime.program.noise import scans_microbatches, small_squares
from jaxscale.runtime.program.pipeline import pipeline_gradients
from jaxscale.runtime.program.program import Program
from jaxscale.runtime.program.weights import fetch, make_slots

Array = jax.Array
Params = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Means over the tokens of the step that have a target, float32."""

    loss: Array  # cross-entropy in nats, z-loss included
    aux: Array  # auxiliary losses of the routers, weighted


def microbatch_loss(
    slots: Params, program: Program, stored: Params, microbatch: Batch, weight: Array
) -> tuple[Array, Losses]:
    """This device's share of the mean loss; differentiated with respect to `slots` only."""
    plans = program.plans
    embedding = fetch(program, stored["embedding"], slots["embedding"], plans["embedding"], stacked=False)
    stream = embed_tokens(program, embedding, microbatch)
    context = build_context(program, microbatch)
    flow = run_chunk(program, stored["segments"], slots["segments"], stream, context, 0)
    head_slots, stream = _head_first({name: slots[name] for name in program.head_parts}, flow.stream)
    head = fetch(program, stored["head"], head_slots["head"], plans["head"], stacked=False)
    if program.shape.tied_embeddings:
        # Gathered again: it would be held through all layers otherwise. XLA sees one gather in two without a barrier.
        table, stream = lax.optimization_barrier((stored["embedding"], stream))
        embedding = fetch(program, table, head_slots["embedding"], plans["embedding"], stacked=False)
    loss = token_loss(program, head, embedding, stream, microbatch)
    return (loss + flow.aux) / weight, Losses(loss=loss / weight, aux=flow.aux / weight)


@jax.custom_vjp
def _head_first(slots: Params, stream: Array) -> tuple[Params, Array]:
    """Pass on the slots of what the head reads, and the stream that enters it.

    In the backward pass the head's gradients are finished before the layers' pass begins: else XLA often leaves the
    weights' to the end, and the logits in memory through the whole pass.
    """
    return slots, stream


_head_first.defvjp(lambda slots, stream: ((slots, stream), None), lambda _, cts: lax.optimization_barrier(cts))


def accumulate(program: Program, stored: Params, batch: Batch) -> tuple[Params, Losses, Array | None]:
    """Gradients in slots, still partial sums; this device's share of the losses, and of `small_squares`."""
    weight, batches = total_weight(program, batch), microbatches(program, batch)
    if not scans_microbatches(program):
        grads, losses = _all_at_once(program, stored, batches, weight)
        return grads, losses, small_squares(program, grads)
    one = jax.grad(microbatch_loss, has_aux=True)
    slots = make_slots(program, program.plans)

    def step(sums: Any, microbatch: Batch) -> tuple[Any, Array | None]:
        found = one(slots, program, stored, microbatch, weight)
        return jax.tree.map(jnp.add, sums, found), small_squares(program, found[0])

    start = (slots, Losses(loss=jnp.zeros(()), aux=jnp.zeros(())))
    (grads, losses), squares = lax.scan(step, start, batches)
    return grads, losses, None if squares is None else jnp.sum(squares)


def _all_at_once(program: Program, stored: Params, batches: Batch, weight: Array) -> tuple[Params, Losses]:
    """Gradients and losses where microbatches pass through a pipeline or layer by layer, or there is only one."""
    if program.num_microbatches == 1 and program.layout.pipeline == 1:
        one = jax.grad(microbatch_loss, has_aux=True)
        return one(make_slots(program, program.plans), program, stored, take_microbatch(batches, 0), weight)
    through = pipeline_gradients if program.layout.pipeline > 1 else layered_gradients
    grads, loss, aux = through(program, stored, batches, weight)
    return grads, Losses(loss=loss, aux=aux)


def reduce_gradients(program: Program, grads: Params) -> Params:
    """Sum over devices what is still partial, and keep the shard that this device's optimizer updates."""
    source, target = program.layout.grads_shard, program.layout.optimizer_shard

    def one(plan: ParamPlan, grad: Array) -> Array:
        wire = grad.astype(program.reduce_dtype)
        return sum_rest(scatter_sum(wire, plan, source, target), plan, target).astype(program.grad_dtype)

    return jax.tree.map(one, program.plans, grads, is_leaf=is_plan)


def reduce_losses(program: Program, losses: Losses) -> Losses:
    """The losses of the whole batch, alike on every device."""
    axes = program.rules.live((*TOKEN_AXES, *PIPELINE_AXES))
    return jax.tree.map(lambda x: all_sum(x, axes), losses)


def global_norm(program: Program, grads: Params) -> Array:
    """L2 norm of all gradients of the model, from one device's shards: one all-reduce."""
    level = program.layout.optimizer_shard
    squares = [
        jnp.sum(jnp.square(grad.astype(jnp.float32))) / replicas(plan, level, program.rules)
        for plan, grad in zip(jax.tree.leaves(program.plans, is_leaf=is_plan), jax.tree.leaves(grads), strict=True)
        if plan.trained
    ]
    return jnp.sqrt(all_sum(sum(squares, jnp.zeros(())), program.rules.live(program.layout.axis_order)))
