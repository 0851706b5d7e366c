"""The sparse feed-forward: router, dispatch, experts, combine, and shared experts beside them.

Notation: b sequences, t tokens, n = b t, D d_model, F width of an expert, E experts, k experts a token, C rows of one
expert's buffer, ep the expert degree, m rows of all experts (n k, or E C).

Rows move by gathers in both directions: each of the n k assignments knows its row and each row its assignment, so the
backward pass needs no scatter.

DS-MoE's dense training (arXiv 2404.05567) is the shape with `experts_per_token=num_experts`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxscale.types import ModelShape, MoEShape
from jaxscale.zoo.kernels import grouped_matmul
from jaxscale.zoo.layers import FeedForward, Run, activate, linear, residual_scale
from jaxscale.zoo.params import EXPERT_DIM, param
from jaxscale.zoo.routing import Routing, RoutingStats, route, routing_stats

Array = jax.Array


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each assignment's row lies. An index past the end means none: a free row, or a dropped token."""

    rows: Array  # [n k] int32: row of each assignment
    sources: Array  # [m] int32: assignment of each row
    sizes: Array  # [E] int32: rows of each expert


def dropless_plan(routing: Routing, num_experts: int) -> Plan:
    """Rows sorted by expert, none dropped: m = n k."""
    flat = routing.experts.reshape(-1)
    sources = jnp.argsort(flat, stable=True)
    return Plan(jnp.argsort(sources), sources, _counts(flat, num_experts))


def capacity_plan(routing: Routing, num_experts: int, capacity: int) -> Plan:
    """Rows in buffers of `capacity` an expert: m = E C. First choices of all tokens go before second choices."""
    n, k = routing.experts.shape
    by_choice = routing.experts.T.reshape(-1)  # assignment j n + i: choice j of token i
    order = jnp.argsort(by_choice, stable=True)
    starts = jnp.cumsum(_counts(by_choice, num_experts)) - _counts(by_choice, num_experts)
    place = jnp.arange(n * k) - starts[by_choice[order]]  # within the expert, by priority
    row = jnp.where(place < capacity, by_choice[order] * capacity + place, num_experts * capacity)
    assignment = order % n * k + order // n
    nowhere = jnp.full(n * k, num_experts * capacity, jnp.int32)
    rows = nowhere.at[assignment].set(row.astype(jnp.int32))
    nothing = jnp.full(num_experts * capacity, n * k, jnp.int32)
    sources = nothing.at[rows].set(jnp.arange(n * k, dtype=jnp.int32), mode="drop")
    return Plan(rows, sources, jnp.full(num_experts, capacity, jnp.int32))


