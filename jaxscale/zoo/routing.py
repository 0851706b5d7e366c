"""Which experts a token goes to, and what is kept about it.

Notation: n tokens, E experts, k experts a token; scores and weights are float32.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxscale.types import MoEShape
from jaxscale.zoo.comms import Comms

Array = jax.Array


@dataclass(frozen=True, slots=True)
class Routing:
    """Of every token, its experts and their weights."""

    experts: Array  # [n, k] int32
    weights: Array  # [n, k] float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingStats:
    """What a mixture-of-experts layer reports, float32; alike on every tensor rank.

    `aux_loss` and `z_loss` are sums over this shard's tokens: divide by the tokens of the step, as for the loss.
    """

    aux_loss: Array  # load-balancing loss, one a token when balanced
    z_loss: Array  # squared log-sum-exp of the router's logits (ST-MoE, arXiv 2202.08906, eq. 5)
    load: Array  # [E] tokens sent to each expert, summed over all batch and context shards
    dropped: Array  # tokens x k of this shard that found their expert's buffer full


def route(moe: MoEShape, logits: Array, bias: Array | None) -> tuple[Routing, Array]:
    """Choose experts from router logits [n, E]; returns the routing and the scores of all experts [n, E]."""
    if bias is not None and moe.router == "softmax":
        logits = logits + bias
    if moe.router_prototypes:
        return _route_prototypes(moe, logits)
    scores = jax.nn.softmax(logits) if moe.router == "softmax" else jax.nn.sigmoid(logits)
    preference = scores if bias is None or moe.router == "softmax" else scores + jax.lax.stop_gradient(bias)
    if moe.num_expert_groups > 1:
        preference = jnp.where(_group_mask(moe, preference), preference, -jnp.inf)
    _, experts = jax.lax.top_k(preference, moe.experts_per_token)
    weights = jnp.take_along_axis(scores, experts, axis=-1)
    if moe.renormalize_top_k:
        weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)
    return Routing(experts, weights * moe.routed_scale), scores


def _group_mask(moe: MoEShape, preference: Array) -> Array:
    """Experts of the best groups: bool [n, E].

    A group counts as its best expert (DeepSeek-V2, arXiv 2405.04434, section 2.1.2) or, with sigmoid routing, as the
    sum of its two best (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
    """
    n, num_experts = preference.shape
    grouped = preference.reshape(n, moe.num_expert_groups, -1)
    if moe.router == "softmax":
        value = jnp.max(grouped, axis=-1)
    else:
        value = jnp.sum(jax.lax.top_k(grouped, min(2, grouped.shape[-1]))[0], axis=-1)
    _, groups = jax.lax.top_k(value, moe.groups_per_token)
    chosen = jnp.any(groups[:, :, None] == jnp.arange(moe.num_expert_groups), axis=1)
    return jnp.repeat(chosen, num_experts // moe.num_expert_groups, axis=-1)


def _route_prototypes(moe: MoEShape, logits: Array) -> tuple[Routing, Array]:
    """Expert prototyping (M6-T, arXiv 2105.15082, section 3.3): k routers, each top-1 over its own E/k experts."""
    grouped = logits.reshape(logits.shape[0], moe.experts_per_token, -1)
    scores = jax.nn.softmax(grouped, axis=-1)
    choice = jnp.argmax(scores, axis=-1)
    weights = jnp.take_along_axis(scores, choice[..., None], axis=-1)[..., 0]
    experts = choice + jnp.arange(moe.experts_per_token) * grouped.shape[-1]
    routing = Routing(experts.astype(jnp.int32), weights * moe.routed_scale)
    return routing, scores.reshape(logits.shape) / moe.experts_per_token


def routing_stats(moe: MoEShape, routing: Routing, scores: Array, logits: Array, comms: Comms) -> RoutingStats:
    """Load and auxiliary losses.

    The balance loss is E * sum_e f_e P_e (Switch, arXiv 2101.03961, eq. 4-6): f_e the share of assignments that expert
    e gets over all shards, P_e the mean of its normalised score. Every tensor rank computes it alike, so each
    contributes its share of the gradient.
    """
    counts = jnp.zeros(moe.num_experts, jnp.float32).at[routing.experts.reshape(-1)].add(1.0)
    load = jax.lax.stop_gradient(comms.load_sum(counts))
    normalised = scores / jnp.sum(scores, axis=-1, keepdims=True)
    balance = moe.num_experts * jnp.sum(load / jnp.sum(load) * jnp.sum(normalised, axis=0))
    router_z = jnp.sum(jnp.square(jax.nn.logsumexp(logits, axis=-1)))
    return RoutingStats(
        aux_loss=_share_of_gradient(balance, comms.tensor_size),
        z_loss=_share_of_gradient(router_z, comms.tensor_size),
        load=load,
        dropped=jnp.zeros((), jnp.float32),
    )


def _share_of_gradient(x: Array, ranks: int) -> Array:
    """The value of `x` with 1/ranks of its gradient, for what `ranks` devices compute alike and sum in backward."""
    return x if ranks == 1 else jax.lax.stop_gradient(x) * (1 - 1 / ranks) + x / ranks


def balanced_bias(bias: Array, load: Array, *, rate: float = 1e-3) -> Array:
    """Next routing bias [..., E]: up for experts below the mean load, down for those above.

    Auxiliary-loss-free balancing (arXiv 2408.15664, algorithm 1).
    """
    return bias + rate * jnp.sign(jnp.mean(load, axis=-1, keepdims=True) - load)
