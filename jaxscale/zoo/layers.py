"""Norms, linear maps and feed-forward as flax NNX modules.

A module infers its local number of heads or width of the MLP from the parameters it holds, so the same code runs on
whole weights and on a tensor rank's share of them. Parameters are cast to the activations' dtype where they are used;
norms compute in float32.

Notation: b sequences, t tokens of the context shard, D d_model, F d_ff, H head width.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxscale.types import ModelShape
from jaxscale.zoo.comms import Comms
from jaxscale.zoo.kernels import Execution, matmul
from jaxscale.zoo.params import TensorGrad, param
from jaxscale.zoo.rope import RopeTable

Array = jax.Array

GPT_OSS_ALPHA = 1.702  # slope of the sigmoid in gpt-oss's clamped unit (arXiv 2508.10925, section 2.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where and how a layer runs: the mesh hooks and the choice of kernels. Static."""

    comms: Comms
    execution: Execution


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every layer reads beside the residual stream; of this context shard, whole along the tensor axis."""

    positions: Array  # [1|b, t] int32, within each document
    segments: Array | None  # [b, t] int32 where documents are packed
    rope: RopeTable | None
    local_rope: RopeTable | None  # of sliding-window layers


class Norm(nnx.Module):
    """RMSNorm (arXiv 1910.07467) or LayerNorm over the last dim, in float32."""

    def __init__(
        self,
        shape: ModelShape,
        *,
        rngs: nnx.Rngs,
        width: int = 0,
        dim: str = "d_model",
        epsilon: float = 0.0,
        tensor_grad: TensorGrad = "sequence",
    ):
        self.shape, self.epsilon = shape, epsilon or shape.norm_epsilon
        self.scale, self.bias = _norm_params(shape, (width or shape.d_model,), (dim,), tensor_grad, rngs)

    def __call__(self, x: Array) -> Array:
        """[..., width] -> the same shape and dtype."""
        values = x.astype(jnp.float32)
        if self.shape.norm == "layernorm":
            values = values - jnp.mean(values, axis=-1, keepdims=True)
        mean_square = jnp.mean(jnp.square(values), axis=-1, keepdims=True)
        values = values * jax.lax.rsqrt(mean_square + self.epsilon)
        return _affine(self.shape, values, self.scale, self.bias).astype(x.dtype)


class HeadsNorm(nnx.Module):
    """One norm over all heads at once (OLMo 2): its statistics are summed over the tensor axis."""

    def __init__(self, shape: ModelShape, *, heads: int, dim: Literal["heads", "kv_heads"], rngs: nnx.Rngs):
        self.shape = shape
        self.scale, self.bias = _norm_params(shape, (heads, shape.head_dim), (dim, "head_dim"), "never", rngs)

    def __call__(self, x: Array, comms: Comms) -> Array:
        """[b, t, heads, H] -> the same."""
        values = x.astype(jnp.float32)
        count = values.shape[-2] * values.shape[-1] * comms.tensor_size

        def mean(y: Array) -> Array:
            return comms.heads_sum(jnp.sum(y, axis=(-2, -1)))[..., None, None] / count

        if self.shape.norm == "layernorm":
            values = values - mean(values)
        values = values * jax.lax.rsqrt(mean(jnp.square(values)) + self.shape.norm_epsilon)
        return _affine(self.shape, values, self.scale, self.bias).astype(x.dtype)


def _norm_params(
    shape: ModelShape, size: tuple[int, ...], dims: tuple[str, ...], tensor_grad: TensorGrad, rngs: nnx.Rngs
) -> tuple[nnx.Param | None, nnx.Param | None]:
    """Scale and bias, where the model's norms have them."""
    fill = 0.0 if shape.norm_unit_offset else 1.0
    scale = param(rngs, size, dims, fill=fill, tensor_grad=tensor_grad) if shape.norm_scale else None
    biased = shape.norm == "layernorm" and shape.norm_bias
    return scale, param(rngs, size, dims, tensor_grad=tensor_grad) if biased else None


