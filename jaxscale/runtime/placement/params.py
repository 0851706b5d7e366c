"""How each parameter is stored in parts, and the collectives that move it between the ways of storing it.

A parameter is first split by the model (tensor, expert, pipeline): that local shape is what the modules compute with.
For storage it may be split further, at one of three levels, the values of `Layout.*_shard`:

* none: whole on every device of the ZeRO group;
* fsdp: one dim split over the ZeRO group;
* data: and split over the data axis too, on the same dim where the sizes allow it, else on another.

The dim is the first one after the stacked layers' whose local size the group divides. Where there is none, as with 24
devices and powers of two, the dim that needs least of it is padded with zeros at its end wherever the parameter is
stored in parts; whole weights, which modules compute with, have no padding. Vectors (norms, biases) stay whole, and so
does a matrix none of whose dims has a row for every device of the group.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxscale.runtime.comms.collectives import all_gather_dim, all_sum, sum_scatter_dim
from jaxscale.runtime.placement.rules import (
    DIM_AXIS,
    GRADIENT_AXES,
    TENSOR_AXES,
    ZERO_DATA_AXES,
    ZERO_GROUP,
    Axes,
    AxisRules,
    ParamClass,
)
from jaxscale.types.layout import Shard
from jaxscale.zoo import EXPERT_DIM, LAYERS_DIM, ParamInfo

Array = jax.Array
Step = tuple[int, Axes]  # a dim and the axes that split it


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamPlan:
    """One parameter: its global shape, what splits each dim, and which devices hold parts of its gradient's sum."""

    shape: tuple[int, ...]  # global, vocabulary padded and layers stacked as the layout needs it
    stored: tuple[int, ...]  # the same with the padding of storage in parts; no dim that the model splits has any
    dims: tuple[str, ...]
    model_axes: tuple[Axes, ...]  # for each dim, the axes that split it by the model
    zero: Step | None  # what level "fsdp" splits
    data: Step | None  # what level "data" splits beside that
    partial_axes: Axes  # local gradients are partial sums over these
    trained: bool

    def steps(self, source: Shard, target: Shard) -> tuple[Step, ...]:
        """The splits that lead from a wider stored level to a narrower one, outermost first."""
        steps = []
        if source == "none" and target != "none" and self.zero:
            steps.append(self.zero)
        if source != "data" and target == "data" and self.data:
            steps.append(self.data)
        if len(steps) == 2 and steps[0][0] == steps[1][0]:
            return ((steps[0][0], steps[0][1] + steps[1][1]),)  # one dim: one collective over both groups
        return tuple(steps)

    def axes_by_dim(self, level: Shard) -> tuple[Axes, ...]:
        """The mesh axes that split each dim at `level`, outermost first."""
        axes = list(self.model_axes)
        for dim, added in self.steps("none", level):
            axes[dim] = axes[dim] + added
        return tuple(axes)

    def shape_at(self, level: Shard) -> tuple[int, ...]:
        """The global shape of the array at `level`."""
        return self.shape if level == "none" else self.stored

    def spec(self, level: Shard) -> PartitionSpec:
        """The sharding of the global array at `level`."""
        return PartitionSpec(*(axes or None for axes in self.axes_by_dim(level)))

    def split_axes(self, level: Shard) -> Axes:
        """All mesh axes that split the parameter at `level`."""
        return tuple(axis for axes in self.axes_by_dim(level) for axis in axes)

    @property
    def is_matrix(self) -> bool:
        """Whether the parameter is more than a vector, stacked layers and experts aside."""
        return sum(dim not in (LAYERS_DIM, EXPERT_DIM) for dim in self.dims) > 1


def plan_param(info: ParamInfo, kind: ParamClass, rules: AxisRules) -> ParamPlan:
    """Apply the table of rules to one parameter."""
    plan = ParamPlan(
        shape=info.shape,
        stored=info.shape,
        dims=info.dims,
        model_axes=tuple(rules.live((DIM_AXIS[dim],)) if dim in DIM_AXIS else () for dim in info.dims),
        zero=None,
        data=None,
        partial_axes=_partial_axes(info, kind, rules),
        trained=info.trained,
    )
    if not plan.is_matrix:
        return plan
    narrowest = rules.layout.optimizer_shard  # no level that the layout does not use is padded for
    zero, stored = _split(plan, rules.live(ZERO_GROUP[kind]), rules, pad=narrowest != "none")
    plan = dataclasses.replace(plan, zero=zero, stored=stored)
    data, stored = _split(plan, rules.live(ZERO_DATA_AXES), rules, pad=narrowest == "data")
    return dataclasses.replace(plan, data=data, stored=stored)


