"""Softmax attention on blocks, the reference every fast kernel is checked against.

Notation: b sequences, t queries, s keys, N query heads, K kv heads, G = N / K, H head width (values may be narrower).

Causality is decided by positions, not by array order: query i sees key j when both are of one segment and
`0 <= position_i - position_j` (and `< window`). So the same code serves packed documents, a context shard in any
order, and a ring in which keys arrive block by block.

The backward pass is flash-style (Dao et al., arXiv 2205.14135, section 3 and appendix B.4): only the output and the
log-sum-exp of each row are kept, probabilities are computed again a chunk of queries at a time.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Array = jax.Array

MASKED = -1e30  # finite, so that a row without a visible key stays finite in a ring
QUERY_CHUNK = 512  # rows of scores alive at once are b * N * QUERY_CHUNK * s


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSpec:
    """What of an attention op is fixed when the program is traced."""

    scale: float
    window: int = 0  # 0 = every earlier token
    softcap: float = 0.0
    contiguous: bool = True  # token i of the arrays is token i of the sequence: kernels may mask by index


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["q_positions", "kv_positions", "q_segments", "kv_segments", "sinks", "slopes"],
    meta_fields=[],
)
@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionInputs:
    """What an attention op reads beside q, k and v."""

    q_positions: Array  # [1|b, t] int32
    kv_positions: Array  # [1|b, s] int32
    q_segments: Array | None = None  # [b, t] int32, of packed documents
    kv_segments: Array | None = None  # [b, s] int32
    sinks: Array | None = None  # [N] float32: a logit a head whose value is zero (gpt-oss)
    slopes: Array | None = None  # [N] float32: ALiBi (Press et al., arXiv 2108.12409)


AttentionKernel = Callable[[Array, Array, Array, AttentionInputs, AttentionSpec], Array]


def block_mask(inputs: AttentionInputs, spec: AttentionSpec) -> Array:
    """Which keys each query sees: bool [1|b, t, s]."""
    distance = inputs.q_positions[:, :, None] - inputs.kv_positions[:, None, :]
    mask = distance >= 0
    if spec.window:
        mask &= distance < spec.window
    if inputs.q_segments is not None and inputs.kv_segments is not None:
        mask &= inputs.q_segments[:, :, None] == inputs.kv_segments[:, None, :]
    return mask


def _scores(q: Array, k: Array, inputs: AttentionInputs, spec: AttentionSpec) -> Array:
    """Masked float32 scores [b, K, G, t, s]."""
    b, t, heads, width = q.shape
    kv_heads = k.shape[2]
    grouped = q.reshape(b, t, kv_heads, heads // kv_heads, width)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, k, preferred_element_type=jnp.float32) * spec.scale
    if spec.softcap:
        scores = spec.softcap * jnp.tanh(scores / spec.softcap)
    if inputs.slopes is not None:
        distance = inputs.q_positions[:, :, None] - inputs.kv_positions[:, None, :]
        slopes = inputs.slopes.astype(jnp.float32).reshape(1, kv_heads, -1, 1, 1)
        scores = scores - slopes * distance[:, None, None].astype(jnp.float32)
    return jnp.where(block_mask(inputs, spec)[:, None, None], scores, MASKED)


def _heads_last(x: Array) -> Array:
    """[b, K, G, t] -> [b, t, N]."""
    b, kv_heads, group, t = x.shape
    return x.transpose(0, 3, 1, 2).reshape(b, t, kv_heads * group)


def _heads_first(x: Array, kv_heads: int) -> Array:
    """[b, t, N] -> [b, K, G, t]."""
    b, t, heads = x.shape
    return x.reshape(b, t, kv_heads, heads // kv_heads).transpose(0, 2, 3, 1)


def _chunk_forward(q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec) -> tuple[Array, Array]:
    """`block_forward` with the scores of all queries alive at once."""
    scores = _scores(q, k, inputs, spec)
    lse = jax.nn.logsumexp(scores, axis=-1)
    probs = jnp.exp(scores - lse[..., None]).astype(v.dtype)
    out = jnp.einsum("bkgts,bskh->btkgh", probs, v, preferred_element_type=jnp.float32)
    return out.reshape(*q.shape[:3], v.shape[-1]).astype(q.dtype), _heads_last(lse)


def _chunk_backward(
    q: Array,
    k: Array,
    v: Array,
    inputs: AttentionInputs,
    spec: AttentionSpec,
    lse: Array,
    delta: Array,
    d_out: Array,
) -> tuple[Array, Array, Array]:
    """`block_backward` with the scores of all queries alive at once."""
    kv_heads = k.shape[2]
    scores, scores_vjp = jax.vjp(lambda q_, k_: _scores(q_, k_, inputs, spec), q, k)
    probs = jnp.exp(scores - _heads_first(lse, kv_heads)[..., None])
    grouped = d_out.reshape(*d_out.shape[:2], kv_heads, -1, d_out.shape[-1])
    d_v = jnp.einsum("bkgts,btkgh->bskh", probs.astype(v.dtype), grouped, preferred_element_type=jnp.float32)
    d_probs = jnp.einsum("btkgh,bskh->bkgts", grouped, v, preferred_element_type=jnp.float32)
    d_q, d_k = scores_vjp(probs * (d_probs - _heads_first(delta, kv_heads)[..., None]))
    return d_q.astype(jnp.float32), d_k.astype(jnp.float32), d_v


def row_delta(out: Array, d_out: Array) -> Array:
    """Row sum of out * d_out, [b, t, N] float32: the softmax's backward needs nothing else of the output."""
    return jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)


