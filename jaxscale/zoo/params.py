"""Parameters: what each dim is called, how it starts, and whose gradient is a partial sum over the tensor axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

# Dims that the tensor axis splits; a parameter with none of them is whole on every tensor rank.
TENSOR_DIMS = frozenset({"heads", "kv_heads", "d_ff", "expert_d_ff", "shared_d_ff", "vocab"})
EXPERT_DIM = "experts"  # the dim that the expert axis splits
LAYERS_DIM = "layers"  # the stacked dim of a segment

# Is the local gradient a partial sum over the tensor axis? "never": complete (the weight is split, or every rank
# computes the same). "sequence": partial with sequence parallelism only (norms, biases of the residual stream).
# "always": the weight is whole but feeds split work (router, latent projections, per-head norms).
TensorGrad = Literal["never", "sequence", "always"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamInfo:
    """One parameter, described without memory. `shape` and `dims` are of equal length, stacked dim included."""

    shape: tuple[int, ...]
    dtype: Any
    dims: tuple[str, ...]
    tensor_grad: TensorGrad
    trained: bool = True  # False: updated by a rule of its own, not by gradients (aux-free routing bias)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def param(
    rngs: nnx.Rngs,
    shape: Sequence[int],
    dims: Sequence[str],
    *,
    fan_in: int = 0,
    scale: float = 1.0,
    fill: float = 0.0,
    tensor_grad: TensorGrad = "never",
    trained: bool = True,
    pad: Sequence[int] = (),
) -> nnx.Param:
    """A float32 parameter: normal with deviation scale / sqrt(fan_in), or `fill` where fan_in is 0.

    `pad` adds zeros at the end of each dim, so that a padded parameter starts from the same values.
    """
    assert len(shape) == len(dims), "every dim has a name"
    if fan_in:
        value = jax.random.normal(rngs.params(), tuple(shape), jnp.float32) * (scale / math.sqrt(fan_in))
    else:
        value = jnp.full(tuple(shape), fill, jnp.float32)
    if pad:
        value = jnp.pad(value, [(0, extra) for extra in pad])
    return nnx.Param(value, dims=tuple(dims), tensor_grad=tensor_grad, trained=trained)


def info_of(variable: nnx.Variable, *, stacked: int = 0) -> ParamInfo:
    """Describe an (abstract) parameter; `stacked` layers add a leading dim."""
    value, meta = variable.get_raw_value(), variable.get_metadata()
    lead = ((stacked,), (LAYERS_DIM,)) if stacked else ((), ())
    return ParamInfo(
        shape=(*lead[0], *value.shape),
        dtype=value.dtype,
        dims=(*lead[1], *meta["dims"]),
        tensor_grad=meta["tensor_grad"],
        trained=meta["trained"],
    )
