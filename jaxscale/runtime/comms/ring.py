"""Attention over a sequence that the context axis splits: a ring of keys and values, or all of them gathered.

Causal load balance: the sequence is cut into 2c chunks for c ranks and rank i holds chunks i and 2c-1-i, one early and
one late ("zigzag", as in Llama 3's context parallelism, arXiv 2407.21783, section 3.3.2). Then between any two ranks
exactly half of the scores are under the causal mask: all queries over the early keys of a rank before, or the late
queries over all keys of a rank after. The ring computes only that half.

The ring (Liu et al., arXiv 2310.01889) keeps of its forward pass the output and log-sum-exp, as flash attention does;
its backward pass sends keys and values round once more, with the gradients of both travelling along and one step
further, home.

Notation: b sequences, t tokens of this shard, c context degree, N query heads, H head width.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxscale.runtime.comms.collectives import rotate
from jaxscale.zoo import AttentionInputs, AttentionSpec, block_backward, block_forward, merge_blocks, row_delta

Array = jax.Array


def zigzag_positions(rank: Array | int, ranks: int, seq_len: int) -> Array:
    """Which tokens of the sequence rank `rank` holds, int32 [seq_len / ranks].

    >>> zigzag_positions(1, 2, 8).tolist()
    [2, 3, 4, 5]
    """
    if ranks == 1:
        return jnp.arange(seq_len, dtype=jnp.int32)
    chunk = seq_len // (2 * ranks)
    within = jnp.arange(chunk, dtype=jnp.int32)
    return jnp.concatenate([rank * chunk + within, (2 * ranks - 1 - rank) * chunk + within])


def take_zigzag(x: Array, rank: Array | int, ranks: int, *, dim: int = 1) -> Array:
    """The tokens of rank `rank` out of a whole sequence along `dim`."""
    if ranks == 1:
        return x
    chunk = x.shape[dim] // (2 * ranks)
    early = lax.dynamic_slice_in_dim(x, rank * chunk, chunk, axis=dim)
    late = lax.dynamic_slice_in_dim(x, (2 * ranks - 1 - rank) * chunk, chunk, axis=dim)
    return jnp.concatenate([early, late], axis=dim)


def _queries(inputs: AttentionInputs, part: slice) -> dict[str, Array | None]:
    segments = inputs.q_segments
    return {
        "q_positions": inputs.q_positions[:, part],
        "q_segments": None if segments is None else segments[:, part],
    }


def _block_inputs(
    inputs: AttentionInputs, keys: Any, q_part: slice, k_part: slice, owner: Array, axis: str
) -> AttentionInputs:
    """Inputs of some of the queries over some of the keys of rank `owner`, which are passing by."""
    positions, segments = keys["positions"], keys["segments"]
    if positions is None:
        ranks = lax.axis_size(axis)
        positions = zigzag_positions(owner, ranks, ranks * keys["k"].shape[1])[None]
    return AttentionInputs(
        **_queries(inputs, q_part),
        kv_positions=positions[:, k_part],
        kv_segments=None if segments is None else segments[:, k_part],
        slopes=inputs.slopes,
    )


def _passing(k: Array, v: Array, inputs: AttentionInputs) -> dict[str, Any]:
    """What travels round the ring. Without packed documents, positions follow from the rank that keys come from."""
    packed = inputs.kv_segments is not None
    return {"k": k, "v": v, "positions": inputs.kv_positions if packed else None, "segments": inputs.kv_segments}


def _halves(t: int) -> tuple[slice, slice, slice]:
    return slice(0, t // 2), slice(t // 2, t), slice(0, t)


def _forward_block(
    q: Array, keys: Any, inputs: AttentionInputs, spec: AttentionSpec, owner: Array, axis: str
) -> tuple[Array, Array]:
    """Output and log-sum-exp over the keys of another rank, `owner`."""
    early, late, whole = _halves(q.shape[1])

    def over_early_keys() -> tuple[Array, Array]:
        block = _block_inputs(inputs, keys, whole, early, owner, axis)
        return block_forward(q, keys["k"][:, early], keys["v"][:, early], block, spec)

    def of_late_queries() -> tuple[Array, Array]:
        block = _block_inputs(inputs, keys, late, whole, owner, axis)
        out, lse = block_forward(q[:, late], keys["k"], keys["v"], block, spec)
        blank = jnp.full((lse.shape[0], early.stop, *lse.shape[2:]), -jnp.inf, lse.dtype)
        return jnp.concatenate([jnp.zeros_like(out), out], axis=1), jnp.concatenate([blank, lse], axis=1)

    return lax.cond(owner < lax.axis_index(axis), over_early_keys, of_late_queries)


def _backward_block(
    q: Array,
    keys: Any,
    inputs: AttentionInputs,
    spec: AttentionSpec,
    rows: tuple[Array, ...],
    owner: Array,
    axis: str,
) -> tuple[Array, Array, Array]:
    """Gradients of q, k, v from the keys of another rank; `rows` are lse, delta and d_out of the queries."""
    early, late, whole = _halves(q.shape[1])

    def over_early_keys() -> tuple[Array, Array, Array]:
        block = _block_inputs(inputs, keys, whole, early, owner, axis)
        d_q, d_k, d_v = block_backward(q, keys["k"][:, early], keys["v"][:, early], block, spec, *rows)
        return d_q, _zeros_after(d_k), _zeros_after(d_v)

    def of_late_queries() -> tuple[Array, Array, Array]:
        block = _block_inputs(inputs, keys, late, whole, owner, axis)
        cut = [row[:, late] for row in rows]
        d_q, d_k, d_v = block_backward(q[:, late], keys["k"], keys["v"], block, spec, *cut)
        return jnp.concatenate([jnp.zeros_like(d_q), d_q], axis=1), d_k, d_v

    return lax.cond(owner < lax.axis_index(axis), over_early_keys, of_late_queries)


def _zeros_after(x: Array) -> Array:
    return jnp.concatenate([x, jnp.zeros_like(x)], axis=1)


def _rotate_all(tree: Any, axis: str) -> Any:
    return jax.tree.map(lambda x: rotate(x, axis), tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def ring_attention(
    q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec, axis: str
) -> tuple[Array, Array]:
    """Attention over the keys of all ranks of `axis`: output [b, t, N, H] and log-sum-exp [b, t, N] float32."""
    rank, ranks = lax.axis_index(axis), lax.axis_size(axis)
    out, lse = block_forward(q, k, v, inputs, spec)

    def visit(carry: tuple[Any, Array, Array], step: Array) -> tuple[Any, None]:
        keys, out, lse = carry
        following = _rotate_all(keys, axis)  # independent of this block's compute, so the two can overlap
        merged = merge_blocks(out, lse, *_forward_block(q, keys, inputs, spec, (rank - step) % ranks, axis))
        return (following, *merged), None

    start = (_rotate_all(_passing(k, v, inputs), axis), out.astype(jnp.float32), lse)
    (keys, out, lse), _ = lax.scan(visit, start, jnp.arange(1, ranks - 1))
    out, lse = merge_blocks(out, lse, *_forward_block(q, keys, inputs, spec, (rank + 1) % ranks, axis))
    return out.astype(q.dtype), lse


def _ring_forward(
    q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec, axis: str
) -> tuple[Any, Any]:
    out, lse = ring_attention(q, k, v, inputs, spec, axis)
    out, lse = checkpoint_name(out, "attention"), checkpoint_name(lse, "attention")
    return (out, lse), (q, k, v, inputs, out, lse)


def _ring_backward(spec: AttentionSpec, axis: str, residuals: Any, cotangents: tuple[Array, Array]) -> tuple[Any, ...]:
    q, k, v, inputs, out, lse = residuals
    d_out, d_lse = cotangents
    rank, ranks = lax.axis_index(axis), lax.axis_size(axis)
    rows = (lse, row_delta(out, d_out) - d_lse, d_out)
    d_q, d_k, d_v = block_backward(q, k, v, inputs, spec, *rows)

    def visit(carry: tuple[Any, Any, Array], step: Array) -> tuple[Any, None]:
        keys, d_kv, d_q = carry
        following = _rotate_all(keys, axis)
        own_q, own_k, own_v = _backward_block(q, keys, inputs, spec, rows, (rank - step) % ranks, axis)
        d_kv = _rotate_all((d_kv[0] + own_k, d_kv[1] + own_v), axis)
        return (following, d_kv, d_q + own_q), None

    start = (_rotate_all(_passing(k, v, inputs), axis), _rotate_all((d_k, d_v), axis), d_q)
    (keys, d_kv, d_q), _ = lax.scan(visit, start, jnp.arange(1, ranks - 1))
    own_q, own_k, own_v = _backward_block(q, keys, inputs, spec, rows, (rank + 1) % ranks, axis)
    d_k, d_v = _rotate_all((d_kv[0] + own_k, d_kv[1] + own_v), axis)
    return (d_q + own_q).astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), None


ring_attention.defvjp(_ring_forward, _ring_backward)
