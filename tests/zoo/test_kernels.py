"""The kernel registry's choices, and 8-bit matmuls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscale import zoo
from jaxscale.errors import SpecError
from jaxscale.zoo.kernels import attention_kernel
from jaxscale.zoo.kernels.fp8 import FORWARD, fp8_matmul, quantised
from tests.zoo.cases import CASES
from tests.zoo.draw import quick_jit, random_params, random_tokens


@pytest.mark.parametrize(
    ("name", "platform", "seq_len", "expected"),
    [
        ("llama3", "cpu", 4096, ("xla", "ragged_dot")),
        ("llama3", "gpu", 4096, ("cudnn", "ragged_dot")),
        ("llama3", "tpu", 4096, ("splash", "megablox")),
        ("llama3", "tpu", 100, ("xla", "megablox")),  # no multiple of a vector register
        ("deepseek_v3", "gpu", 4096, ("xla", "ragged_dot")),  # heads of 12
        ("gemma2", "gpu", 4096, ("xla", "ragged_dot")),  # soft-capped scores
        ("gemma2", "tpu", 4096, ("splash", "megablox")),
        ("gpt_oss", "gpu", 4096, ("xla", "ragged_dot")),  # sinks
        ("mpt", "tpu", 4096, ("xla", "megablox")),  # ALiBi
    ],
)
def test_kernels_by_platform(name, platform, seq_len, expected):
    chosen = zoo.execution_for(CASES[name].shape, platform, seq_len=seq_len)
    assert (chosen.attention, chosen.grouped_matmul) == expected


def test_cudnn_takes_16_bit_numbers_only():
    assert zoo.execution_for(CASES["llama3"].shape, "gpu", seq_len=128, compute_bytes=4).attention == "xla"


def test_unknown_names_are_sentences():
    with pytest.raises(SpecError, match="platform='cuda' is not one of cpu, gpu, tpu"):
        zoo.execution_for(CASES["llama3"].shape, "cuda", seq_len=128)
    with pytest.raises(SpecError, match=r"attention='splosh'.*Did you mean splash"):
        attention_kernel("splosh")


def test_rounding_to_8_bits():
    """e4m3 has 3 bits after the point: at most 1/16 off, relative; the largest value is exact; rounding is stable."""
    x = jax.random.normal(jax.random.key(0), (64, 64))
    rounded = quantised(x, FORWARD)
    large = jnp.abs(x) > jnp.max(jnp.abs(x)) / 448 * 2**-6
    assert jnp.max(jnp.where(large, jnp.abs(rounded / x - 1), 0)) <= 1 / 16 + 1e-6
    np.testing.assert_allclose(jnp.max(jnp.abs(rounded)), jnp.max(jnp.abs(x)), rtol=1e-6)
    np.testing.assert_allclose(quantised(rounded, FORWARD), rounded, rtol=1e-6)
    assert not quantised(jnp.zeros((4, 4)), FORWARD).any()


def test_8_bit_matmul_and_gradients_are_near_the_exact_ones():
    x, w = jax.random.normal(jax.random.key(0), (2, 8, 256)), jax.random.normal(jax.random.key(1), (256, 64))
    target = jax.random.normal(jax.random.key(2), (2, 8, 64))

    def run(matmul):
        return jax.value_and_grad(lambda x, w: jnp.mean(matmul("btd,df->btf", x, w) * target), argnums=(0, 1))(x, w)

    (_, exact), (_, rounded) = run(jnp.einsum), run(fp8_matmul)
    for a, b in zip(rounded, exact, strict=True):
        assert jnp.linalg.norm(a - b) < 0.08 * jnp.linalg.norm(b)


def test_a_model_runs_in_8_bits():
    model = dataclasses.replace(CASES["llama3"].shape, num_layers=1)
    params, tokens = random_params(model), random_tokens(model, 1, 16)
    runs = [zoo.Execution(matmul=name) for name in ("native", "fp8")]
    exact, rounded = (quick_jit(lambda p, run=run: zoo.logits(model, p, tokens, execution=run))(params) for run in runs)
    error = jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact)
    assert 0 < error < 0.15
