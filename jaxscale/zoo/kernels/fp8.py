"""Matmuls in 8-bit floats with a scale a tensor, taken from the tensor itself each time.

Forward operands are e4m3, gradients e5m2 (Micikevicius et al., arXiv 2209.05433, section 3). Operands are quantised
and written back in their own dtype; XLA turns a matmul of two such operands into an 8-bit one where the device has it,
and elsewhere the numbers are the same.
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

FORWARD, GRADIENT = jnp.float8_e4m3fn, jnp.float8_e5m2


def quantised(x: Array, dtype: jnp.dtype) -> Array:
    """Round `x` to the grid of an 8-bit float whose largest value is x's largest magnitude; dtype of `x` is kept."""
    largest = jnp.max(jnp.abs(x)).astype(jnp.float32)
    limit = float(jnp.finfo(dtype).max)
    scale = jnp.where(largest > 0, largest / limit, 1.0)
    scaled = jnp.clip(x.astype(jnp.float32) / scale, -limit, limit)
    return scaled.astype(dtype).astype(x.dtype) * scale.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def fp8_matmul(equation: str, x: Array, weight: Array) -> Array:
    """Einsum of activations and weights with both operands rounded to e4m3."""
    return jnp.einsum(equation, quantised(x, FORWARD), quantised(weight, FORWARD))


def _forward(equation: str, x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return fp8_matmul(equation, x, weight), (x, weight)


def _backward(equation: str, operands: tuple[Array, Array], d_out: Array) -> tuple[Array, Array]:
    rounded = [quantised(operand, FORWARD) for operand in operands]
    _, pullback = jax.vjp(functools.partial(jnp.einsum, equation), *rounded)
    return pullback(quantised(d_out, GRADIENT))


fp8_matmul.defvjp(_forward, _backward)
