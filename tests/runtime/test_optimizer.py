"""Every optimizer on shards updates as optax does on whole matrices, factored and orthogonalised ones too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxscale.runtime import build_step
from jaxscale.runtime.canonical import from_canonical, to_canonical
from jaxscale.runtime.optimizer import newton_schulz, round_stochastically
from jaxscale.runtime.placement.params import is_plan
from jaxscale.runtime.step import map_shards
from jaxscale.types import Layout, ModelShape, MoEShape, Workload, optimizer_named, parse_layout, precision_named

# Wide enough for Adafactor to factor its statistics, which it does from 128 on; a vocabulary that needs padding.
SHAPE = ModelShape(
    name="wide", num_layers=3, d_model=128, num_heads=4, num_kv_heads=4, head_dim=32, d_ff=256, vocab_size=257,
    moe=MoEShape(num_experts=4, experts_per_token=2, expert_d_ff=128, num_leading_dense_layers=1),
)  # fmt: skip
LAYOUTS = ["data=2,fsdp=2,tensor=2,sp=true,optimizer_shard=data", "pipeline=2,expert=2,tensor=2,zero=1"]
SLOW_LAYOUTS = ["fsdp=8", "context=2,expert=2,fsdp=2,zero=2", "pipeline=3,tensor=2", "tensor=4,data=2,zero=0"]
SLOW_LAYOUTS += ["fsdp=3,data=2,optimizer_shard=data"]  # stored with padding
OPTIMIZERS = ["adamw", "adafactor", "lion", "muon", "sgd"]
STEPS = 2


def _train(layout: Layout, optimizer: str):
    workload = Workload(
        seq_len=16, global_batch_size=24, precision=precision_named("fp32"), optimizer=optimizer_named(optimizer)
    )
    return build_step(SHAPE, workload, layout, jax.devices()[: layout.num_devices])


@functools.cache
def _random_trees():
    """Parameters, and gradients of each step, in the zoo's order."""
    rng = np.random.default_rng(0)
    structs = jax.eval_shape(lambda: _train(Layout(), "sgd").init().master)
    draw = functools.partial(jax.tree.map, lambda x: rng.standard_normal(x.shape, np.float32))
    return draw(structs), [draw(structs) for _ in range(STEPS)]


def _updates(layout: Layout, optimizer: str) -> list:
    """What the optimizer adds to the parameters at each step, in the zoo's order."""
    train = _train(layout, optimizer)
    convert = functools.partial(from_canonical, train.program)
    params, gradients = _random_trees()
    specs = train.specs.master
    init = map_shards(train.optimizer.init, train.mesh, (specs,), train.specs.optimizer)
    update = map_shards(
        train.optimizer.update, train.mesh, (specs, train.specs.optimizer, specs), (specs, train.specs.optimizer)
    )

    def run(params, gradients):
        state, found = init(convert(params)), []
        for gradient in gradients:
            updates, state = update(convert(gradient), state, convert(params))
            found.append(to_canonical(train.program, updates))
        return found

    return jax.tree.map(np.asarray, jax.jit(run)(params, gradients))


_alone = functools.cache(functools.partial(_updates, Layout()))


def _assert_close(found, expected, tolerance=2e-5):
    def check(path, got, want):
        scale = np.abs(want).max() + 1e-12
        np.testing.assert_allclose(got / scale, want / scale, atol=tolerance, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(check, found, expected)


@pytest.mark.parametrize("layout", [*LAYOUTS, *(pytest.param(text, marks=pytest.mark.slow) for text in SLOW_LAYOUTS)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_shards_update_as_the_whole_does(optimizer, layout):
    _assert_close(_updates(parse_layout(layout), optimizer), _alone(optimizer))


# What one matrix goes through in optax alone; without weight decay and learning rate.
BY_MATRIX = {
    "adamw": optax.scale_by_adam(b1=0.9, b2=0.95),
    "lion": optax.scale_by_lion(b1=0.9, b2=0.95),
    "sgd": optax.trace(decay=0.9),
    "adafactor": optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)),
}


@pytest.mark.parametrize("optimizer", BY_MATRIX)
def test_one_device_updates_as_optax_does(optimizer):
    """The down projections of the experts of one layer, each a matrix of its own."""
    params, gradients = _random_trees()
    found = _alone(optimizer)

    def take(tree, layer, expert):
        return tree["segments"][1][0]["mlp"]["experts"]["down"][layer, expert]

    for layer, expert in ((0, 1), (1, 3)):
        matrix = take(params, layer, expert)
        state = BY_MATRIX[optimizer].init(matrix)
        for step in range(STEPS):
            direction, state = BY_MATRIX[optimizer].update(take(gradients[step], layer, expert), state, matrix)
            expected = -3e-4 * (np.asarray(direction) + 0.1 * matrix)
            _assert_close(take(found[step], layer, expert), expected)


@pytest.mark.parametrize("size", [(24, 40), (40, 24)])
def test_muon_brings_every_singular_value_near_one(size):
    matrix = np.random.default_rng(0).standard_normal(size, np.float32)
    values = np.linalg.svd(np.asarray(newton_schulz(jnp.asarray(matrix))), compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_vectors_and_balancing_biases_are_not_decayed():
    params, gradients = _random_trees()
    train = _train(Layout(), "sgd")
    first = _alone("sgd")[0]
    plans = jax.tree.leaves(train.program.plans, is_leaf=is_plan)
    rows = zip(plans, jax.tree.leaves(params), jax.tree.leaves(gradients[0]), jax.tree.leaves(first), strict=True)
    for plan, weight, gradient, update in rows:
        decay = 0.1 * weight if plan.is_matrix else 0.0
        np.testing.assert_allclose(update, -3e-4 * (gradient + decay), rtol=1e-4, atol=1e-7)


def test_stochastic_rounding_is_unbiased_everywhere():
    """The mean over many draws is the number itself, whatever its sign, size and place between two bfloat16."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal(64) * 10.0 ** np.arange(-8, 8).repeat(4), jnp.float32)
    draws = jax.vmap(lambda key: round_stochastically(x, key))(jax.random.split(jax.random.key(0), 20_000))
    mean, spacing = np.asarray(draws, np.float64).mean(axis=0), np.abs(np.asarray(x)) * 2.0**-7
    deviations = (mean - np.asarray(x, np.float64)) / (spacing / np.sqrt(12 * 20_000))
    assert np.abs(deviations).max() < 6.0
    assert abs(deviations.mean()) < 0.5
