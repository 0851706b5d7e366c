"""Cross-entropy over a vocabulary that the tensor axis splits; the logits of a token are never brought together.

Notation: b sequences, t tokens, Vl vocabulary held by this tensor rank.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxscale.types import ModelShape
from jaxscale.zoo.comms import Comms
from jaxscale.zoo.decoder import Params, head_logits

Array = jax.Array


def head_loss(
    shape: ModelShape,
    params: Params,
    embedding: Params,
    x: Array,
    targets: Array,
    weights: Array,
    *,
    comms: Comms,
    z_loss: float = 0.0,
) -> Array:
    """`params["head"]`, `params["embedding"]`, stream, targets and weights [b, t] -> loss.

    That is cross-entropy in nats times weight, summed over the tokens of this shard in float32; alike on every tensor
    rank. `z_loss` is the coefficient of log(Z)^2 (PaLM, arXiv 2204.02311, section 5).
    """
    logits = head_logits(shape, params, embedding, x, comms=comms)
    first = comms.tensor_index() * logits.shape[-1]
    per_token = _cross_entropy(logits, targets - first, first, shape.vocab_size, comms, z_loss)
    return jnp.sum(per_token * weights.astype(jnp.float32))


def _masked(logits: Array, first: Array | int, vocab_size: int) -> Array:
    """float32 logits in which padding of the vocabulary cannot be chosen."""
    values = logits.astype(jnp.float32)
    column = first + jnp.arange(logits.shape[-1])
    return jnp.where(column < vocab_size, values, -jnp.inf)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _cross_entropy(
    logits: Array, local_targets: Array, first: Array | int, vocab_size: int, comms: Comms, z_loss: float
) -> Array:
    return _forward(logits, local_targets, first, vocab_size, comms, z_loss)[0]


def _forward(
    logits: Array, local_targets: Array, first: Array | int, vocab_size: int, comms: Comms, z_loss: float
) -> tuple[Array, Any]:
    values = _masked(logits, first, vocab_size)
    top = comms.vocab_max(jnp.max(values, axis=-1))
    log_z = top + jnp.log(comms.vocab_sum(jnp.sum(jnp.exp(values - top[..., None]), axis=-1)))
    held = (local_targets >= 0) & (local_targets < logits.shape[-1])
    index = jnp.where(held, local_targets, 0)
    own = jnp.take_along_axis(logits, index[..., None], axis=-1)[..., 0].astype(jnp.float32)
    target_logit = comms.vocab_sum(jnp.where(held, own, 0.0))
    loss = log_z - target_logit + z_loss * jnp.square(log_z)
    # Else XLA may read the target's logit at the end of the step, since nothing needs it sooner, and keep all logits.
    loss, logits = jax.lax.optimization_barrier((loss, logits))
    return loss, (logits, index, held, first, log_z)


def _backward(vocab_size: int, comms: Comms, z_loss: float, residuals: Any, d_loss: Array) -> tuple[Any, ...]:
    logits, index, held, first, log_z = residuals
    probs = jnp.exp(_masked(logits, first, vocab_size) - log_z[..., None])
    one_hot = (jnp.arange(logits.shape[-1]) == index[..., None]) & held[..., None]
    gradient = probs * (1.0 + 2.0 * z_loss * log_z)[..., None] - one_hot
    return (gradient * d_loss[..., None]).astype(logits.dtype), None, None


_cross_entropy.defvjp(_forward, _backward)
