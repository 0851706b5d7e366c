"""Norms, attention and the dense MLP as flax NNX modules.

A module infers its local number of heads or width of the MLP from the parameters it holds, so the same code runs on
whole weights and on a tensor rank's share of them. Parameters are cast to the activations' dtype where they are used;
norms and softmax compute in float32.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxscale.types import ModelShape
from jaxscale.zoo.attention import AttentionInputs, AttentionSpec
from jaxscale.zoo.comms import Comms
from jaxscale.zoo.kernels import Execution, attention_kernel
from jaxscale.zoo.params import TensorGrad, param
from jaxscale.zoo.rope import RopeTable, alibi_slopes, apply_rope

Array = jax.Array


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

    def __init__(self, shape: ModelShape, *, rngs: nnx.Rngs, width: int = 0, tensor_grad: TensorGrad = "sequence"):
        self.shape = shape
        size, dims = (width,) if width else (shape.d_model,), ("head_dim",) if width else ("d_model",)
        fill = 0.0 if shape.norm_unit_offset else 1.0
        self.scale = param(rngs, size, dims, fill=fill, tensor_grad=tensor_grad)
        if shape.norm == "layernorm" and shape.norm_bias:
            self.bias = param(rngs, size, dims, tensor_grad=tensor_grad)

    def __call__(self, x: Array) -> Array:
        """[..., width] -> the same shape and dtype."""
        values = x.astype(jnp.float32)
        if self.shape.norm == "layernorm":
            values = values - jnp.mean(values, axis=-1, keepdims=True)
        mean_square = jnp.mean(jnp.square(values), axis=-1, keepdims=True)
        values = values * jax.lax.rsqrt(mean_square + self.shape.norm_epsilon)
        scale = self.scale[...].astype(jnp.float32) + (1.0 if self.shape.norm_unit_offset else 0.0)
        values = values * scale
        if hasattr(self, "bias"):
            values = values + self.bias[...].astype(jnp.float32)
        return values.astype(x.dtype)


def linear(x: Array, weight: nnx.Param, bias: nnx.Param | None, equation: str) -> Array:
    """Matmul by einsum in the activations' dtype, plus a bias that broadcasts over leading dims."""
    y = jnp.einsum(equation, x, weight[...].astype(x.dtype))
    return y if bias is None else y + bias[...].astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head, grouped-query and multi-query attention."""

    def __init__(self, shape: ModelShape, *, rngs: nnx.Rngs):
        self.shape = shape
        d, n, k, h = shape.d_model, shape.num_heads, shape.num_kv_heads, shape.head_dim
        self.q = param(rngs, (d, n, h), ("d_model", "heads", "head_dim"), fan_in=d)
        self.k = param(rngs, (d, k, h), ("d_model", "kv_heads", "head_dim"), fan_in=d)
        self.v = param(rngs, (d, k, h), ("d_model", "kv_heads", "head_dim"), fan_in=d)
        self.out = param(rngs, (n, h, d), ("heads", "head_dim", "d_model"), fan_in=n * h)
        self.q_bias = self.k_bias = self.v_bias = None

    def __call__(self, x: Array, context: Context, *, window: int, comms: Comms, execution: Execution) -> Array:
        """[b, t, D] -> partial sums [b, t, D] over the tensor axis."""
        shape = self.shape
        q = linear(x, self.q, self.q_bias, "btd,dnh->btnh")
        k = linear(x, self.k, self.k_bias, "btd,dnh->btnh")
        v = linear(x, self.v, self.v_bias, "btd,dnh->btnh")
        table = context.local_rope if window else context.rope
        if table is not None:
            q, k = apply_rope(q, table), apply_rope(k, table)
        q, k, v = (checkpoint_name(y, name) for y, name in ((q, "q"), (k, "k"), (v, "v")))
        spec = AttentionSpec(
            scale=shape.attention_scale or shape.head_dim**-0.5, window=window, softcap=shape.attention_softcap
        )
        inputs = attention_inputs(shape, context, comms, local_heads=q.shape[2])
        out = comms.attend(attention_kernel(execution.attention), q, k, v, inputs, spec)
        return jnp.einsum("btnh,nhd->btd", out, self.out[...].astype(x.dtype))


def attention_inputs(
    shape: ModelShape, context: Context, comms: Comms, *, local_heads: int, sinks: Array | None = None
) -> AttentionInputs:
    """Positions, segments and per-head extras of the heads held here."""
    slopes = None
    if shape.positions == "alibi":
        first = comms.tensor_index() * local_heads
        slopes = jax.lax.dynamic_slice_in_dim(jnp.asarray(alibi_slopes(shape.num_heads)), first, local_heads)
    return AttentionInputs(
        q_positions=context.positions,
        kv_positions=context.positions,
        q_segments=context.segments,
        kv_segments=context.segments,
        sinks=sinks,
        slopes=slopes,
    )


class MLP(nnx.Module):
    """A dense feed-forward: gate and up, activation, down."""

    def __init__(self, shape: ModelShape, *, rngs: nnx.Rngs):
        self.shape = shape
        d, f = shape.d_model, shape.d_ff
        if shape.gated_mlp:
            self.gate = param(rngs, (d, f), ("d_model", "d_ff"), fan_in=d)
        self.up = param(rngs, (d, f), ("d_model", "d_ff"), fan_in=d)
        self.down = param(rngs, (f, d), ("d_ff", "d_model"), fan_in=f)

    def __call__(self, x: Array) -> Array:
        """[b, t, D] -> partial sums [b, t, D] over the tensor axis."""
        up = checkpoint_name(linear(x, self.up, None, "btd,df->btf"), "mlp_up")
        gate = None
        if self.shape.gated_mlp:
            gate = checkpoint_name(linear(x, self.gate, None, "btd,df->btf"), "mlp_gate")
        hidden = checkpoint_name(activate(self.shape, gate, up), "mlp_act")
        return linear(hidden, self.down, None, "btf,fd->btd")


def activate(shape: ModelShape, gate: Array | None, up: Array) -> Array:
    """The nonlinearity between up and down."""
    if gate is not None:
        return (jax.nn.silu(gate) if shape.mlp == "swiglu" else jax.nn.gelu(gate, approximate=True)) * up
    if shape.mlp == "relu2":
        return jnp.square(jax.nn.relu(up))
    if shape.mlp == "relu":
        return jax.nn.relu(up)
    return jax.nn.gelu(up, approximate=shape.mlp == "gelu_tanh")
