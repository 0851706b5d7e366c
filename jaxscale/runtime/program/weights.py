"""Stored shards to weights that modules compute with, and gradients of those weights back to accumulated shards.

The step is differentiated with respect to gradient slots: zeros, shaped like the accumulated gradients of one device
(level `grads_shard`, dtype `grad_bytes`). `fetch` ignores its slot in the forward pass; its backward pass reduces the
weight's cotangent to the slot's shape and hands it to the slot. So one function serves ZeRO-0 to ZeRO-3, HSDP and
independent groups: only the two levels differ. Slots cost no memory, since nothing reads their values.
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fetch(stored: Array, slot: Array, route: Route) -> Array:
    # A balancing bias is not a weight: rounding it would undo its small steps.
    shard = stored.astype(route.compute_dtype) if route.plan.trained else stored
    return gather(shard, route.plan, route.params_level, "none", offset=route.offset)


def _fetch_forward(stored: Array, slot: Array, route: Route) -> tuple[Array, None]:
    return _fetch(stored, slot, route), None


def _fetch_backward(route: Route, _: None, ct: Array) -> tuple[None, Array]:
    shard = scatter_sum(ct.astype(route.reduce_dtype), route.plan, "none", route.grads_level, offset=route.offset)
    # Without a barrier XLA would sum whole gradients over microbatches and scatter once: it needs room for them.
    return None, jax.lax.optimization_barrier(shard).astype(route.grad_dtype)


_fetch.defvjp(_fetch_forward, _fetch_backward)


def fetch(program: Program, stored: Any, slots: Any, plans: Any, *, stacked: bool) -> Any:
    """Cast and all-gather a tree of stored shards; `stacked`: the plans have a leading layers dim that shards lack."""

    def one(plan: ParamPlan, shard: Array, slot: Array) -> Array:
        route = Route(
            plan=plan,
            params_level=program.layout.params_shard,
            grads_level=program.layout.grads_shard,
            compute_dtype=program.compute_dtype,
            reduce_dtype=program.reduce_dtype,
            grad_dtype=program.grad_dtype,
            offset=int(stacked),
        )
        return checkpoint_name(_fetch(shard, slot, route), WEIGHT)

    return jax.tree.map(one, plans, stored, slots, is_leaf=is_plan)


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


def stage_index(program: Program) -> Array | int:
    """This device's pipeline stage."""
    return jax.lax.axis_index(PIPELINE_AXES) if program.layout.pipeline > 1 else 0