def _affine(shape: ModelShape, values: Array, scale: nnx.Param | None, bias: nnx.Param | None) -> Array:
    if scale is not None:
        offset = 1.0 if shape.norm_unit_offset else 0.0
        values = values * (scale[...].astype(jnp.float32) + offset)
    return values if bias is None else values + bias[...].astype(jnp.float32)


def linear(x: Array, weight: nnx.Param, equation: str, run: Run, bias: nnx.Param | None = None) -> Array:
    """Matmul by einsum in the activations' dtype, plus a bias that broadcasts over leading dims."""
    y = matmul(run.execution)(equation, x, weight[...].astype(x.dtype))
    return y if bias is None else y + bias[...].astype(x.dtype)


def activate(shape: ModelShape, gate: Array | None, up: Array) -> Array:
    """The nonlinearity between up and down: gated where there is a gate."""
    if gate is not None and shape.swiglu_limit:
        gate = jnp.minimum(gate, shape.swiglu_limit)
        up = jnp.clip(up, -shape.swiglu_limit, shape.swiglu_limit)
        return (up + 1.0) * gate * jax.nn.sigmoid(GPT_OSS_ALPHA * gate)
    if gate is not None:
        opened = jax.nn.silu(gate) if shape.mlp == "swiglu" else jax.nn.gelu(gate, approximate=shape.mlp == "geglu")
        return opened * up
    if shape.mlp in ("relu", "relu2"):
        positive = jax.nn.relu(up)
        return jnp.square(positive) if shape.mlp == "relu2" else positive
    return jax.nn.gelu(up, approximate=shape.mlp == "gelu_tanh")


class FeedForward(nnx.Module):
    """Gate and up, activation, down: a dense MLP, or all shared experts as one."""

    def __init__(
        self, shape: ModelShape, *, width: int, dim: str, prefix: Literal["mlp", "shared"], bias: bool, rngs: nnx.Rngs
    ):
        self.shape, self.prefix = shape, prefix
        d = shape.d_model
        columns, rows = (d, width), (width, d)
        self.gate = param(rngs, columns, ("d_model", dim), fan_in=d) if shape.gated_mlp else None
        self.up = param(rngs, columns, ("d_model", dim), fan_in=d)
        self.down = param(rngs, rows, (dim, "d_model"), fan_in=width, scale=residual_scale(shape))
        self.gate_bias = param(rngs, (width,), (dim,)) if bias and shape.gated_mlp else None
        self.up_bias = param(rngs, (width,), (dim,)) if bias else None
        self.down_bias = param(rngs, (d,), ("d_model",), tensor_grad="sequence") if bias else None

    def partial(self, x: Array, run: Run) -> Array:
        """[b, t, D] -> partial sums [b, t, D] over the tensor axis, without the last bias."""
        gate = None
        if self.gate is not None:
            gate = linear(x, self.gate, "btd,df->btf", run, self.gate_bias)
            gate = checkpoint_name(gate, f"{self.prefix}_gate")
        up = checkpoint_name(linear(x, self.up, "btd,df->btf", run, self.up_bias), f"{self.prefix}_up")
        hidden = checkpoint_name(activate(self.shape, gate, up), f"{self.prefix}_act")
        return linear(hidden, self.down, "btf,fd->btd", run)

    def __call__(self, x: Array, run: Run) -> Array:
        """[b, t, D] -> residual stream."""
        y = run.comms.leave_row(self.partial(x, run))
        if self.down_bias is not None:
            y = y + self.down_bias[...].astype(y.dtype)
        return checkpoint_name(y, f"{self.prefix}_down")


def residual_scale(shape: ModelShape) -> float:
    """Scale of matrices that write to the residual stream: 1 / sqrt(2 L) (GPT-2, section 2.3)."""
    return (2 * shape.num_layers) ** -0.5