def _counts(flat: Array, num_experts: int) -> Array:
    return jnp.zeros(num_experts, jnp.int32).at[flat].add(1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def take_rows(x: Array, index: Array, inverse: Array, copies: int) -> Array:
    """Row index[i] // copies of `x` for each i, zero where the index is past the end.

    `inverse` is the place of each of the (rows of x) * copies assignments in the output, past the end for none; the
    backward pass gathers with it and sums the copies.
    """
    return _take(x, index, copies)


def _take(x: Array, index: Array, copies: int) -> Array:
    held = index < x.shape[0] * copies
    return jnp.where(held[:, None], x[jnp.where(held, index, 0) // copies], 0)


def _take_forward(x: Array, index: Array, inverse: Array, copies: int) -> tuple[Array, Array]:
    return _take(x, index, copies), inverse


def _take_backward(copies: int, inverse: Array, d_rows: Array) -> tuple[Any, ...]:
    d_copies = _take(d_rows, inverse, 1)
    return d_copies.reshape(-1, copies, d_rows.shape[-1]).sum(axis=1).astype(d_rows.dtype), None, None


take_rows.defvjp(_take_forward, _take_backward)


def expert_capacity(num_tokens: int, moe: MoEShape, capacity_factor: float) -> int:
    """Rows of an expert's buffer: the mean load times the factor, and never more than every token once."""
    return min(num_tokens, math.ceil(num_tokens * moe.experts_per_token * capacity_factor / moe.num_experts))


class Experts(nnx.Module):
    """The routed experts' weights, stacked."""

    def __init__(self, shape: ModelShape, moe: MoEShape, *, rngs: nnx.Rngs):
        self.shape = shape
        e, d, f = moe.num_experts, shape.d_model, moe.expert_d_ff
        columns, dims = (e, d, f), (EXPERT_DIM, "d_model", "expert_d_ff")
        self.gate = param(rngs, columns, dims, fan_in=d) if shape.gated_mlp else None
        self.up = param(rngs, columns, dims, fan_in=d)
        self.down = param(
            rngs, (e, f, d), (EXPERT_DIM, "expert_d_ff", "d_model"), fan_in=f, scale=residual_scale(shape)
        )
        bias, bias_dims = moe.expert_bias, (EXPERT_DIM, "expert_d_ff")
        self.gate_bias = param(rngs, (e, f), bias_dims) if bias and shape.gated_mlp else None
        self.up_bias = param(rngs, (e, f), bias_dims) if bias else None
        # Whole on every tensor rank while the rows it is added to are partial sums: each rank adds its share.
        self.down_bias = param(rngs, (e, d), (EXPERT_DIM, "d_model"), tensor_grad="always") if bias else None

    def buffers(self, x: Array, run: Run) -> Array:
        """Buffers [E/ep, rows, D] -> the same, partial over the tensor axis."""

        def apply(y: Array, weight: nnx.Param, bias: Array | None) -> Array:
            out = linear(y, weight, "eci,eio->eco", run)
            return out if bias is None else out + bias[:, None]

        return self._feed_forward(x, apply, run)

    def ragged(self, x: Array, sizes: Array, run: Run) -> Array:
        """Rows sorted by expert [m, D] -> the same, partial over the tensor axis."""
        kernel = grouped_matmul(run.execution.grouped_matmul)
        owner = jnp.repeat(jnp.arange(sizes.shape[0]), sizes, total_repeat_length=x.shape[0])

        def apply(y: Array, weight: nnx.Param, bias: Array | None) -> Array:
            out = kernel(y, weight[...].astype(y.dtype), sizes)
            return out if bias is None else out + bias[owner]

        return self._feed_forward(x, apply, run)

    def _feed_forward(self, x: Array, apply: Callable[[Array, nnx.Param, Array | None], Array], run: Run) -> Array:
        def cast(bias: nnx.Param | None, share: int = 1) -> Array | None:
            return None if bias is None else (bias[...] / share).astype(x.dtype)

        gate = None
        if self.gate is not None:
            gate = checkpoint_name(apply(x, self.gate, cast(self.gate_bias)), "expert_gate")
        up = checkpoint_name(apply(x, self.up, cast(self.up_bias)), "expert_up")
        hidden = checkpoint_name(activate(self.shape, gate, up), "expert_act")
        down_bias = cast(self.down_bias, run.comms.tensor_size)
        return checkpoint_name(apply(hidden, self.down, down_bias), "expert_down")


class MoE(nnx.Module):
    """A mixture-of-experts layer."""

    def __init__(self, shape: ModelShape, *, rngs: nnx.Rngs):
        assert shape.moe is not None, "built for sparse layers only"
        self.shape, self.moe = shape, shape.moe
        moe, d = shape.moe, shape.d_model
        self.router = param(rngs, (d, moe.num_experts), ("d_model", "routes"), fan_in=d, tensor_grad="always")
        self.router_bias = _router_bias(moe, rngs) if moe.router_bias else None
        self.experts = Experts(shape, moe, rngs=rngs)
        self.shared = _shared_experts(shape, moe, rngs) if moe.num_shared_experts else None
        gated = self.shared is not None and moe.shared_expert_gate
        self.shared_router = param(rngs, (d, 1), ("d_model", "one"), fan_in=d, tensor_grad="always") if gated else None

    def __call__(self, x: Array, run: Run) -> tuple[Array, RoutingStats]:
        """[b, t, D] -> (residual stream, statistics)."""
        rows = x.reshape(-1, x.shape[-1])
        router = self.router[...].astype(jnp.float32)
        logits = jnp.dot(rows.astype(jnp.float32), router, precision=jax.lax.Precision.HIGHEST)
        logits = checkpoint_name(logits, "router")
        bias = None if self.router_bias is None else self.router_bias[...].astype(jnp.float32)
        routing, scores = route(self.moe, logits, bias)
        stats = routing_stats(self.moe, routing, scores, logits, run.comms)
        routed, dropped = self._routed(rows, routing, run)
        y = routed.reshape(x.shape)
        if self.shared is not None:
            y = y + self._shared(x, run)
        return run.comms.leave_row(y), replace(stats, dropped=dropped)

    def _routed(self, rows: Array, routing: Routing, run: Run) -> tuple[Array, Array]:
        """Tokens through their experts: [n, D] -> (partial sums [n, D], dropped assignments)."""
        moe, k, factor = self.moe, self.moe.experts_per_token, run.execution.capacity_factor
        ragged = not factor and run.comms.expert_size == 1
        if ragged:
            plan = dropless_plan(routing, moe.num_experts)
        else:
            capacity = expert_capacity(rows.shape[0], moe, factor) if factor else rows.shape[0]
            plan = capacity_plan(routing, moe.num_experts, capacity)
        sent = checkpoint_name(take_rows(rows, plan.sources, plan.rows, k), "dispatch")
        if ragged:
            out = self.experts.ragged(sent, plan.sizes, run)
        else:
            buffers = run.comms.dispatch(sent.reshape(moe.num_experts, -1, sent.shape[-1]))
            out = run.comms.combine(self.experts.buffers(buffers, run)).reshape(sent.shape)
        back = take_rows(out, plan.rows, plan.sources, 1).reshape(-1, k, rows.shape[-1])
        combined = jnp.einsum("nkd,nk->nd", back, routing.weights.astype(back.dtype))
        dropped = jnp.sum(plan.rows >= sent.shape[0]).astype(jnp.float32)
        return checkpoint_name(combined, "combine"), dropped

    def _shared(self, x: Array, run: Run) -> Array:
        assert self.shared is not None, "called for models with shared experts"
        y = checkpoint_name(self.shared.partial(x, run), "shared_down")
        if self.shared_router is None:
            return y
        gate = checkpoint_name(linear(x, self.shared_router, "btd,do->bto", run), "shared_router")
        return y * jax.nn.sigmoid(gate)


def _router_bias(moe: MoEShape, rngs: nnx.Rngs) -> nnx.Param:
    """Learned with softmax routing; with sigmoid routing it only steers the choice and `balanced_bias` moves it."""
    trained = moe.router == "softmax"
    grad = "always" if trained else "never"
    return param(rngs, (moe.num_experts,), ("routes",), tensor_grad=grad, trained=trained)


def _shared_experts(shape: ModelShape, moe: MoEShape, rngs: nnx.Rngs) -> FeedForward:
    width = moe.num_shared_experts * moe.shared_expert_d_ff
    return FeedForward(shape, width=width, dim="shared_d_ff", prefix="shared", bias=False, rngs=rngs)
