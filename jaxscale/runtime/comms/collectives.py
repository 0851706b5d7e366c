"""Collectives in pairs: each forward collective with the collective of its backward pass, written down, not derived.

`axes` is a tuple of mesh axis names; an empty tuple makes every function here the identity and emits nothing.

| function | forward | backward | Megatron's name (arXiv 1909.08053, 2205.05198) |
|---|---|---|---|
| `copy_to_shards` | identity | all-reduce | f |
| `sum_from_shards` | all-reduce | identity | g |
| `gather_dim` | all-gather | reduce-scatter | g with sequence parallelism, forward |
| `scatter_sum_dim` | reduce-scatter | all-gather | its conjugate |
| `sum_both_ways` | all-reduce | all-reduce | |
| `exchange` | all-to-all | the inverse all-to-all | |
| `shift` | permute to the next device | permute to the one before | |
"""

import functools

import jax
from jax import lax

Array = jax.Array
Axes = tuple[str, ...]


def all_sum(x: Array, axes: Axes) -> Array:
    """All-reduce, not meant to be differentiated."""
    return lax.psum(x, axes) if axes else x


def all_gather_dim(x: Array, axes: Axes, dim: int) -> Array:
    """Concatenate the shards of `axes` along `dim`, not meant to be differentiated."""
    return lax.all_gather(x, axes, axis=dim, tiled=True) if axes else x


def sum_scatter_dim(x: Array, axes: Axes, dim: int) -> Array:
    """Sum over `axes` and keep this device's part of `dim`, not meant to be differentiated."""
    return lax.psum_scatter(x, axes, scatter_dimension=dim, tiled=True) if axes else x


def group_size(axes: Axes) -> int:
    """Number of devices that differ only in their place on `axes`."""
    return lax.axis_size(axes) if axes else 1


def slice_dim(x: Array, axes: Axes, dim: int) -> Array:
    """This device's part of `dim` of a value that all devices of `axes` hold alike: no collective."""
    if not axes:
        return x
    size = x.shape[dim] // group_size(axes)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axes) * size, size, axis=dim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def copy_to_shards(x: Array, axes: Axes) -> Array:
    """Hand one value to shards that each compute a part with it; their cotangents are summed."""
    return x


copy_to_shards.defvjp(lambda x, axes: (x, None), lambda axes, _, ct: (all_sum(ct, axes),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def sum_from_shards(x: Array, axes: Axes) -> Array:
    """Join partial sums; each shard's cotangent is that of the sum."""
    return all_sum(x, axes)


sum_from_shards.defvjp(lambda x, axes: (all_sum(x, axes), None), lambda axes, _, ct: (ct,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def sum_both_ways(x: Array, axes: Axes) -> Array:
    """Join partial sums whose total every shard uses for a part of its own, so cotangents are partial too."""
    return all_sum(x, axes)


sum_both_ways.defvjp(lambda x, axes: (all_sum(x, axes), None), lambda axes, _, ct: (all_sum(ct, axes),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gather_dim(x: Array, axes: Axes, dim: int) -> Array:
    """All-gather along `dim`; the cotangent of the whole is a partial sum on each shard."""
    return all_gather_dim(x, axes, dim)


gather_dim.defvjp(
    lambda x, axes, dim: (all_gather_dim(x, axes, dim), None),
    lambda axes, dim, _, ct: (sum_scatter_dim(ct, axes, dim),),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def scatter_sum_dim(x: Array, axes: Axes, dim: int) -> Array:
    """Join partial sums and keep this shard's part of `dim`."""
    return sum_scatter_dim(x, axes, dim)


scatter_sum_dim.defvjp(
    lambda x, axes, dim: (sum_scatter_dim(x, axes, dim), None),
    lambda axes, dim, _, ct: (all_gather_dim(ct, axes, dim),),
)


def _all_to_all(x: Array, axes: Axes, split_dim: int, join_dim: int) -> Array:
    return lax.all_to_all(x, axes, split_dim, join_dim, tiled=True) if axes else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def exchange(x: Array, axes: Axes, split_dim: int, join_dim: int) -> Array:
    """All-to-all: cut `split_dim` into one part for each shard, join what arrives along `join_dim`."""
    return _all_to_all(x, axes, split_dim, join_dim)


exchange.defvjp(
    lambda x, axes, split_dim, join_dim: (_all_to_all(x, axes, split_dim, join_dim), None),
    lambda axes, split_dim, join_dim, _, ct: (_all_to_all(ct, axes, join_dim, split_dim),),
)


def rotate(x: Array, axis: str, *, steps: int = 1) -> Array:
    """Send to the device `steps` further round the ring of `axis`; not meant to be differentiated."""
    size = lax.axis_size(axis)
    return lax.ppermute(x, axis, [(i, (i + steps) % size) for i in range(size)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def shift(x: Array, axis: str) -> Array:
    """Send to the next device of the ring of `axis`; cotangents go back to the one before."""
    return rotate(x, axis)


shift.defvjp(lambda x, axis: (rotate(x, axis), None), lambda axis, _, ct: (rotate(ct, axis, steps=-1),))
