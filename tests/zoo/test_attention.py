"""Attention kernels against plain softmax written out, and blocks against the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscale.errors import SpecError
from jaxscale.zoo.kernels import plain as A
from jaxscale.zoo.kernels.flash import cudnn_attention, name_residuals, splash_attention
from jaxscale.zoo.rope import alibi_slopes
from tests.zoo.draw import quick_jit

B, T, N, K, H = 2, 16, 4, 2, 8


def draw(*, t=T, n=N, k=K, h=H, hv=H, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return (
        jax.random.normal(keys[0], (B, t, n, h)),
        jax.random.normal(keys[1], (B, t, k, h)),
        jax.random.normal(keys[2], (B, t, k, hv)),
    )


def plain_inputs(t=T, **extra):
    positions = jnp.arange(t, dtype=jnp.int32)[None]
    return A.AttentionInputs(q_positions=positions, kv_positions=positions, **extra)


def written_out(q, k, v, inputs, spec):
    """Softmax attention as a formula, differentiated by JAX."""
    group = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) * spec.scale
    if spec.softcap:
        scores = spec.softcap * jnp.tanh(scores / spec.softcap)
    distance = (inputs.q_positions[:, :, None] - inputs.kv_positions[:, None, :])[:, None]
    if inputs.slopes is not None:
        scores = scores - inputs.slopes[:, None, None] * distance
    seen = distance >= 0
    if spec.window:
        seen &= distance < spec.window
    if inputs.q_segments is not None:
        seen &= (inputs.q_segments[:, :, None] == inputs.kv_segments[:, None, :])[:, None]
    scores = jnp.where(seen, scores, -jnp.inf)
    if inputs.sinks is not None:
        sinks = jnp.broadcast_to(inputs.sinks[:, None, None], (*scores.shape[:3], 1))
        scores = jnp.concatenate([scores, sinks], axis=-1)
    probs = jax.nn.softmax(scores)[..., : k.shape[1]]
    return jnp.einsum("bnts,bsnh->btnh", probs, v)


SEGMENTS = np.repeat(np.asarray([[0, 0, 1, 2], [0, 1, 1, 1]], np.int32), T // 4, axis=1)
VARIANTS = {
    "causal": ({}, {}),
    "window": ({"window": 5}, {}),
    "softcap": ({"softcap": 1.5}, {}),
    "packed": ({}, {"q_segments": SEGMENTS, "kv_segments": SEGMENTS}),
    "packed_window": ({"window": 3}, {"q_segments": SEGMENTS, "kv_segments": SEGMENTS}),
    "alibi": ({}, {"slopes": alibi_slopes(N)}),
    "sinks": ({"window": 6}, {"sinks": np.linspace(-1.0, 1.0, N, dtype=np.float32)}),
}


def value_and_gradients(kernel, q, k, v, inputs, spec):
    def loss(q, k, v, sinks):
        given = A.AttentionInputs(**{f: getattr(inputs, f) for f in INPUT_FIELDS} | {"sinks": sinks})
        out = kernel(q, k, v, given, spec)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))), out

    argnums = (0, 1, 2) if inputs.sinks is None else (0, 1, 2, 3)
    grads, out = quick_jit(jax.grad(loss, argnums=argnums, has_aux=True))(q, k, v, inputs.sinks)
    return [out, *grads]


INPUT_FIELDS = ("q_positions", "kv_positions", "q_segments", "kv_segments", "sinks", "slopes")


def assert_same(left, right, tolerance=1e-5):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("chunk", [T, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_plain_attention_and_its_gradient(variant, chunk, monkeypatch):
    monkeypatch.setattr(A, "QUERY_CHUNK", chunk)
    options, extra = VARIANTS[variant]
    spec, inputs = A.AttentionSpec(scale=0.3, **options), plain_inputs(**extra)
    q, k, v = draw(hv=12)
    expected = value_and_gradients(written_out, q, k, v, inputs, spec)
    assert_same(value_and_gradients(A.plain_attention, q, k, v, inputs, spec), expected)


def test_order_of_tokens_does_not_matter():
    """A context shard may hold its tokens in any order: positions decide."""
    spec, (q, k, v) = A.AttentionSpec(scale=0.3, window=7), draw()
    order = np.random.default_rng(0).permutation(T)
    straight = A.plain_attention(q, k, v, plain_inputs(), spec)
    positions = jnp.asarray(order, jnp.int32)[None]
    shuffled = A.AttentionInputs(q_positions=positions, kv_positions=positions)
    assert_same([A.plain_attention(q[:, order], k[:, order], v[:, order], shuffled, spec)], [straight[:, order]], 1e-6)


def test_ring_of_blocks_is_the_whole():
    """Keys may come in blocks: merged forward, and backward block by block from the merged log-sum-exp."""
    spec, (q, k, v) = A.AttentionSpec(scale=0.3), draw()
    halves = [slice(0, T // 2), slice(T // 2, T)]
    inputs = [
        A.AttentionInputs(q_positions=plain_inputs().q_positions, kv_positions=plain_inputs().kv_positions[:, half])
        for half in halves
    ]
    parts = [A.block_forward(q, k[:, h], v[:, h], i, spec) for h, i in zip(halves, inputs, strict=True)]
    out, lse = A.merge_blocks(*parts[0], *parts[1])
    whole, pullback = jax.vjp(lambda *x: A.plain_attention(*x, plain_inputs(), spec), q, k, v)
    assert_same([out], [whole])

    d_out = jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
    grads = [
        A.block_backward(q, k[:, h], v[:, h], i, spec, lse, A.row_delta(out, d_out), d_out)
        for h, i in zip(halves, inputs, strict=True)
    ]
    d_q = grads[0][0] + grads[1][0]
    d_k, d_v = (jnp.concatenate([grads[0][j], grads[1][j]], axis=1) for j in (1, 2))
    assert_same([d_q, d_k, d_v], pullback(d_out))


def test_a_row_without_keys_adds_nothing():
    spec, (q, k, v) = A.AttentionSpec(scale=0.3), draw()
    later = A.AttentionInputs(q_positions=plain_inputs().q_positions, kv_positions=plain_inputs().kv_positions + T)
    nothing = A.block_forward(q, k, v, later, spec)
    something = A.block_forward(q, k, v, plain_inputs(), spec)
    assert_same(A.merge_blocks(*something, *nothing), something, 1e-6)


def test_chunks_are_large_divisors():
    assert [A._query_chunk(t) for t in (16, 512, 1024, 1000, 1536, 1031)] == [16, 512, 512, 500, 512, 1031]


@pytest.mark.parametrize("variant", ["causal", "window", "softcap", "packed", "sinks"])
def test_splash_kernel_equals_plain(variant):
    """The TPU kernel, interpreted."""
    t = 256
    options, extra = VARIANTS[variant]
    if "q_segments" in extra:
        ids = jnp.repeat(SEGMENTS, t // T, axis=1)
        extra = {"q_segments": ids, "kv_segments": ids}
    spec, inputs = A.AttentionSpec(scale=0.2, **options), plain_inputs(t, **extra)
    q, k, v = draw(t=t, h=128, hv=128, n=2, k=1)
    if inputs.sinks is not None:
        inputs = plain_inputs(t, sinks=jnp.asarray([-1.0, 1.0]))
    expected = value_and_gradients(A.plain_attention, q, k, v, inputs, spec)
    kernel = functools.partial(splash_attention, interpret=True)
    assert_same(value_and_gradients(kernel, q, k, v, inputs, spec), expected, 2e-4)


def test_kernels_refuse_what_they_cannot_do():
    q, k, v = draw()
    alibi = plain_inputs(slopes=jnp.asarray(alibi_slopes(N)))
    for kernel in (cudnn_attention, splash_attention):
        with pytest.raises(SpecError, match="alibi"):
            kernel(q, k, v, alibi, A.AttentionSpec(scale=1.0))
    with pytest.raises(SpecError, match="softcap"):
        cudnn_attention(q, k, v, plain_inputs(), A.AttentionSpec(scale=1.0, softcap=2.0))
    with pytest.raises(SpecError, match="multiples of 128"):
        splash_attention(q, k, v, plain_inputs(), A.AttentionSpec(scale=1.0))


def test_named_residuals_spare_the_kernel_in_backward():
    """Under a policy that saves the name, the kernel's forward runs once; with nothing saved, twice."""

    @jax.custom_vjp
    def kernel(q, k):
        return _forward(q, k)[0]

    def _forward(q, k):
        statistic = jax.lax.reduce_precision(jnp.sum(q * k, axis=-1), 8, 23)  # stands for the fused kernel
        return q * jnp.exp(-statistic[..., None]), (q, k, statistic)

    def _backward(saved, d_out):
        _, k, statistic = saved
        return d_out * jnp.exp(-statistic[..., None]), k

    kernel.defvjp(_forward, _backward)

    def loss(q, k, names):
        policy = jax.checkpoint_policies.save_only_these_names(*names)
        body = jax.checkpoint(lambda q, k: name_residuals(kernel, "attention")(q * 2.0, k), policy=policy)
        return jnp.sum(body(q, k))

    x = jnp.ones((3, 4))
    runs = {
        names: str(jax.make_jaxpr(jax.grad(functools.partial(loss, names=names), argnums=(0, 1)))(x, x)).count(
            "reduce_precision["
        )
        for names in (("attention",), ())
    }
    assert runs == {("attention",): 1, (): 2}


def test_alibi_slopes_of_the_paper():
    """arXiv 2108.12409, section 3: 8 heads have 1/2, 1/4, ..., 1/256."""
    np.testing.assert_allclose(alibi_slopes(8), 0.5 ** np.arange(1, 9))
