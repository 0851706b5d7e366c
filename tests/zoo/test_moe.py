"""Mixture of experts: routing, dispatch with and without capacity, balancing, grouped matmuls."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale import zoo
from jaxscale.errors import SpecError
from jaxscale.types import MoEShape
from jaxscale.zoo import moe as M
from jaxscale.zoo.kernels.registry import megablox, ragged_dot
from jaxscale.zoo.routing import Routing, route, routing_stats
from tests.zoo.cases import shape
from tests.zoo.draw import quick_jit, random_params, random_tokens

EIGHT = MoEShape(num_experts=8, experts_per_token=2, expert_d_ff=16)
GROUPED = dataclasses.replace(EIGHT, num_expert_groups=4, groups_per_token=2)


def router_logits(tokens=64, experts=8, seed=0):
    return 2.0 * jax.random.normal(jax.random.key(seed), (tokens, experts))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), capacity=st.integers(1, 12))
def test_buffers_hold_first_choices_first(seed, capacity):
    """Written out: walk over choices, then tokens; a full buffer drops."""
    routing, _ = route(EIGHT, router_logits(12, seed=seed), None)
    plan = M.capacity_plan(routing, 8, capacity)
    experts, free = np.asarray(routing.experts), np.zeros(8, int)
    expected = np.full((12, 2), 8 * capacity)
    for choice in range(2):
        for token in range(12):
            expert = experts[token, choice]
            if free[expert] < capacity:
                expected[token, choice] = expert * capacity + free[expert]
                free[expert] += 1
    np.testing.assert_array_equal(np.asarray(plan.rows).reshape(12, 2), expected)
    for row, source in enumerate(np.asarray(plan.sources)):
        assert source == 24 or plan.rows[source] == row


def test_rows_sorted_by_expert_drop_nothing():
    routing, _ = route(EIGHT, router_logits(), None)
    plan = M.dropless_plan(routing, 8)
    np.testing.assert_array_equal(np.sort(plan.rows), np.arange(128))
    owners = np.asarray(routing.experts).reshape(-1)[plan.sources]
    np.testing.assert_array_equal(owners, np.repeat(np.arange(8), plan.sizes))


@pytest.mark.parametrize("copies", [1, 2])
def test_taking_rows_has_the_gradient_of_indexing(copies):
    x = jax.random.normal(jax.random.key(0), (6, 3))
    inverse = jnp.asarray(np.random.default_rng(0).permutation(6 * copies + 2)[: 6 * copies])
    index = jnp.full(6 * copies + 2, 6 * copies).at[inverse].set(jnp.arange(6 * copies))
    weights = jnp.sin(jnp.arange((6 * copies + 2) * 3.0)).reshape(-1, 3)

    def indexed(x):
        padded = jnp.concatenate([jnp.repeat(x, copies, axis=0), jnp.zeros((1, 3))])
        return jnp.sum(padded[index] * weights)

    def taken(x):
        return jnp.sum(M.take_rows(x, index, inverse, copies) * weights)

    np.testing.assert_allclose(taken(x), indexed(x), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(taken)(x), jax.grad(indexed)(x), rtol=1e-6)


def test_capacity_is_the_mean_load_times_the_factor():
    assert M.expert_capacity(1024, EIGHT, 1.25) == 320
    assert M.expert_capacity(1024, EIGHT, 100.0) == 1024, "a token chooses an expert once at most"


@pytest.mark.parametrize("changes", [{}, {"router_prototypes": True}, {"experts_per_token": 8}], ids=str)
def test_ample_capacity_equals_dropless(changes):
    """Also with M6-T's prototypes, and with every expert for every token (DS-MoE's dense training)."""
    model = shape("qwen3_moe", num_layers=1, moe=dataclasses.replace(EIGHT, **changes))
    params, tokens = random_params(model), random_tokens(model, 2, 8)

    def run(factor):
        def loss(params):
            x, stats = zoo.forward(model, params, tokens, execution=zoo.Execution(capacity_factor=factor))
            return jnp.sum(jnp.sin(x)), (x, stats[0][0])

        return quick_jit(jax.grad(loss, has_aux=True))(params)

    grads, (x, stats) = run(0.0)
    ample_grads, (ample, ample_stats) = run(8.0)
    np.testing.assert_allclose(x, ample, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), grads, ample_grads)
    assert stats.dropped == ample_stats.dropped == 0
    if not changes:
        assert run(0.5)[1][1].dropped > 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), router=st.sampled_from(["softmax", "sigmoid"]))
def test_groups_limit_where_a_token_goes(seed, router):
    moe = dataclasses.replace(GROUPED, router=router, experts_per_token=4, groups_per_token=2)
    routing, _ = route(moe, router_logits(32, seed=seed), None)
    groups = np.asarray(routing.experts) // 2
    assert all(len(set(row)) == 2 for row in groups)
    assert all(len(set(row)) == 4 for row in np.asarray(routing.experts))


def test_prototypes_choose_one_expert_of_each_share():
    moe = dataclasses.replace(EIGHT, router_prototypes=True)
    routing, _ = route(moe, router_logits(), None)
    np.testing.assert_array_equal(np.asarray(routing.experts) // 4, np.broadcast_to([0, 1], (64, 2)))
    with pytest.raises(SpecError, match="router_prototypes"):
        dataclasses.replace(EIGHT, router_prototypes=True, experts_per_token=3)


def test_weights_are_renormalised_and_scaled():
    moe = dataclasses.replace(EIGHT, router="sigmoid", routed_scale=2.5)
    routing, _ = route(moe, router_logits(), None)
    np.testing.assert_allclose(jnp.sum(routing.weights, axis=-1), 2.5, rtol=1e-5)


def test_balance_loss_is_one_a_token_when_balanced():
    """Switch (arXiv 2101.03961), section 2.2: uniform routing has loss alpha * 1."""
    experts = jnp.arange(64 * 2).reshape(64, 2) % 8
    even = routing_stats(
        EIGHT, Routing(experts, jnp.ones((64, 2))), jnp.full((64, 8), 1 / 8), jnp.zeros((64, 8)), zoo.LocalComms()
    )
    np.testing.assert_allclose(even.aux_loss, 64.0, rtol=1e-6)
    np.testing.assert_allclose(even.load, 16.0)
    np.testing.assert_allclose(even.z_loss, 64 * np.log(8) ** 2, rtol=1e-6)
    logits = router_logits() + jnp.arange(8.0)
    routing, scores = route(EIGHT, logits, None)
    assert routing_stats(EIGHT, routing, scores, logits, zoo.LocalComms()).aux_loss > 64.0


def test_balancing_bias_evens_the_load():
    """arXiv 2408.15664, algorithm 1: the bias steers the choice and never the weights."""
    moe = dataclasses.replace(EIGHT, router="sigmoid", router_bias=True)
    logits, bias = router_logits(512) + jnp.linspace(-1.5, 1.5, 8), jnp.zeros(8)

    def load(bias):
        routing, _ = route(moe, logits, bias)
        return jnp.zeros(8).at[routing.experts.reshape(-1)].add(1.0)

    first = load(bias)
    for _ in range(200):
        bias = zoo.balanced_bias(bias, load(bias), rate=0.01)
    assert jnp.max(load(bias)) < 1.15 * jnp.mean(first) < jnp.max(first)
    gradient = jax.grad(lambda b: jnp.sum(route(moe, logits, b)[0].weights))(bias)
    assert not gradient.any()


def test_grouped_matmul_kernels_agree():
    """The Pallas kernel, interpreted, against XLA's; an empty group and a row count that is no multiple of a tile."""
    rows = jax.random.normal(jax.random.key(0), (50, 128))
    weights = jax.random.normal(jax.random.key(1), (4, 128, 128)) / 11.0
    sizes = jnp.asarray([13, 0, 30, 7], jnp.int32)

    def run(kernel):
        def loss(rows, weights):
            out = kernel(rows, weights, sizes)
            return jnp.sum(jnp.sin(out)), out

        grads, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(rows, weights)
        return [out, *grads]

    for a, b in zip(run(functools.partial(megablox, interpret=True)), run(ragged_dot), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)