def merge_blocks(out_a: Array, lse_a: Array, out_b: Array, lse_b: Array) -> tuple[Array, Array]:
    """Join two partial attentions over different keys into the attention over both; outputs in float32."""
    lse = jnp.logaddexp(lse_a, lse_b)
    weight_a, weight_b = jnp.exp(lse_a - lse)[..., None], jnp.exp(lse_b - lse)[..., None]
    return out_a.astype(jnp.float32) * weight_a + out_b.astype(jnp.float32) * weight_b, lse


def apply_sinks(out: Array, lse: Array, sinks: Array) -> Array:
    """Let each head's sink take its share of the softmax: out * exp(lse) / (exp(lse) + exp(sink))."""
    return (out * jax.nn.sigmoid(lse - sinks.astype(jnp.float32))[..., None]).astype(out.dtype)


def _chunk_inputs(inputs: AttentionInputs, start: Array, size: int) -> AttentionInputs:
    """`inputs` of `size` queries from `start` on."""

    def cut(x: Array | None) -> Array | None:
        return None if x is None else jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)

    return AttentionInputs(
        q_positions=jax.lax.dynamic_slice_in_dim(inputs.q_positions, start, size, axis=1),
        kv_positions=inputs.kv_positions,
        q_segments=cut(inputs.q_segments),
        kv_segments=inputs.kv_segments,
        slopes=inputs.slopes,
    )


def _query_chunk(t: int) -> int:
    """The largest divisor of t up to QUERY_CHUNK; all of t where that would be a sliver."""
    size = next(size for size in range(min(t, QUERY_CHUNK), 0, -1) if t % size == 0)
    return size if 8 * size >= QUERY_CHUNK else t


def _join_chunks(x: Array) -> Array:
    """[chunks, b, chunk, ...] -> [b, t, ...]."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def block_forward(q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec) -> tuple[Array, Array]:
    """Attention of queries over one block of keys: (output [b, t, N, Hv], log-sum-exp [b, t, N] float32)."""
    t, chunk = q.shape[1], _query_chunk(q.shape[1])
    if chunk == t:
        return _chunk_forward(q, k, v, inputs, spec)

    def one(start: Array) -> tuple[Array, Array]:
        rows = jax.lax.dynamic_slice_in_dim(q, start, chunk, axis=1)
        return _chunk_forward(rows, k, v, _chunk_inputs(inputs, start, chunk), spec)

    out, lse = jax.lax.map(one, jnp.arange(0, t, chunk))
    return _join_chunks(out), _join_chunks(lse)


def block_backward(
    q: Array,
    k: Array,
    v: Array,
    inputs: AttentionInputs,
    spec: AttentionSpec,
    lse: Array,
    delta: Array,
    d_out: Array,
) -> tuple[Array, Array, Array]:
    """Gradients of q, k, v for one block of keys, float32.

    `lse` [b, t, N] is of the whole row (all blocks); `delta` [b, t, N] is the row sum of out * d_out, less the
    cotangent of the log-sum-exp where that is an output too.
    """
    t, chunk = q.shape[1], _query_chunk(q.shape[1])
    if chunk == t:
        return _chunk_backward(q, k, v, inputs, spec, lse, delta, d_out)

    def one(sums: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], Array]:
        rows = [jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=1) for x in (q, lse, delta, d_out)]
        cut = _chunk_inputs(inputs, start, chunk)
        d_q, d_k, d_v = _chunk_backward(rows[0], k, v, cut, spec, *rows[1:])
        return (sums[0] + d_k, sums[1] + d_v), d_q

    zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    (d_k, d_v), d_q = jax.lax.scan(one, zeros, jnp.arange(0, t, chunk))
    return _join_chunks(d_q), d_k, d_v


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention_with_lse(
    q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec
) -> tuple[Array, Array]:
    return block_forward(q, k, v, inputs, spec)


def _forward(q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec) -> tuple[Any, Any]:
    out, lse = _attention_with_lse(q, k, v, inputs, spec)
    out, lse = checkpoint_name(out, "attention"), checkpoint_name(lse, "attention")
    return (out, lse), (q, k, v, inputs, out, lse)


def _backward(spec: AttentionSpec, residuals: Any, cotangents: tuple[Array, Array]) -> tuple[Any, ...]:
    q, k, v, inputs, out, lse = residuals
    d_out, d_lse = cotangents
    d_q, d_k, d_v = block_backward(q, k, v, inputs, spec, lse, row_delta(out, d_out) - d_lse, d_out)
    return d_q.astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), None


_attention_with_lse.defvjp(_forward, _backward)


def plain_attention(q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec) -> Array:
    """Attention in plain XLA ops, a chunk of queries at a time: [b, t, N, H] -> [b, t, N, Hv].

    ALiBi's slopes are constants here; every other input is differentiated.
    """
    out, lse = _attention_with_lse(q, k, v, inputs, spec)
    return out if inputs.sinks is None else apply_sinks(out, lse, inputs.sinks)
