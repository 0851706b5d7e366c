"""The form of parameters and optimizer state that no layout changes: the zoo's order of layers, no padding.

Checkpoints hold it, so that what one layout saved another restores; parity tests compare it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxscale.runtime.placement.params import ParamPlan, cut_storage, is_plan, pad_storage
from jaxscale.runtime.placement.stages import pack, unpack
from jaxscale.runtime.program.program import ENDS, Program

Array = jax.Array
Params = Any

_PARTS = frozenset({*ENDS, "segments"})
_SPREAD = 0x9E3779B1  # 2**32 over the golden ratio: weights of neighbours differ in most bits (Knuth, TAOCP 3, 6.4)


def is_param_tree(x: Any) -> bool:
    """Whether `x` is a tree like the model's parameters: themselves, or an optimizer's state of each of them."""
    return isinstance(x, dict) and set(x) == _PARTS


def to_canonical(program: Program, tree: Params) -> Params:
    """Global arrays at level `optimizer_shard`, stacked and padded for a layout, in the form that no layout changes."""
    found = unpack(program.shape, program.stages, _fit_storage(program, tree, cut_storage))
    return found | {part: _resize_vocab(program, part, found[part], pad=False) for part in ENDS}


def from_canonical(program: Program, tree: Params) -> Params:
    """The inverse of `to_canonical`; padding is zero, as it is throughout training."""
    padded = tree | {part: _resize_vocab(program, part, tree[part], pad=True) for part in ENDS}
    return _fit_storage(program, pack(program.shape, program.stages, padded), pad_storage)


def stacked_for(program: Program, params: Params) -> Params:
    """Parameters in the zoo's order, vocabulary padded already, as `from_canonical` stacks and pads them."""
    return _fit_storage(program, pack(program.shape, program.stages, params), pad_storage)


def _fit_storage(program: Program, tree: Params, fit: Callable[[Array, ParamPlan], Array]) -> Params:
    """Add or drop the padding of storage in parts, in whatever has the shape of a parameter."""
    if program.layout.optimizer_shard == "none":
        return tree

    def one(plan: ParamPlan, held: Any) -> Any:
        return fit(held, plan) if jax.tree_util.all_leaves([held]) else held

    return jax.tree.map(one, program.plans, tree, is_leaf=is_plan)


def _resize_vocab(program: Program, part: str, tree: Params, *, pad: bool) -> Params:
    """Add or drop the padding of the vocabulary in whatever has the shape of a parameter.

    What an optimizer keeps of a whole matrix instead, as Adafactor does, is a structure and was never padded.
    """

    def of_param(plan: ParamPlan, held: Any) -> Any:
        padded = next((size for size, dim in zip(plan.shape, plan.dims, strict=True) if dim == "vocab"), 0)
        if padded in (0, program.shape.vocab_size) or not jax.tree_util.all_leaves([held]):
            return held
        return _resize(held, plan, padded if pad else program.shape.vocab_size)

    return jax.tree.map(of_param, program.plans[part], tree, is_leaf=is_plan)


def _resize(x: Array, plan: ParamPlan, size: int) -> Array:
    """`x` with `size` rows in its vocabulary dim: zeros are added, or the last are cut off."""
    dim = plan.dims.index("vocab")
    if size <= x.shape[dim]:
        return jax.lax.slice_in_dim(x, 0, size, axis=dim)
    return jnp.pad(x, [(0, size - x.shape[dim] if d == dim else 0) for d in range(x.ndim)])


def convert_state(program: Program, tree: Any, *, to: bool) -> Any:
    """Apply `to_canonical` or its inverse to every tree in `tree` that is like the parameters."""
    convert = to_canonical if to else from_canonical
    return jax.tree.map(lambda x: convert(program, x) if is_param_tree(x) else x, tree, is_leaf=is_param_tree)


def checksums(tree: Any) -> Any:
    """A number for every array of a tree, uint32, which no sharding changes and no wrong element leaves as it was.

    Each element's bits are weighted by an odd number that follows from its place. A change of one element changes the
    sum modulo 2**32 for certain, any other with all but one chance in 2**32.
    """
    return jax.tree.map(_checksum, tree)


def _checksum(x: Array) -> Array:
    unsigned = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    place, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for dim in reversed(range(x.ndim)):
        place += jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, x.shape, dim)
        stride *= x.shape[dim]
    return jnp.sum(bits * (place * jnp.uint32(_SPREAD) | jnp.uint32(1)), dtype=jnp.uint32)


def fit_sharding(shape: tuple[int, ...], mesh: Mesh, spec: PartitionSpec) -> NamedSharding:
    """`spec` on a mesh, less the axes that do not divide their dim of `shape`."""
    fitted = []
    for size, axes in zip(shape, spec, strict=False):
        names = (axes,) if isinstance(axes, str) else tuple(axes or ())
        degree = math.prod(mesh.shape[name] for name in names)
        fitted.append(names if names and size % degree == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*fitted))
