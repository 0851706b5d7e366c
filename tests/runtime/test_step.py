"""The step beside parity: precision, schedules of the learning rate, donation, what is stored where."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxscale.errors import SpecError
from jaxscale.runtime import Batch, TrainOptions, build_step
from jaxscale.runtime.optimizer import learning_rate, round_stochastically
from jaxscale.runtime.placement.params import is_plan
from jaxscale.types import Workload, parse_layout, precision_named
from jaxscale.zoo import LAYERS_DIM
from tests.runtime.parity import SHAPES, Case, make_batch


def _build(layout, *, precision="bf16", shape="gqa", **options):
    workload = dataclasses.replace(Case(shape=shape, layout="").workload, precision=precision_named(precision))
    parsed = parse_layout(layout)
    devices = jax.devices()[: parsed.num_devices]
    return build_step(SHAPES[shape], workload, parsed, devices, options=TrainOptions(**options))


def _batch(train):
    return jax.device_put(make_batch(train.program.workload, 61, packed=False), train.batch_sharding)


@pytest.mark.parametrize(("precision", "master"), [("bf16", jnp.float32), ("bf16_pure", jnp.bfloat16)])
@pytest.mark.parametrize("zero", [1, 3])
def test_dtypes_of_the_state(precision, zero, master):
    state = _build(f"fsdp=2,zero={zero}", precision=precision).abstract_state()
    assert {x.dtype for x in jax.tree.leaves(state.master)} == {jnp.dtype(master)}


def test_zero_1_and_zero_3_hold_the_same_state():
    one, three = (_build(f"fsdp=2,zero={zero}").abstract_state() for zero in (1, 3))
    assert one == three


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


@pytest.mark.parametrize("zero", [1, 3])
def test_offloaded_optimizer_state_waits_on_the_host(zero):
    train = _build(f"fsdp=2,zero={zero},offload_optimizer=true")
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


def _scans(jaxpr):
    """Every scan of a program, however deep."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _scans(inner)


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("schedule", ["gpipe", "interleaved,virtual_stages=2"])
def test_pipelines_keep_no_weights_for_every_tick(schedule, remat):
    # 16 tokens, so that no activation has the shape of a weight.
    workload = Workload(seq_len=16, global_batch_size=6, precision=precision_named("fp32"))
    layout = parse_layout(f"pipeline=2,schedule={schedule},remat={remat}")
    train = build_step(SHAPES["gqa"], workload, layout, jax.devices()[:2])
    program = train.program
    plans = jax.tree.leaves(program.plans, is_leaf=is_plan)
    whole = [tuple(n for n, dim in zip(plan.shape, plan.dims, strict=True) if dim != LAYERS_DIM) for plan in plans]
    matrices = {shape for shape in whole if len(shape) > 1}
    ticks = program.num_microbatches * layout.virtual_stages + 1
    traced = jax.make_jaxpr(train.step)(train.abstract_state(), train.abstract_batch())
    scans = [scan for scan in _scans(traced.jaxpr) if scan.params["length"] == ticks]
    assert len(scans) == 2  # forward and backward
    kept = [x.aval.shape for x in scans[0].outvars if x.aval.shape[:1] == (ticks,)]
    assert (ticks, *program.stream_shape) in kept
    assert not [shape for shape in kept if any(shape[-len(matrix) :] == matrix for matrix in matrices)]


def test_lowering_needs_no_memory():
    shape = dataclasses.replace(SHAPES["gqa"], d_model=16384, num_layers=128, d_ff=65536, num_heads=128, head_dim=128)
    workload = Workload(seq_len=128, global_batch_size=8)
    train = build_step(shape, workload, parse_layout("fsdp=8"), jax.devices())
    assert sum(x.size for x in jax.tree.leaves(train.abstract_state().master)) > 4e11
    assert train.step.trace(train.abstract_state(), train.abstract_batch()) is not None
