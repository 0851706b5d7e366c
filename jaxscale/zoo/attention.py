"""The two attention layers as flax NNX modules: grouped-query and latent.

Notation: b sequences, t tokens of the context shard, D d_model, N query heads, K kv heads, H head width.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxscale.types import ModelShape
from jaxscale.zoo.kernels import attention_kernel
from jaxscale.zoo.kernels.plain import AttentionInputs, AttentionSpec
from jaxscale.zoo.layers import Context, HeadsNorm, Norm, Run, linear, residual_scale
from jaxscale.zoo.params import param
from jaxscale.zoo.rope import RopeTable, alibi_slopes, apply_rope, yarn_mscale

Array = jax.Array

LATENT_NORM_EPSILON = 1e-6


class Attention(nnx.Module):
    """Multi-head, grouped-query (arXiv 2305.13245) and multi-query attention."""

    def __init__(self, shape: ModelShape, *, rngs: nnx.Rngs):
        self.shape = shape
        d, n, k, h = shape.d_model, shape.num_heads, shape.num_kv_heads, shape.head_dim
        self.q = param(rngs, (d, n, h), ("d_model", "heads", "head_dim"), fan_in=d)
        self.k = param(rngs, (d, k, h), ("d_model", "kv_heads", "head_dim"), fan_in=d)
        self.v = param(rngs, (d, k, h), ("d_model", "kv_heads", "head_dim"), fan_in=d)
        self.out = _out_projection(shape, h, rngs)
        self.q_bias = param(rngs, (n, h), ("heads", "head_dim")) if shape.qkv_bias else None
        self.k_bias = param(rngs, (k, h), ("kv_heads", "head_dim")) if shape.qkv_bias else None
        self.v_bias = param(rngs, (k, h), ("kv_heads", "head_dim")) if shape.qkv_bias else None
        bias = shape.attention_out_bias
        self.out_bias = param(rngs, (d,), ("d_model",), tensor_grad="sequence") if bias else None
        self.sinks = param(rngs, (n,), ("heads",)) if shape.attention_sinks else None
        self.q_norm = _qk_norm(shape, n, "heads", rngs)
        self.k_norm = _qk_norm(shape, k, "kv_heads", rngs)

    def __call__(self, x: Array, context: Context, run: Run, *, window: int) -> Array:
        """[b, t, D] -> residual stream."""
        table = context.local_rope if window else context.rope
        q = self._heads(x, self.q, self.q_bias, run)
        k = self._heads(x, self.k, self.k_bias, run)
        v = checkpoint_name(self._heads(x, self.v, self.v_bias, run), "v")
        q = _positioned(q, self.q_norm, table, "q", run)
        k = _positioned(k, self.k_norm, table, "k", run)
        sinks = None if self.sinks is None else self.sinks[...]
        out = attend(self.shape, q, k, v, context, run, window=window, sinks=sinks)
        return _leave(linear(out, self.out, "btnh,nhd->btd", run), self.out_bias, run)

    def _heads(self, x: Array, weight: nnx.Param, bias: nnx.Param | None, run: Run) -> Array:
        y = linear(x, weight, "btd,dnh->btnh", run, bias)
        clip = self.shape.qkv_clip
        return jnp.clip(y, -clip, clip) if clip else y


class LatentAttention(nnx.Module):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, eq. 9-19).

    Queries and keys are a part without position and a rotated part; the rotated key is one for all heads. The latent
    projections are whole on every tensor rank, so their gradients are partial there.
    """

    def __init__(self, shape: ModelShape, *, rngs: nnx.Rngs):
        assert shape.mla is not None, "built for latent attention only"
        self.shape, self.mla = shape, shape.mla
        mla, d, n = shape.mla, shape.d_model, shape.num_heads
        q_width, q_dims = mla.qk_head_dim, ("heads", "head_dim")
        if mla.q_lora_rank:
            r = mla.q_lora_rank
            self.q_down = param(rngs, (d, r), ("d_model", "q_latent"), fan_in=d, tensor_grad="always")
            self.q_norm = _latent_norm(shape, r, "q_latent", rngs)
            self.q_up = param(rngs, (r, n, q_width), ("q_latent", *q_dims), fan_in=r)
        else:
            self.q = param(rngs, (d, n, q_width), ("d_model", *q_dims), fan_in=d)
        r, latent = mla.kv_lora_rank, mla.kv_lora_rank + mla.qk_rope_head_dim
        self.kv_down = param(rngs, (d, latent), ("d_model", "kv_latent"), fan_in=d, tensor_grad="always")
        self.kv_norm = _latent_norm(shape, r, "kv_latent", rngs)
        self.k = param(rngs, (r, n, mla.qk_nope_head_dim), ("kv_latent", "heads", "head_dim"), fan_in=r)
        self.v = param(rngs, (r, n, mla.v_head_dim), ("kv_latent", "heads", "head_dim"), fan_in=r)
        self.out = _out_projection(shape, mla.v_head_dim, rngs)

    def __call__(self, x: Array, context: Context, run: Run, *, window: int) -> Array:
        """[b, t, D] -> residual stream."""
        assert context.rope is not None, "latent attention rotates a part of each head"
        latent = checkpoint_name(linear(x, self.kv_down, "btd,dr->btr", run), "kv_down")
        compressed = self.kv_norm(latent[..., : self.mla.kv_lora_rank])
        shared_key = apply_rope(latent[..., None, self.mla.kv_lora_rank :], context.rope)
        k = linear(compressed, self.k, "btr,rnh->btnh", run)
        rotated = jnp.broadcast_to(shared_key, (*k.shape[:3], shared_key.shape[-1]))
        k = checkpoint_name(jnp.concatenate([k, rotated], axis=-1), "k")
        v = checkpoint_name(linear(compressed, self.v, "btr,rnh->btnh", run), "v")
        q = checkpoint_name(self._queries(x, context.rope, run), "q")
        out = attend(self.shape, q, k, v, context, run, window=window)
        return _leave(linear(out, self.out, "btnh,nhd->btd", run), None, run)

    def _queries(self, x: Array, table: RopeTable, run: Run) -> Array:
        if self.mla.q_lora_rank:
            latent = checkpoint_name(linear(x, self.q_down, "btd,dr->btr", run), "q_down")
            q = linear(self.q_norm(latent), self.q_up, "btr,rnh->btnh", run)
        else:
            q = linear(x, self.q, "btd,dnh->btnh", run)
        nope = self.mla.qk_nope_head_dim
        return jnp.concatenate([q[..., :nope], apply_rope(q[..., nope:], table)], axis=-1)


