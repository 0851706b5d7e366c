"""The same module code on shards: what every hook and every gradient tag promises, on emulated devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxscale import zoo
from tests.zoo.cases import CASES
from tests.zoo.draw import quick_jit, random_params, random_tokens
from tests.zoo.mesh_comms import MeshComms, reduced, spec_of

BATCH, SEQ_LEN, TENSOR = 4, 16, 2
AUX, Z_LOSS = 0.01, 1e-3
EXECUTION = zoo.Execution()


def loss_sum(shape, params, tokens, comms, execution):
    """Cross-entropy, z-loss and routing losses summed over this shard's tokens."""
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    context = zoo.make_context(shape, positions)
    x = zoo.embed(shape, params["embedding"], tokens, positions, comms=comms)
    aux = 0.0
    for segment, stack in zip(zoo.segments(zoo.layer_kinds(shape)), params["segments"], strict=True):

        def step(x, layers, kinds=segment.kinds):
            found = 0.0
            for kind, layer in zip(kinds, layers, strict=True):
                x, stats = zoo.layer_body(shape, kind, comms=comms, execution=execution)(layer, x, context)
                found += 0.0 if stats is None else stats.aux_loss + stats.z_loss
            return x, found

        x, found = jax.lax.scan(step, x, stack)
        aux += jnp.sum(found)
    loss = zoo.head_loss(
        shape, params["head"], params["embedding"], x, jnp.roll(tokens, -1, axis=1), jnp.ones(tokens.shape),
        comms=comms, z_loss=Z_LOSS,
    )  # fmt: skip
    return loss + AUX * aux


@functools.cache
def case(name):
    """A two-layer model of a family, its parameters, tokens, loss and gradients."""
    shape = dataclasses.replace(CASES[name].shape, num_layers=2)
    params = random_params(shape, vocab_multiple=TENSOR)
    tokens = random_tokens(shape, BATCH, SEQ_LEN)
    step = jax.value_and_grad(lambda p: loss_sum(shape, p, tokens, zoo.LocalComms(), EXECUTION))
    return shape, params, tokens, quick_jit(step)(params)


def sharded_gradients(shape, params, tokens, *, sequence_parallel, expert):
    infos = zoo.parameter_info(shape, vocab_multiple=TENSOR)
    specs = jax.tree.map(spec_of, infos)
    mesh = jax.make_mesh((TENSOR, expert), ("tensor", "expert"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    comms = MeshComms(tensor_size=TENSOR, expert_size=expert, sequence_parallel=sequence_parallel)

    def local(params, tokens):
        loss, grads = jax.value_and_grad(lambda p: loss_sum(shape, p, tokens, comms, EXECUTION))(params)
        return jax.lax.psum(loss, "expert"), reduced(grads, infos, sequence_parallel=sequence_parallel)

    step = jax.shard_map(local, mesh=mesh, in_specs=(specs, P("expert")), out_specs=(P(), specs), check_vma=False)
    return quick_jit(step)(params, tokens)


# One model for each kind of parameter that the tags tell apart; the slow ones differ in what is around them.
RUNS = [("qwen3", True), ("gpt2", True), ("olmo2", False), ("deepseek_v3", True), ("gpt_oss", True)]
SLOW_RUNS = [(name, True) for name in ("gpt_neox", "mpt", "olmo2", "gemma2", "deepseek_v2", "qwen2_moe")]
SLOW_RUNS += [(name, False) for name in ("qwen3", "gpt2", "gemma2", "deepseek_v3", "gpt_oss")]


@pytest.mark.parametrize(
    ("name", "sequence_parallel"), [*RUNS, *(pytest.param(*run, marks=pytest.mark.slow) for run in SLOW_RUNS)]
)
def test_shards_compute_the_same_gradients(name, sequence_parallel):
    shape, params, tokens, (loss, grads) = case(name)
    shard_loss, shard_grads = sharded_gradients(
        shape, params, tokens, sequence_parallel=sequence_parallel, expert=2 if shape.moe else 1
    )
    np.testing.assert_allclose(shard_loss, loss, rtol=1e-5)
    scale = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(grads))
    for (path, whole), part in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(shard_grads), strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-3, atol=2e-5 * scale, err_msg=jax.tree_util.keystr(path))
