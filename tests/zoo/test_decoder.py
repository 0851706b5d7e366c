"""The whole model: packing, remat, bfloat16, positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale import zoo
from jaxscale.types import REMAT_POLICIES, RopeShape
from jaxscale.zoo.rope import apply_rope, rope_table
from tests.zoo.cases import CASES, shape
from tests.zoo.draw import quick_jit, random_params, random_tokens


def draw(name, **changes):
    model = dataclasses.replace(CASES[name].shape, **changes)
    return model, random_params(model)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "mpt", "deepseek_v3"])
def test_packed_documents_do_not_see_each_other(name):
    model, params = draw(name, num_layers=2)
    tokens = random_tokens(model, 1, 16)
    segments = jnp.asarray([[0] * 8 + [1] * 8])
    packed = quick_jit(lambda p, t: zoo.logits(model, p, t, segment_ids=segments))(params, tokens)
    alone = quick_jit(lambda p, t: zoo.logits(model, p, t))(params, tokens.reshape(2, 8))
    np.testing.assert_allclose(packed.reshape(alone.shape), alone, atol=2e-5)


def test_positions_restart_with_each_document():
    segments = jnp.asarray([[3, 3, 3, 1, 1, 7], [0, 0, 0, 0, 0, 0]])
    expected = [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]
    np.testing.assert_array_equal(zoo.document_positions(6, segments), expected)


def test_remat_policies_have_the_same_gradients():
    model, params = draw("mixtral", num_layers=1)
    kind = zoo.layer_kinds(model)[0]
    body = zoo.layer_body(model, kind, comms=zoo.LocalComms(), execution=zoo.Execution())
    layer = jax.tree.map(lambda x: x[0], params["segments"][0][0])
    x = jax.random.normal(jax.random.key(1), (2, 8, model.d_model))
    context = zoo.make_context(model, zoo.document_positions(8))

    def gradients(body):
        return quick_jit(jax.grad(lambda layer, x: jnp.sum(jnp.sin(body(layer, x, context)[0]))))(layer, x)

    expected = gradients(body)
    for policy in ("none", "attention", "full"):
        saved = jax.checkpoint_policies.save_only_these_names(*REMAT_POLICIES[policy].saved)
        got = gradients(jax.checkpoint(body, policy=saved))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), got, expected)


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt2", "deepseek_v3", "gpt_oss"])
def test_bfloat16_activations_stay_bfloat16(name):
    model, params = draw(name)
    tokens = jax.ShapeDtypeStruct((2, 16), jnp.int32)
    x, _ = jax.eval_shape(lambda p, t: zoo.forward(model, p, t, dtype=jnp.bfloat16), params, tokens)
    assert x.dtype == jnp.bfloat16


def test_bfloat16_is_near_float32():
    model, params = draw("llama3")
    tokens = random_tokens(model, 2, 16)
    exact, short = (
        quick_jit(lambda p, dtype=dtype: zoo.logits(model, p, tokens, dtype=dtype))(params)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert jnp.linalg.norm(exact - short.astype(jnp.float32)) < 0.03 * jnp.linalg.norm(exact)


@settings(max_examples=20, deadline=None)
@given(
    offset=st.integers(0, 1000),
    fraction=st.sampled_from([0.5, 1.0]),
    interleaved=st.booleans(),
    scaling=st.sampled_from(["none", "linear", "llama3"]),
)
def test_rotated_scores_depend_on_distance_only(offset, fraction, interleaved, scaling):
    """RoFormer (arXiv 2104.09864), eq. 16."""
    rope = RopeShape(fraction=fraction, interleaved=interleaved, scaling=scaling, factor=4.0, original_max_seq_len=16)
    model = shape("llama", rope=rope)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 6, 1, model.head_dim))

    def scores(positions):
        table = rope_table(model, positions, seq_len=8)
        return jnp.einsum("btnh,bsnh->bts", apply_rope(q, table), apply_rope(k, table))

    positions = jnp.arange(6)[None]
    np.testing.assert_allclose(scores(positions + offset), scores(positions), atol=1e-3)
