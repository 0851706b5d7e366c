"""The loss against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscale import zoo
from tests.zoo.cases import CASES, VOCAB
from tests.zoo.draw import quick_jit, random_params


def draw(name, *, vocab_multiple=1, dtype=jnp.float32):
    model = CASES[name].shape
    params = random_params(model, vocab_multiple=vocab_multiple)
    stream = jax.random.normal(jax.random.key(1), (2, 8, model.d_model), dtype)
    targets = jax.random.randint(jax.random.key(2), (2, 8), 0, VOCAB)
    weights = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, 8)))
    return model, params, stream, targets, weights


def formula(model, head, embedding, stream, targets, weights, z_loss):
    logits = zoo.head_logits(model, head, embedding, stream, comms=zoo.LocalComms())[..., :VOCAB].astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    loss = log_z - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] + z_loss * log_z**2
    return jnp.sum(loss * weights)


@pytest.mark.parametrize("vocab_multiple", [1, 16])
@pytest.mark.parametrize("name", ["llama3", "gemma2"])  # with a head of its own; tied and soft-capped
def test_loss_and_gradients_are_those_of_the_formula(name, vocab_multiple):
    model, params, stream, targets, weights = draw(name, vocab_multiple=vocab_multiple)

    def ours(head, embedding, stream):
        loss = zoo.head_loss(model, head, embedding, stream, targets, weights, comms=zoo.LocalComms(), z_loss=1e-2)
        assert loss.dtype == jnp.float32
        return loss

    def theirs(head, embedding, stream):
        return formula(model, head, embedding, stream, targets, weights, 1e-2)

    arguments = (params["head"], params["embedding"], stream)
    loss, grads = quick_jit(jax.value_and_grad(ours, argnums=(0, 1, 2)))(*arguments)
    expected, expected_grads = quick_jit(jax.value_and_grad(theirs, argnums=(0, 1, 2)))(*arguments)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), grads, expected_grads)


def test_softmax_is_float32_under_bfloat16():
    """With all logits equal the loss is log V to float32's precision, which bfloat16 (8 bits) cannot hold."""
    model, params, stream, targets, _ = draw("llama3", dtype=jnp.bfloat16)
    flat = jax.tree.map(jnp.zeros_like, params["head"])
    loss = zoo.head_loss(model, flat, params["embedding"], stream, targets, jnp.ones((2, 8)), comms=zoo.LocalComms())
    np.testing.assert_allclose(loss / 16, np.log(VOCAB), rtol=1e-6)