def _latent_norm(shape: ModelShape, width: int, dim: str, rngs: nnx.Rngs) -> Norm:
    """DeepSeek's norms of latents have an epsilon of their own, whatever the configuration says of the others."""
    return Norm(shape, width=width, dim=dim, epsilon=LATENT_NORM_EPSILON, tensor_grad="always", rngs=rngs)


def _out_projection(shape: ModelShape, width: int, rngs: nnx.Rngs) -> nnx.Param:
    size, fan_in = (shape.num_heads, width, shape.d_model), shape.num_heads * width
    return param(rngs, size, ("heads", "head_dim", "d_model"), fan_in=fan_in, scale=residual_scale(shape))


def _qk_norm(
    shape: ModelShape, heads: int, dim: Literal["heads", "kv_heads"], rngs: nnx.Rngs
) -> Norm | HeadsNorm | None:
    if shape.qk_norm == "head":
        return Norm(shape, width=shape.head_dim, dim="head_dim", tensor_grad="always", rngs=rngs)
    if shape.qk_norm == "full":
        return HeadsNorm(shape, heads=heads, dim=dim, rngs=rngs)
    return None


def _positioned(x: Array, norm: Norm | HeadsNorm | None, table: RopeTable | None, name: str, run: Run) -> Array:
    """Norm of queries or keys, then their rotation, named as the op inventory names them."""
    if norm is not None:
        x = checkpoint_name(x, f"{name}_proj")
        x = norm(x, run.comms) if isinstance(norm, HeadsNorm) else norm(x)
    if table is not None:
        x = apply_rope(x, table)
    return checkpoint_name(x, name)


def _leave(partial: Array, bias: nnx.Param | None, run: Run) -> Array:
    y = run.comms.leave_row(partial)
    if bias is not None:
        y = y + bias[...].astype(y.dtype)
    return checkpoint_name(y, "attention_out")


def attention_scale(shape: ModelShape) -> float:
    """Factor on the scores: given, or 1 / sqrt(width of a query head), with YaRN's temperature for latent attention."""
    width = shape.mla.qk_head_dim if shape.mla else shape.head_dim
    scale = shape.attention_scale or width**-0.5
    if shape.mla and shape.rope.mscale_all_dim:
        scale *= yarn_mscale(shape.rope.factor, shape.rope.mscale_all_dim) ** 2
    return scale


def attend(
    shape: ModelShape,
    q: Array,
    k: Array,
    v: Array,
    context: Context,
    run: Run,
    *,
    window: int,
    sinks: Array | None = None,
) -> Array:
    """Softmax attention through the context-parallel hook: [b, t, N, H] -> [b, t, N, Hv]."""
    slopes = None
    if shape.positions == "alibi":
        first = run.comms.tensor_index() * q.shape[2]
        slopes = jax.lax.dynamic_slice_in_dim(jnp.asarray(alibi_slopes(shape.num_heads)), first, q.shape[2])
    inputs = AttentionInputs(
        q_positions=context.positions,
        kv_positions=context.positions,
        q_segments=context.segments,
        kv_segments=context.segments,
        sinks=sinks,
        slopes=slopes,
    )
    spec = AttentionSpec(scale=attention_scale(shape), window=window, softcap=shape.attention_softcap)
    return run.comms.attend(attention_kernel(run.execution.attention), q, k, v, inputs, spec)