def _partial_axes(info: ParamInfo, kind: ParamClass, rules: AxisRules) -> Axes:
    partial = info.tensor_grad == "always" or (info.tensor_grad == "sequence" and rules.layout.sequence_parallel)
    return rules.live(GRADIENT_AXES[kind] + (TENSOR_AXES if partial else ()))


def _split(plan: ParamPlan, axes: Axes, rules: AxisRules, *, pad: bool) -> tuple[Step | None, tuple[int, ...]]:
    """The dim of a plan's smallest shards that `axes` split further, a dim in parts already first; the stored shape."""
    if not axes:
        return None, plan.stored
    group, local = rules.size(axes), local_shape(plan, "data", rules)
    in_parts = plan.zero[0] if plan.zero else -1
    dims = [d for d in sorted(range(len(local)), key=lambda d: d != in_parts) if plan.dims[d] != LAYERS_DIM]
    fitting = next((d for d in dims if local[d] % group == 0), None)
    if fitting is not None:
        return (fitting, axes), plan.stored
    can_pad = [d for d in dims if not plan.model_axes[d] and plan.dims[d] != EXPERT_DIM and local[d] >= group]
    if not (pad and can_pad):
        return None, plan.stored
    padded = {d: -(-local[d] // group) * group for d in can_pad}
    dim = min(can_pad, key=lambda d: padded[d] / local[d])
    parts = plan.stored[dim] // local[dim]
    return (dim, axes), (*plan.stored[:dim], padded[dim] * parts, *plan.stored[dim + 1 :])


def gather(x: Array, plan: ParamPlan, source: Shard, target: Shard, *, offset: int = 0) -> Array:
    """All-gather a shard stored at `source` to the wider level `target`.

    `offset` is how many leading dims of the plan `x` lacks: 1 inside the scan over stacked layers.
    """
    for dim, axes in reversed(plan.steps(target, source)):
        x = all_gather_dim(x, axes, dim - offset)
    return cut_storage(x, plan, offset=offset) if target == "none" else x


def scatter_sum(x: Array, plan: ParamPlan, source: Shard, target: Shard, *, offset: int = 0) -> Array:
    """Reduce-scatter partial sums at level `source` to shards at the narrower level `target`."""
    if source == "none" and target != "none":
        x = pad_storage(x, plan, offset=offset)
    for dim, axes in plan.steps(source, target):
        x = sum_scatter_dim(x, axes, dim - offset)
    return x


def pad_storage(x: Array, plan: ParamPlan, *, offset: int = 0) -> Array:
    """A whole parameter, local or global, with the zeros that it is stored with in parts."""
    extra = [stored - size for stored, size in zip(plan.stored, plan.shape, strict=True)][offset:]
    return jnp.pad(x, [(0, count) for count in extra]) if any(extra) else x


def cut_storage(x: Array, plan: ParamPlan, *, offset: int = 0) -> Array:
    """The inverse of `pad_storage`."""
    for dim, (stored, size) in enumerate(zip(plan.stored, plan.shape, strict=True)):
        if stored != size:
            x = lax.slice_in_dim(x, 0, size, axis=dim - offset)
    return x


def sum_rest(x: Array, plan: ParamPlan, level: Shard) -> Array:
    """All-reduce over the axes of partial sums that the reduce-scatters down to `level` have not summed."""
    summed = [axis for _, axes in plan.steps("none", level) for axis in axes]
    return all_sum(x, tuple(axis for axis in plan.partial_axes if axis not in summed))


def replicas(plan: ParamPlan, level: Shard, rules: AxisRules) -> int:
    """How many devices hold the same shard at `level`."""
    return rules.layout.num_devices // rules.size(plan.split_axes(level))


def local_shape(plan: ParamPlan, level: Shard, rules: AxisRules) -> tuple[int, ...]:
    """The shape of one device's shard at `level`."""
    return tuple(s // rules.size(axes) for s, axes in zip(plan.shape_at(level), plan.axes_by_dim(level), strict=True))


def is_plan(x: Any) -> bool:
    """Whether `x` is a leaf of a tree of plans."""
    return isinstance(x, ParamPlan)
