"""The step beside parity: precision, schedules of the learning rate, donation, what is stored where."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscale.errors import SpecError
from jaxscale.runtime import Batch, TrainOptions, build_step
from jaxscale.runtime.optimizer import learning_rate, round_stochastically
from jaxscale.types import Workload, parse_layout, precision_named
from tests.runtime.parity import SHAPES, Case, make_batch


def _build(layout, *, precision="bf16", shape="gqa", **options):
    workload = dataclasses.replace(Case(shape=shape, layout="").workload, precision=precision_named(precision))
    parsed = parse_layout(layout)
    devices = jax.devices()[: parsed.num_devices]
    return build_step(SHAPES[shape], workload, parsed, devices, options=TrainOptions(**options))


def _batch(train):
    return jax.device_put(make_batch(train.program.workload, 61, packed=False), train.batch_sharding)


@pytest.mark.parametrize(
    ("precision", "layout", "master", "working"),
    [
        ("bf16", "fsdp=2", jnp.float32, None),
        ("bf16", "fsdp=2,zero=1", jnp.float32, jnp.bfloat16),
        ("bf16_pure", "fsdp=2", jnp.bfloat16, None),
    ],
)
def test_dtypes_of_the_state(precision, layout, master, working):
    state = _build(layout, precision=precision).abstract_state()
    assert {x.dtype for x in jax.tree.leaves(state.master)} == {jnp.dtype(master)}
    assert {x.dtype for x in jax.tree.leaves(state.working)} == ({jnp.dtype(working)} if working else set())


def test_bf16_learns_one_batch():
    train = _build("fsdp=2,tensor=2,sp=true", learning_rate=1e-2)
    state, batch = train.init(), _batch(train)
    losses = []
    for _ in range(8):
        state, metrics = train.step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(np.log(61), rel=0.2)
    assert losses[-1] < 0.6 * losses[0]


def test_stochastic_rounding_is_right_on_average():
    x = jnp.full((20_000,), 1.0 + 1 / 512, jnp.float32)  # a quarter of the way from 1 to the next bfloat16
    rounded = round_stochastically(x, jax.random.key(0)).astype(jnp.float32)
    assert set(np.unique(rounded)) == {1.0, 1.0 + 1 / 128}
    assert float(rounded.mean()) == pytest.approx(1 + 1 / 512, abs=1e-4)


def test_pure_bf16_replicas_stay_alike():
    train = _build("data=2,tensor=2", precision="bf16_pure")
    state, _ = train.step(train.init(), _batch(train))
    for leaf in jax.tree.leaves(state.master):
        by_shard = {}
        for shard in leaf.addressable_shards:
            by_shard.setdefault(str(shard.index), []).append(np.asarray(shard.data, np.float32))
        assert all(np.array_equal(copies[0], copy) for copies in by_shard.values() for copy in copies)


def test_the_state_is_donated():
    train = _build("fsdp=2")
    state = train.init()
    train.step(state, _batch(train))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.master))


def test_offloaded_optimizer_state_waits_on_the_host():
    train = _build("fsdp=2,offload_optimizer=true")
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(train.abstract_state().optimizer) if x.ndim}
    assert kinds == {"pinned_host"}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(train.abstract_state().master)} == {"device"}


def test_balancing_bias_moves_towards_idle_experts():
    train = _build("expert=2", precision="fp32", shape="shared", router_bias_rate=0.5)
    state = train.init()
    state, _ = train.step(state, _batch(train))
    bias = np.asarray(state.master["segments"][1][0]["mlp"]["router_bias"])  # [layers, experts]
    assert set(np.unique(bias)) <= {-0.5, 0.0, 0.5}
    assert (bias.max(axis=1) == 0.5).all()
    assert (bias.min(axis=1) == -0.5).all()


def test_tokens_without_target_add_nothing():
    train = _build("data=2", precision="fp32")
    state, batch = train.init(), make_batch(train.program.workload, 61, packed=False)
    masked = np.where(np.arange(32) < 20, batch.targets, -1).astype(np.int32)
    changed = np.where(np.arange(32) < 20, batch.tokens, 7).astype(np.int32)
    first = train.gradients(state, Batch(tokens=batch.tokens, targets=masked))
    second = train.gradients(state, Batch(tokens=changed, targets=masked))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, second)


def test_learning_rate_warms_up_and_decays():
    rate = learning_rate(TrainOptions(learning_rate=1.0, warmup_steps=10, decay_steps=30, final_learning_rate=0.1))
    assert [round(float(rate(step)), 3) for step in (0, 5, 10, 20, 30, 99)] == [0.0, 0.5, 1.0, 0.55, 0.1, 0.1]
    constant = learning_rate(TrainOptions(learning_rate=0.5, warmup_steps=2))
    assert [float(constant(step)) for step in (0, 1, 2, 9)] == [0.0, 0.25, 0.5, 0.5]
    with pytest.raises(SpecError, match="decay_steps=5 must be more than warmup_steps=10"):
        TrainOptions(warmup_steps=10, decay_steps=5)


def test_lowering_needs_no_memory():
    shape = dataclasses.replace(SHAPES["gqa"], d_model=16384, num_layers=128, d_ff=65536, num_heads=128, head_dim=128)
    workload = Workload(seq_len=128, global_batch_size=8)
    train = build_step(shape, workload, parse_layout("fsdp=8"), jax.devices())
    assert sum(x.size for x in jax.tree.leaves(train.abstract_state().master)) > 4e11
    assert train.step.trace(train.abstract_state(), train.abstract_batch()) is not None
