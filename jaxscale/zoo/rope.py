"""Positions: rotary tables with every published way of stretching them, and ALiBi slopes.

Rotary embedding: Su et al., arXiv 2104.09864. Notation: R rotated width of a head; frequencies are [R/2].
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxscale.errors import SpecError
from jaxscale.types import ModelShape, RopeShape

Array = jax.Array


@functools.partial(jax.tree_util.register_dataclass, data_fields=["cos", "sin"], meta_fields=["interleaved"])
@dataclass(frozen=True, slots=True, kw_only=True)
class RopeTable:
    """Cosines and sines of every position: [1|b, t, R/2] float32."""

    cos: Array
    sin: Array
    interleaved: bool


def rope_table(shape: ModelShape, positions: Array, *, seq_len: int, local: bool = False) -> RopeTable:
    """Tables for `positions` [1|b, t]; `local` is the table of sliding-window layers where their theta differs.

    `seq_len` decides whether a length-dependent scaling (dynamic, longrope) is past the trained length.
    """
    rope = shape.rope
    if local and rope.local_theta:
        rope = RopeShape(theta=rope.local_theta, fraction=rope.fraction, interleaved=rope.interleaved)
    frequencies, factor = rope_frequencies(rope, shape.rotated_width, seq_len)
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(frequencies, jnp.float32)
    return RopeTable(cos=jnp.cos(angles) * factor, sin=jnp.sin(angles) * factor, interleaved=rope.interleaved)


def rope_frequencies(rope: RopeShape, width: int, seq_len: int) -> tuple[np.ndarray, float]:
    """Angular frequencies [width/2] in radians a token, and the factor on cos and sin (1 unless yarn or longrope)."""
    if rope.scaling not in ("none", "linear") and not rope.original_max_seq_len:
        raise SpecError(f"rope: scaling={rope.scaling!r} needs original_max_seq_len above zero")
    exponents = np.arange(0, width, 2, dtype=np.float64) / width
    base = rope.theta**-exponents
    if rope.scaling == "linear":
        return base / rope.factor, 1.0
    if rope.scaling == "dynamic":
        return _dynamic(rope, base, seq_len), 1.0
    if rope.scaling == "yarn":
        return _yarn(rope, base, width), _yarn_factor(rope)
    if rope.scaling == "llama3":
        return _llama3(rope, base), 1.0
    if rope.scaling == "longrope":
        return _longrope(rope, base, seq_len)
    return base, 1.0


def _dynamic(rope: RopeShape, base: np.ndarray, seq_len: int) -> np.ndarray:
    """Dynamic NTK: past the trained length theta grows, so that the slowest pair of dims is stretched in proportion."""
    length = max(seq_len, rope.original_max_seq_len)
    growth = rope.factor * length / rope.original_max_seq_len - (rope.factor - 1.0)
    return base * growth ** -np.linspace(0.0, 1.0, len(base))


def _yarn(rope: RopeShape, base: np.ndarray, width: int) -> np.ndarray:
    """YaRN (Peng et al., arXiv 2309.00071, section 3.2): fast dims stay, slow dims are interpolated."""

    def correction_dim(rotations: float) -> float:
        return width * math.log(rope.original_max_seq_len / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = correction_dim(rope.beta_fast), correction_dim(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = np.clip((np.arange(width // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
    return base / rope.factor * ramp + base * (1.0 - ramp)


def yarn_mscale(factor: float, mscale: float = 1.0) -> float:
    """Attention temperature of YaRN (arXiv 2309.00071, eq. 22): 0.1 * mscale * ln(factor) + 1."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1.0 else 1.0


def _yarn_factor(rope: RopeShape) -> float:
    if rope.attention_factor:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim)
    return yarn_mscale(rope.factor)


def _llama3(rope: RopeShape, base: np.ndarray) -> np.ndarray:
    """Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended."""
    wavelengths = 2 * math.pi / base
    low, high = rope.low_freq_factor, rope.high_freq_factor
    smooth = (rope.original_max_seq_len / wavelengths - low) / (high - low)
    smooth = np.clip(smooth, 0.0, 1.0)
    return (1.0 - smooth) * base / rope.factor + smooth * base


def _longrope(rope: RopeShape, base: np.ndarray, seq_len: int) -> tuple[np.ndarray, float]:
    """LongRoPE (Ding et al., arXiv 2402.13753): one searched divisor a frequency."""
    name = "long_factors" if seq_len > rope.original_max_seq_len else "short_factors"
    divisors = getattr(rope, name)
    if len(divisors) != len(base):
        raise SpecError(f"rope: {name} has {len(divisors)} numbers, but {len(base)} pairs of dims rotate: one for each")
    factor = rope.attention_factor
    if not factor:
        factor = math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_seq_len)) if rope.factor > 1 else 1.0
    return base / np.asarray(divisors), factor


def apply_rope(x: Array, table: RopeTable) -> Array:
    """Rotate the first R dims of each head of `x` [b, t, N, H]; the others pass.

    Interleaved pairs come out as two halves: queries and keys are permuted alike, so scores do not change.
    """
    width = 2 * table.cos.shape[-1]
    rotated, rest = x[..., :width].astype(jnp.float32), x[..., width:]
    if table.interleaved:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
    else:
        first, second = jnp.split(rotated, 2, axis=-1)
    cos, sin = table.cos[:, :, None], table.sin[:, :, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
    return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned


def alibi_slopes(num_heads: int, *, max_bias: float = 8.0) -> np.ndarray:
    """One slope a head, [num_heads] float32 (Press et al., arXiv 2108.12409, section 3).

    A head count that is no power of two takes every other slope of the next power of two first, as MPT does.
    """
    count = 2 ** math.ceil(math.log2(num_heads))
    slopes = 2.0 ** -(np.arange(1, count + 1) * max_bias / count)
    if count != num_heads:
        slopes = np.concatenate([slopes[1::2], slopes[::2]])[:num_heads]
    return slopes.astype(np.float32)
