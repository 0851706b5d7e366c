"""The training step of a layout: one `jax.shard_map`, fully manual, every collective our own."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxscale.runtime.canonical import to_canonical
from jaxscale.runtime.optimizer import add_updates, learning_rate, make_optimizer
from jaxscale.runtime.options import TrainOptions
from jaxscale.runtime.placement.mesh import build_mesh
from jaxscale.runtime.placement.params import is_plan
from jaxscale.runtime.program.batch import Batch, batch_spec
from jaxscale.runtime.program.gradients import Losses, accumulate, global_norm, reduce_gradients, reduce_losses
from jaxscale.runtime.program.noise import noise_metrics, noise_split
from jaxscale.runtime.program.program import Program, make_program
from jaxscale.runtime.state import (
    TrainState,
    given_params,
    init_state,
    initial_params,
    move_offloaded,
    param_specs,
    state_shardings,
    state_specs,
    stored_weights,
)
from jaxscale.types import Layout, ModelShape, Workload
from jaxscale.types.legality import check_layout
from jaxscale.types.noise import NoiseScale
from jaxscale.zoo import Execution
from jaxscale.zoo.kernels import execution_for
from jaxscale.zoo.routing import balanced_bias

Array = jax.Array
Metrics = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """A step that is ready to trace. Nothing is allocated or compiled until it is asked for."""

    program: Program
    mesh: Mesh
    optimizer: optax.GradientTransformation
    seed: int
    specs: TrainState  # of PartitionSpecs
    shardings: TrainState  # of NamedShardings
    batch_sharding: NamedSharding
    step: Any  # jitted (state, batch) -> (state, metrics); the state is donated

    def init(self, params: Any = None) -> TrainState:
        """The sharded state of step 0: random, or from whole parameters in the zoo's order.

        No device ever holds more than its shards of random parameters.
        """
        made = functools.partial(initial_params, self.program, self.seed)
        if params is not None:
            made = functools.partial(given_params, self.program, params)
        on_mesh = jax.jit(made, out_shardings=self._param_shardings())()
        make = jax.jit(self._init_mapped(), out_shardings=self.shardings, donate_argnums=0)
        return make(on_mesh)

    def _init_mapped(self) -> Any:
        local = functools.partial(init_state, self.program, self.optimizer)
        return map_shards(local, self.mesh, (self.specs.master,), self.specs)

    def _param_shardings(self) -> Any:
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.specs.master)

    def abstract_state(self) -> TrainState:
        """The state as `ShapeDtypeStruct`s with shardings; no memory."""
        dtype = self.program.master_dtype
        params = jax.tree.map(
            lambda plan: jax.ShapeDtypeStruct(plan.shape_at(self.program.layout.optimizer_shard), dtype),
            self.program.plans,
            is_leaf=is_plan,
        )
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            shapes = jax.eval_shape(self._init_mapped(), params)
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, self.shardings
        )

    def abstract_batch(self) -> Batch:
        """An unpacked batch as `ShapeDtypeStruct`s."""
        workload = self.program.workload
        struct = jax.ShapeDtypeStruct(
            (workload.global_batch_size, workload.seq_len), jnp.int32, sharding=self.batch_sharding
        )
        return Batch(tokens=struct, targets=struct)

    def lower(self) -> jax.stages.Lowered:
        """The step lowered from abstract values; works for devices that are only described."""
        return self.step.lower(self.abstract_state(), self.abstract_batch())

    def noise_scale(self) -> NoiseScale | None:
        """Averages to which every step's `small_batch_square` and `big_batch_square` are added (`TrainOptions`).

        None where the step meets no gradient of less than its whole batch, or does not look at it.
        """
        split = noise_split(self.program) if self.program.options.noise_scale else None
        batch = float(self.program.workload.global_batch_size)
        return NoiseScale(small_batch=batch / split.count, big_batch=batch) if split else None

    def gradients(self, state: TrainState, batch: Batch) -> tuple[Any, Metrics]:
        """Gradients of the mean loss before clipping, in the zoo's order and without padding; and the metrics."""

        def local(state: TrainState, batch: Batch) -> tuple[Any, Metrics]:
            grads, losses, _ = accumulate(self.program, stored_weights(self.program, state.master), batch)
            return reduce_gradients(self.program, grads), _loss_metrics(reduce_losses(self.program, losses))

        specs = param_specs(self.program, self.program.layout.optimizer_shard)
        mapped = map_shards(local, self.mesh, (self.specs, self.batch_sharding.spec), (specs, PartitionSpec()))

        def whole(state: TrainState, batch: Batch) -> tuple[Any, Metrics]:
            grads, metrics = mapped(state, batch)
            return to_canonical(self.program, grads), metrics

        return jax.jit(whole)(state, batch)


