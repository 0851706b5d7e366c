"""Stored shards to weights that modules compute with, and gradients of those weights back to accumulated shards.

The step is differentiated with respect to gradient slots: zeros, shaped like the accumulated gradients of one device
(level `grads_shard`, dtype `grad_bytes`). `fetch` ignores its slot in the forward pass; its backward pass reduces the
weight's cotangent to the slot's shape and hands it to the slot. So one function serves ZeRO-0 to ZeRO-3, HSDP and
independent groups: only the two levels differ. Slots cost no memory, since nothing reads their values.

Where many microbatches share one gather (the layered schedule), the way there and the way back are apart: weights are
gathered once, every microbatch reads them with `read_whole`, which hands its cotangent to a *sink*, a slot of the whole
weight's shape; the sum over microbatches is reduced once.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxscale.runtime.placement.params import ParamPlan, gather, is_plan, local_shape, scatter_sum
from jaxscale.runtime.placement.rules import PIPELINE_AXES
from jaxscale.runtime.program.program import Program
from jaxscale.runtime.program.remat import WEIGHT
from jaxscale.types.layout import Shard

Array = jax.Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one parameter travels: from what level and in what dtype, and how its gradient comes back."""

    plan: ParamPlan
    params_level: Shard
    grads_level: Shard
    compute_dtype: Any
    reduce_dtype: Any
    grad_dtype: Any
    offset: int  # leading dims that the shard lacks, 1 inside the scan over layers


def _route(program: Program, plan: ParamPlan, *, stacked: bool) -> Route:
    return Route(
        plan=plan,
        params_level=program.layout.params_shard,
        grads_level=program.layout.grads_shard,
        compute_dtype=program.compute_dtype,
        reduce_dtype=program.reduce_dtype,
        grad_dtype=program.grad_dtype,
        offset=int(stacked),
    )


def _gather(stored: Array, route: Route) -> Array:
    # A balancing bias is not a weight: rounding it would undo its small steps.
    shard = stored.astype(route.compute_dtype) if route.plan.trained else stored
    return gather(shard, route.plan, route.params_level, "none", offset=route.offset)


def _reduce(ct: Array, route: Route) -> Array:
    shard = scatter_sum(ct.astype(route.reduce_dtype), route.plan, "none", route.grads_level, offset=route.offset)
    # Without a barrier XLA would sum whole gradients over microbatches and scatter once: it needs room for them.
    return jax.lax.optimization_barrier(shard).astype(route.grad_dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fetch(stored: Array, slot: Array, route: Route) -> Array:
    return _gather(stored, route)


_fetch.defvjp(
    lambda stored, slot, route: (_gather(stored, route), None), lambda route, _, ct: (None, _reduce(ct, route))
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fetch_whole(stored: Array, slot: Array, route: Route) -> tuple[Array, Array]:
    weight = _gather(stored, route)
    return weight, jnp.zeros(weight.shape, route.grad_dtype)


_fetch_whole.defvjp(
    lambda stored, slot, route: (_fetch_whole(stored, slot, route), None),
    lambda route, _, cts: (None, _reduce(cts[1], route)),  # weights are read through `read_whole` only
)


@jax.custom_vjp
def _read_whole(weight: Array, sink: Array) -> Array:
    return weight


_read_whole.defvjp(lambda weight, sink: (weight, sink), lambda sink, ct: (None, ct.astype(sink.dtype)))


def fetch(program: Program, stored: Any, slots: Any, plans: Any, *, stacked: bool) -> Any:
    """Cast and all-gather a tree of stored shards; `stacked`: the plans have a leading layers dim that shards lack."""

    def one(plan: ParamPlan, shard: Array, slot: Array) -> Array:
        return checkpoint_name(_fetch(shard, slot, _route(program, plan, stacked=stacked)), WEIGHT)

    return jax.tree.map(one, plans, stored, slots, is_leaf=is_plan)


def fetch_whole(program: Program, stored: Any, slots: Any, plans: Any, *, stacked: bool) -> tuple[Any, Any]:
    """As `fetch`, for weights that many microbatches read: the weights, and their sinks for `read_whole`."""
    leaves, tree = jax.tree.flatten(plans, is_leaf=is_plan)
    shards, slot_leaves = jax.tree.leaves(stored), jax.tree.leaves(slots)
    pairs = [
        _fetch_whole(shard, slot, _route(program, plan, stacked=stacked))
        for plan, shard, slot in zip(leaves, shards, slot_leaves, strict=True)
    ]
    weights = [checkpoint_name(weight, WEIGHT) for weight, _ in pairs]
    return tree.unflatten(weights), tree.unflatten([sink for _, sink in pairs])


def read_whole(_program: Program, weights: Any, sinks: Any, _plans: Any = None) -> Any:
    """Gathered weights as one microbatch computes with them; its cotangents go to the sinks, in the sinks' dtype."""
    return jax.tree.map(_read_whole, weights, sinks)


def gather_whole(program: Program, stored: Any, plans: Any) -> Any:
    """Cast and all-gather a tree of stored shards, not meant to be differentiated."""
    return jax.tree.map(
        lambda plan, shard: _gather(shard, _route(program, plan, stacked=False)), plans, stored, is_leaf=is_plan
    )


def reduce_whole(program: Program, sums: Any, plans: Any) -> Any:
    """Reduce what was summed in the sinks of `gather_whole`'s weights to the shape of their slots."""
    return jax.tree.map(
        lambda plan, ct: _reduce(ct, _route(program, plan, stacked=False)), plans, sums, is_leaf=is_plan
    )


def make_sinks(program: Program, weights: Any) -> Any:
    """Sinks for gathered weights; also what their sums start from."""
    return jax.tree.map(lambda weight: jnp.zeros(weight.shape, program.grad_dtype), weights)


def make_slots(program: Program, plans: Any) -> Any:
    """Gradient slots for a tree of plans; also what accumulation starts from."""

    def zeros(plan: ParamPlan) -> Array:
        return jnp.zeros(local_shape(plan, program.layout.grads_shard, program.rules), program.grad_dtype)

    return jax.tree.map(zeros, plans, is_leaf=is_plan)


def select_chunk(program: Program, segments: Any, chunk: Array | int) -> Any:
    """Rows of one of this stage's chunks of layers: every leaf [chunks * rows, ...] -> [rows, ...]."""
    count = program.stages.chunks_per_stage
    if count == 1:
        return segments

    def rows(x: Array) -> Array:
        by_chunk = x.reshape(count, -1, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(by_chunk, chunk, axis=0, keepdims=False)

    return jax.tree.map(rows, segments)


def put_chunk(program: Program, segments: Any, rows: Any, chunk: Array | int) -> Any:
    """The inverse of `select_chunk`: `segments` with the rows of one chunk replaced."""
    count = program.stages.chunks_per_stage
    if count == 1:
        return rows

    def put(x: Array, new: Array) -> Array:
        by_chunk = x.reshape(count, -1, *x.shape[1:])
        return jax.lax.dynamic_update_index_in_dim(by_chunk, new, chunk, axis=0).reshape(x.shape)

    return jax.tree.map(put, segments, rows)


def stage_index(program: Program) -> Array | int:
    """This device's pipeline stage."""
    return jax.lax.axis_index(PIPELINE_AXES) if program.layout.pipeline > 1 else 0
