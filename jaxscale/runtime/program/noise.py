"""Squared norms of gradients over small batches, from gradients as they are before they are summed over devices.

What a device has accumulated is the gradient of its own sequences wherever something is left to be summed (over the
data axis, or over all batch axes where gradients are whole), and of one microbatch at a time where microbatches are
scanned. Their norms cost a pass over the gradients and no collective but one of two numbers, that of the whole batch's
norm included. Only matrices whose gradients are apart in the same way are looked at: the noise scale is theirs.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxscale.runtime.comms.collectives import all_sum
from jaxscale.runtime.placement.params import ParamPlan, is_plan, replicas
from jaxscale.runtime.placement.rules import BATCH_AXES, Axes
from jaxscale.runtime.program.program import Program

Array = jax.Array
Params = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSplit:
    """How a step's batch falls into small batches: one for each place on `axes` and each scanned microbatch."""

    axes: Axes
    count: int


def noise_split(program: Program) -> NoiseSplit | None:
    """The small batches that a layout's step meets anyway; None where it sums everything at once."""
    sizes: dict[Axes, int] = {}
    for plan in jax.tree.leaves(program.plans, is_leaf=is_plan):
        axes = unsummed(program, plan)
        if plan.trained and plan.is_matrix and set(axes) <= set(BATCH_AXES):
            sizes[axes] = sizes.get(axes, 0) + math.prod(plan.shape)
    if not sizes:
        return None
    axes = max(sizes, key=lambda axes: sizes[axes])
    count = program.rules.size(axes) * (program.num_microbatches if scans_microbatches(program) else 1)
    return NoiseSplit(axes=axes, count=count) if count > 1 else None


def scans_microbatches(program: Program) -> bool:
    """Whether gradients of one microbatch are added to those before them."""
    alone = program.layout.pipeline == 1 and program.layout.schedule != "layered"
    return alone and program.num_microbatches > 1


def small_squares(program: Program, grads: Params) -> Array | None:
    """This device's part of the sum over its small batches of |gradient|^2; None where nobody asks."""
    split = noise_split(program) if program.options.noise_scale else None
    if split is None:
        return None
    apart = program.rules.size(split.axes)
    return _squares(program, split, grads, program.layout.grads_shard, apart=apart)


def noise_metrics(program: Program, squares: Array | None, reduced: Params) -> dict[str, Array]:
    """Squared norms of the mean gradient: over a small batch, on average, and over the whole batch.

    `reduced` are the step's gradients at the optimizer's level. Gradients of small batches are parts of the mean over
    the whole batch, so each is `count` times its part.
    """
    split = noise_split(program) if program.options.noise_scale else None
    if split is None or squares is None:
        return {}
    whole = _squares(program, split, reduced, program.layout.optimizer_shard, apart=1)
    both = all_sum(jnp.stack([split.count * squares, whole]), program.rules.live(program.layout.axis_order))
    return {"small_batch_square": both[0], "big_batch_square": both[1]}


def _squares(program: Program, split: NoiseSplit, grads: Params, level: Any, *, apart: int) -> Array:
    """Sum of squares of this device's shards, each over how many devices hold the same."""
    plans = jax.tree.leaves(program.plans, is_leaf=is_plan)
    total = jnp.zeros((), jnp.float32)
    for plan, grad in zip(plans, jax.tree.leaves(grads), strict=True):
        if plan.trained and plan.is_matrix and unsummed(program, plan) == split.axes:
            same = replicas(plan, level, program.rules) / apart
            total += jnp.sum(jnp.square(grad.astype(jnp.float32))) / same
    return total


def unsummed(program: Program, plan: ParamPlan) -> Axes:
    """Axes over which a parameter's accumulated gradient is still to be summed."""
    summed = {axis for _, axes in plan.steps("none", program.layout.grads_shard) for axis in axes}
    return tuple(axis for axis in plan.partial_axes if axis not in summed)