def build_step(
    shape: ModelShape,
    workload: Workload,
    layout: Layout,
    devices: Sequence[jax.Device],
    *,
    options: TrainOptions | None = None,
    kernels: Execution | None = None,
    seed: int = 0,
) -> TrainStep:
    """Plan the training step of a layout on real or described devices.

    `kernels` chooses attention, matmul, grouped matmul and capacity factor; by default what suits the devices'
    platform, and the workload's capacity factor.
    """
    check_layout(shape, workload, layout, len(devices))
    execution = kernels or _usual_kernels(shape, workload, layout, _platform(devices))
    program = make_program(shape, workload, layout, options=options or TrainOptions(), execution=execution)
    mesh = build_mesh(layout, devices)
    optimizer = make_optimizer(program)
    specs = state_specs(program, optimizer)
    shardings = state_shardings(program, mesh, specs)
    batch_sharding = NamedSharding(mesh, batch_spec(program.rules))
    local = functools.partial(_local_step, program, optimizer)
    mapped = map_shards(local, mesh, (specs, batch_sharding.spec), (specs, PartitionSpec()))
    return TrainStep(
        program=program,
        mesh=mesh,
        optimizer=optimizer,
        seed=seed,
        specs=specs,
        shardings=shardings,
        batch_sharding=batch_sharding,
        step=jax.jit(mapped, donate_argnums=0, out_shardings=(shardings, NamedSharding(mesh, PartitionSpec()))),
    )


def _usual_kernels(shape: ModelShape, workload: Workload, layout: Layout, platform: str) -> Execution:
    """What suits a platform, and the workload's capacity factor."""
    return execution_for(
        shape,
        platform,
        seq_len=workload.seq_len // layout.context,
        compute_bytes=workload.precision.compute_bytes,
        matmul_format=workload.precision.matmul,
        capacity_factor=workload.capacity_factor,
    )


def _platform(devices: Sequence[jax.Device]) -> str:
    """cpu, gpu or tpu; JAX calls described GPUs by their maker."""
    platform = devices[0].platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def map_shards(function: Any, mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    """The one way into the mesh: fully manual, so that no collective comes from the compiler's partitioner."""
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _loss_metrics(losses: Losses) -> Metrics:
    return {"loss": losses.loss, "aux_loss": losses.aux}


def _local_step(
    program: Program, optimizer: optax.GradientTransformation, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """One optimizer step on one device's shards."""
    grads, losses, squares = accumulate(program, stored_weights(program, state.master), batch)
    grads = reduce_gradients(program, grads)
    norm = global_norm(program, grads)
    state = move_offloaded(program, state, jax.memory.Space.Device)
    master, moments = _update(program, optimizer, state, grads, norm)
    metrics = _loss_metrics(reduce_losses(program, losses)) | {
        "grad_norm": norm,
        "learning_rate": jnp.asarray(learning_rate(program.options)(state.step), jnp.float32),
    }
    metrics |= noise_metrics(program, squares, grads)
    after = TrainState(step=state.step + 1, master=master, optimizer=moments)
    return move_offloaded(program, after, jax.memory.Space.Host), metrics


def _update(
    program: Program, optimizer: optax.GradientTransformation, state: TrainState, grads: Any, norm: Array
) -> tuple[Any, Any]:
    """Clip, run the optimizer, and move balancing biases by their own rule."""
    clip = program.options.clip_norm
    scale = jnp.minimum(1.0, clip / (norm + 1e-6)) if clip else jnp.ones(())
    clipped = jax.tree.map(
        lambda plan, grad: grad * scale.astype(grad.dtype) if plan.trained else jnp.zeros_like(grad),
        program.plans,
        grads,
        is_leaf=is_plan,
    )
    updates, moments = optimizer.update(clipped, state.optimizer, state.master)
    master = add_updates(program, state.master, updates, state.step)

    def balance(plan: Any, updated: Array, load: Array) -> Array:
        if plan.trained:
            return updated
        return balanced_bias(updated, load, rate=program.options.router_bias_rate).astype(updated.dtype)

    return jax.tree.map(balance, program.plans, master, grads, is_leaf=is_plan), moments
