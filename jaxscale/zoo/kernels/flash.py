"""Fused attention kernels: cuDNN on NVIDIA, Pallas splash attention on TPU.

Both mask by the index of a token, so they need `spec.contiguous`; packed documents go by segment ids.

Notation: b sequences, t queries, s keys, N query heads, K kv heads, H head width, Hv width of a value head.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxscale.errors import SpecError
from jaxscale.zoo.kernels.plain import AttentionInputs, AttentionSpec, block_mask

Array = jax.Array

LANES = 128  # of a TPU vector register: splash blocks are multiples of it
SPLASH_BLOCK = 512


def cudnn_attention(q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec) -> Array:
    """Flash attention of cuDNN, for 16-bit q [b, t, N, H], k [b, s, K, H], v [b, s, K, Hv] -> [b, t, N, Hv]."""
    _refuse("cudnn", softcap=bool(spec.softcap), sinks=inputs.sinks is not None, alibi=inputs.slopes is not None)
    mask = None
    if inputs.q_segments is not None or not spec.contiguous:
        mask = block_mask(inputs, spec)[:, None]
    window = (spec.window - 1, 0) if spec.window and mask is None else None
    width = v.shape[-1]
    if width < q.shape[-1]:
        v = jnp.pad(v, [(0, 0)] * 3 + [(0, q.shape[-1] - width)])

    def kernel(q: Array, k: Array, v: Array) -> Array:
        return jax.nn.dot_product_attention(
            q, k, v, mask=mask, scale=spec.scale, is_causal=mask is None, local_window_size=window,
            implementation="cudnn",
        )  # fmt: skip

    return name_residuals(kernel, "attention")(q, k, v)[..., :width]


def name_residuals(kernel: Callable[..., Array], name: str) -> Callable[..., Array]:
    """Give `name` to a kernel's output and to what its own backward pass keeps beside its inputs.

    A remat policy that saves `name` then need not run the kernel again to get its softmax statistics.
    """

    @jax.custom_vjp
    def named(*inputs: Array) -> Array:
        return checkpoint_name(kernel(*inputs), name)

    def forward(*inputs: Array) -> tuple[Array, Any]:
        out, pullback = jax.vjp(kernel, *inputs)
        known = {id(x) for x in inputs}

        def own(leaf: Array) -> bool:  # a mask spread out to all scores is cheaper to build again than to keep
            return id(leaf) not in known and leaf.size <= out.size

        named_pullback = jax.tree.map(lambda leaf: checkpoint_name(leaf, name) if own(leaf) else leaf, pullback)
        return checkpoint_name(out, name), named_pullback

    def backward(pullback: Any, d_out: Array) -> tuple[Array, ...]:
        return pullback(d_out)

    named.defvjp(forward, backward)
    return named


def splash_attention(
    q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec, *, interpret: bool = False
) -> Array:
    """Pallas splash attention for TPU: [b, t, N, H], [b, s, K, H], [b, s, K, Hv] -> [b, t, N, Hv].

    `interpret` runs the kernel without a TPU, to check it.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    _refuse("splash", alibi=inputs.slopes is not None, scattered_positions=not spec.contiguous)
    t, s = q.shape[1], k.shape[1]
    if t % LANES or s % LANES:
        raise SpecError(
            f"attention='splash' needs sequences in multiples of {LANES} tokens, not {t} and {s}; use 'xla'"
        )
    kernel = splash.make_splash_mha(
        _splash_mask(q.shape[2], t, s, spec.window), block_sizes=_splash_blocks(t, s), head_shards=1, q_seq_shards=1,
        attn_logits_soft_cap=spec.softcap or None, residual_checkpoint_name="attention", interpret=interpret,
    )  # fmt: skip
    sinks = None if inputs.sinks is None else inputs.sinks.astype(jnp.float32)

    def one(q: Array, k: Array, v: Array, segments: Any) -> Array:
        ids = None if segments is None else splash.SegmentIds(*segments)
        return kernel(q, k, v, ids, sinks)

    segments = None if inputs.q_segments is None else (inputs.q_segments, inputs.kv_segments)
    scaled = q * jnp.asarray(spec.scale, q.dtype)
    heads_first = (x.swapaxes(1, 2) for x in (scaled, k, v))
    return jax.vmap(one)(*heads_first, segments).swapaxes(1, 2).astype(q.dtype)


def _splash_mask(heads: int, t: int, s: int, window: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    one = masks.LocalMask((t, s), (window - 1, 0), 0) if window else masks.CausalMask((t, s))
    return masks.MultiHeadMask([one] * heads)


def _splash_blocks(t: int, s: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    block_q, block_kv = _block(t), _block(s)
    return splash.BlockSizes(
        block_q=block_q, block_kv=block_kv, block_kv_compute=block_kv, block_q_dkv=block_q, block_kv_dkv=block_kv,
        block_kv_dkv_compute=block_kv, block_q_dq=block_q, block_kv_dq=block_kv,
    )  # fmt: skip


@functools.cache
def _block(length: int) -> int:
    """The largest block up to SPLASH_BLOCK that divides the sequence."""
    return next(size for size in range(SPLASH_BLOCK, 0, -LANES) if length % size == 0)


def _refuse(kernel: str, **asked: bool) -> None:
    wanted = [name for name, wants in asked.items() if wants]
    if wanted:
        raise SpecError(f"attention={kernel!r} cannot do {', '.join(wanted)}; use 'xla'")
