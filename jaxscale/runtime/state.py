"""The training state: what it holds, how it is sharded, and its form that no layout changes."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxscale.runtime.canonical import from_canonical, stacked_for
from jaxscale.runtime.optimizer import optimizer_specs
from jaxscale.runtime.placement.params import ParamPlan, gather, is_plan, local_shape
from jaxscale.runtime.program.program import Program
from jaxscale.types.layout import Shard
from jaxscale.zoo import init_params

Array = jax.Array
Params = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Donated to every step and returned by it. Parameters and optimizer are split at level `optimizer_shard`."""

    step: Array  # int32, optimizer steps taken
    master: Params  # the weights that the optimizer updates, in the master dtype
    optimizer: Any


def stored_weights(program: Program, master: Params) -> Params:
    """The shards at level `params_shard` that a step fetches its weights from; inside the shard_map.

    Where the optimizer is split wider (ZeRO-1, ZeRO-2) they are gathered once a step, in the compute dtype. That is at
    the start of it: a copy kept in the state from the end of the step before would be there twice, as XLA copies an
    argument that the loops read and the step replaces.
    """
    source, target = program.layout.optimizer_shard, program.layout.params_shard
    if source == target:
        return master

    def one(plan: ParamPlan, shard: Array) -> Array:
        cast = shard.astype(program.compute_dtype) if plan.trained else shard
        return gather(cast, plan, source, target)

    return jax.tree.map(one, program.plans, master, is_leaf=is_plan)


def init_state(program: Program, optimizer: optax.GradientTransformation, master: Params) -> TrainState:
    """The state of step 0 from one device's shards of the parameters; inside the shard_map."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        master=master,
        optimizer=optimizer.init(master),
    )


def _local_structs(program: Program, level: Shard) -> Params:
    def one(plan: ParamPlan) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(local_shape(plan, level, program.rules), program.master_dtype)

    return jax.tree.map(one, program.plans, is_leaf=is_plan)


def param_specs(program: Program, level: Shard) -> Params:
    """The sharding of every parameter at a level."""
    return jax.tree.map(lambda plan: plan.spec(level), program.plans, is_leaf=is_plan)


def state_specs(program: Program, optimizer: optax.GradientTransformation) -> TrainState:
    """The sharding of every array of the state, as a tree of PartitionSpecs."""
    local = jax.eval_shape(optimizer.init, _local_structs(program, program.layout.optimizer_shard))
    return TrainState(
        step=PartitionSpec(),
        master=param_specs(program, program.layout.optimizer_shard),
        optimizer=optimizer_specs(program, local),
    )


def state_shardings(program: Program, mesh: Mesh, specs: TrainState) -> TrainState:
    """As `state_specs`, on a mesh: optimizer state in host memory where the layout offloads it."""

    def on(memory: str | None) -> Any:
        return lambda spec: NamedSharding(mesh, spec, memory_kind=memory)

    def host_arrays(spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(mesh, spec, memory_kind="pinned_host" if _is_offloaded(spec) else None)

    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    device = jax.tree.map(on(None), specs, is_leaf=is_spec)
    if not program.layout.offload_optimizer:
        return device
    return TrainState(
        step=device.step,
        master=device.master,
        optimizer=jax.tree.map(host_arrays, specs.optimizer, is_leaf=is_spec),
    )


def _is_offloaded(spec: PartitionSpec) -> bool:
    """Step counts are not worth a copy; arrays of parameters have a spec with a place for each dim."""
    return len(spec) > 0


def move_offloaded(program: Program, state: TrainState, space: jax.memory.Space) -> TrainState:
    """Bring the offloaded part of the state to device memory, or back to the host; inside the shard_map."""
    if not program.layout.offload_optimizer:
        return state

    def move(x: Array) -> Array:
        return jax.device_put(x, space) if x.ndim else x

    return dataclasses.replace(state, optimizer=jax.tree.map(move, state.optimizer))


def initial_params(program: Program, seed: int) -> Params:
    """Random global parameters, stacked as the layout needs them; to be jitted with their shardings.

    The values of real parameters depend on the seed only, not on the layout.
    """
    params = init_params(program.shape, jax.random.key(seed), vocab_multiple=program.layout.tensor)
    return _as_master(program, stacked_for(program, params))


def given_params(program: Program, canonical: Params) -> Params:
    """Given parameters in the zoo's order, stacked and padded as the layout needs them."""
    return _as_master(program, from_canonical(program, canonical))


def _as_master(program: Program, params: Params) -> Params:
    return jax.tree.map(lambda x: x.astype(program.master_dtype), params)
