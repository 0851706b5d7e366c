"""Optimizers of optax on one device's shards.

AdamW, Lion and SGD act on each number by itself, so they run on shards as they are. Muon and Adafactor look at whole
matrices: for these each layer's matrix is gathered, one layer at a time, updated, and cut again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec

from jaxscale.errors import SpecError, nearest
from jaxscale.runtime.comms.collectives import all_gather_dim, slice_dim
from jaxscale.runtime.options import TrainOptions
from jaxscale.runtime.placement.params import ParamPlan, cut_storage, is_plan, local_shape, pad_storage
from jaxscale.runtime.placement.rules import Axes
from jaxscale.runtime.program.program import Program
from jaxscale.types.layout import Shard
from jaxscale.zoo import EXPERT_DIM, LAYERS_DIM

Array = jax.Array
Params = Any

# Quintic coefficients of Muon's Newton-Schulz iteration (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
_ROUNDING_SEED = 0x5A
_MUON_RMS = 0.2  # root mean square of an update, AdamW's (Liu et al., arXiv 2502.16982, eq. 4)


def learning_rate(options: TrainOptions) -> optax.Schedule:
    """Linear warm-up, then constant or a cosine to the final rate."""
    if options.decay_steps:
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=options.learning_rate,
            warmup_steps=options.warmup_steps,
            decay_steps=options.decay_steps,
            end_value=options.final_learning_rate,
        )
    warmup = optax.linear_schedule(0.0, options.learning_rate, max(options.warmup_steps, 1))
    constant = optax.constant_schedule(options.learning_rate)
    return optax.join_schedules([warmup, constant], [options.warmup_steps])


def make_optimizer(program: Program) -> optax.GradientTransformation:
    """The workload's optimizer for one device's shards at level `optimizer_shard`."""
    name = program.workload.optimizer.name
    if name not in _DIRECTIONS:
        raise SpecError(f"optimizer={name!r} is not one of {', '.join(_DIRECTIONS)}.{nearest(name, _DIRECTIONS)}")
    decayed = jax.tree.map(lambda plan: plan.is_matrix, program.plans, is_leaf=is_plan)
    return optax.chain(
        _DIRECTIONS[name](program),
        optax.add_decayed_weights(program.options.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(learning_rate(program.options)),
    )


def add_updates(program: Program, master: Params, updates: Params, step: Array) -> Params:
    """The next master weights. In bfloat16 they are rounded stochastically: most updates are smaller than half a step
    between two bfloat16 numbers and would be lost (Zamirai et al., arXiv 2010.06192, section 4).
    """
    if program.master_dtype != jnp.bfloat16:
        return optax.apply_updates(master, updates)
    key = jax.random.fold_in(jax.random.key(_ROUNDING_SEED), step)

    def one(number: int, plan: ParamPlan, weight: Array, update: Array) -> Array:
        # Replicas of a shard must draw alike, and different shards must not.
        axes = plan.split_axes(program.layout.optimizer_shard)
        shard = lax.axis_index(axes) if axes else 0
        draw = jax.random.fold_in(jax.random.fold_in(key, number), shard)
        return round_stochastically(weight.astype(jnp.float32) + update.astype(jnp.float32), draw)

    plans, structure = jax.tree.flatten(program.plans, is_leaf=is_plan)
    rows = zip(plans, jax.tree.leaves(master), jax.tree.leaves(updates), strict=True)
    return structure.unflatten([one(number, *row) for number, row in enumerate(rows)])


def round_stochastically(x: Array, key: Array) -> Array:
    """float32 to one of the two neighbouring bfloat16, the nearer one more often: right on average."""
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    kept = (bits + noise) & jnp.uint32(0xFFFF0000)  # bfloat16 is the upper half of float32
    return lax.bitcast_convert_type(kept, jnp.float32).astype(jnp.bfloat16)


def _adam(program: Program) -> optax.GradientTransformation:
    options = program.options
    return optax.scale_by_adam(b1=options.beta1, b2=options.beta2, eps=options.epsilon)


def _lion(program: Program) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1=program.options.beta1, b2=program.options.beta2)


def _momentum(program: Program) -> optax.GradientTransformation:
    return optax.trace(decay=program.options.beta1)


def _adafactor(program: Program) -> optax.GradientTransformation:
    """Adafactor (Shazeer and Stern, arXiv 1804.04235) without its own schedule and parameter scaling."""
    whole = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    return _on_whole_matrices(whole, program)


def _muon(program: Program) -> optax.GradientTransformation:
    """Muon for the matrices of layers, AdamW for embedding, head and vectors."""

    def label(path: Any, plan: ParamPlan) -> str:
        return "muon" if plan.is_matrix and path[0].key == "segments" else "adam"

    labels = jax.tree_util.tree_map_with_path(label, program.plans, is_leaf=is_plan)
    orthogonal = optax.stateless(lambda updates, params: _orthogonalize(program, updates))
    muon = optax.chain(optax.trace(decay=program.options.beta1, nesterov=True), orthogonal)
    return optax.partition({"muon": muon, "adam": _adam(program)}, labels)


_DIRECTIONS: dict[str, Callable[[Program], optax.GradientTransformation]] = {
    "adamw": _adam,
    "lion": _lion,
    "sgd": _momentum,
    "adafactor": _adafactor,
    "muon": _muon,
}


def _num_stacked(plan: ParamPlan) -> int:
    """Leading dims that stack independent matrices."""
    return sum(dim in (LAYERS_DIM, EXPERT_DIM) for dim in plan.dims)


def _over_stack(function: Callable[..., Any], num_stacked: int) -> Callable[..., Any]:
    """Apply to each matrix of a stack: one layer after the other, the experts of a layer together."""
    if num_stacked == 0:
        return function
    inner = jax.vmap(function) if num_stacked == 2 else function
    return lambda *args: lax.map(lambda row: inner(*row), args)


def _matrix_splits(plan: ParamPlan, level: Shard, stacked: int) -> list[tuple[int, Axes]]:
    """What splits one matrix of a stack, outermost first; stacked dims are split too, into independent matrices."""
    by_model = list(enumerate(plan.model_axes))
    return [(dim - stacked, axes) for dim, axes in (*by_model, *plan.steps("none", level)) if dim >= stacked]


def _whole(x: Array, plan: ParamPlan, level: Shard, stacked: int) -> Array:
    """Gather one matrix from all devices that hold a part of it."""
    for dim, axes in reversed(_matrix_splits(plan, level, stacked)):
        x = all_gather_dim(x, axes, dim)
    return cut_storage(x, plan, offset=stacked)


def _part(x: Array, plan: ParamPlan, level: Shard, stacked: int) -> Array:
    """The part of one matrix that this device holds."""
    if level != "none":
        x = pad_storage(x, plan, offset=stacked)
    for dim, axes in _matrix_splits(plan, level, stacked):
        x = slice_dim(x, axes, dim)
    return x


def _cut_padding(matrix: Array, plan: ParamPlan, vocab_size: int) -> Array:
    """One matrix of a stack without what pads its vocabulary."""
    dims = plan.dims[-matrix.ndim :]
    return matrix[tuple(slice(vocab_size if dim == "vocab" else None) for dim in dims)]


def _pad_to(matrix: Array, shape: tuple[int, ...]) -> Array:
    """Zeros after what there is, up to `shape`."""
    return jnp.pad(matrix, [(0, want - have) for want, have in zip(shape, matrix.shape, strict=True)])


def newton_schulz(matrix: Array) -> Array:
    """The nearest matrix, roughly, whose singular values are all one (Muon)."""
    a, b, c = _NEWTON_SCHULZ
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (jnp.linalg.norm(wide) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if wide is not matrix else x


def _orthogonalize(program: Program, updates: Params) -> Params:
    level = program.layout.optimizer_shard

    def leaf(plan: ParamPlan, update: Any) -> Any:
        if isinstance(update, optax.MaskedNode):
            return update
        stacked = _num_stacked(plan)

        def one(shard: Array) -> Array:
            whole = _whole(shard.astype(jnp.float32), plan, level, stacked)
            # Heads and their width are one dim of the matrix, its output before attention and its input after.
            rows, columns = (-1, whole.shape[-1]) if plan.dims[-1] == "d_model" else (whole.shape[0], -1)
            matrix = whole.reshape(rows, columns)
            scaled = newton_schulz(matrix) * (_MUON_RMS * max(matrix.shape) ** 0.5)
            return _part(scaled.reshape(whole.shape), plan, level, stacked).astype(shard.dtype)

        return _over_stack(one, stacked)(update)

    return jax.tree.map(leaf, program.plans, updates, is_leaf=is_plan)


def _on_whole_matrices(inner: optax.GradientTransformation, program: Program) -> optax.GradientTransformation:
    """Run `inner` on each matrix as if it were the only parameter; its state is held whole by every device.

    Rows that pad the vocabulary are cut off before: they would count in the means of its statistics.
    """
    level, vocab_size = program.layout.optimizer_shard, program.shape.vocab_size

    def init(params: Params) -> Any:
        def leaf(plan: ParamPlan) -> Any:
            stacked = _num_stacked(plan)
            lead = local_shape(plan, level, program.rules)[:stacked]
            matrix = _cut_padding(jnp.zeros(plan.shape[stacked:], program.master_dtype), plan, vocab_size)
            return _over_stack(inner.init, stacked)(jnp.broadcast_to(matrix, (*lead, *matrix.shape)))

        return jax.tree.map(leaf, program.plans, is_leaf=is_plan)

    def update(updates: Params, states: Any, params: Params | None = None) -> tuple[Params, Any]:
        def leaf(plan: ParamPlan, shard: Array, state: Any) -> tuple[Array, Any]:
            stacked = _num_stacked(plan)

            def one(shard: Array, state: Any) -> tuple[Array, Any]:
                gradient = _cut_padding(_whole(shard, plan, level, stacked), plan, vocab_size)
                direction, state = inner.update(gradient, state, gradient)  # of parameters, only the shape matters
                return _part(_pad_to(direction, plan.shape[stacked:]), plan, level, stacked), state

            return _over_stack(one, stacked)(shard, state)

        plans, structure = jax.tree.flatten(program.plans, is_leaf=is_plan)
        state_leaves = structure.flatten_up_to(states)
        pairs = [leaf(*row) for row in zip(plans, jax.tree.leaves(updates), state_leaves, strict=True)]
        return structure.unflatten([u for u, _ in pairs]), structure.unflatten([s for _, s in pairs])

    return optax.GradientTransformation(init, update)


def optimizer_specs(program: Program, state: Any) -> Any:
    """The sharding of every array of an optimizer's state, given as local `ShapeDtypeStruct`s.

    State shaped like its parameter's shard is split like it; any other state of a parameter is whole but for the
    stacked dims; what belongs to no parameter (step counts) is one number on every device.
    """
    level = program.layout.optimizer_shard
    leaves = jax.tree_util.tree_flatten_with_path(program.plans, is_leaf=is_plan)[0]
    plans = {tuple(map(str, path)): plan for path, plan in leaves}

    def spec(path: Any, leaf: jax.ShapeDtypeStruct) -> PartitionSpec:
        plan = _owner(plans, tuple(map(str, path)))
        if plan is None or not leaf.shape:
            return PartitionSpec()
        if leaf.shape == local_shape(plan, level, program.rules):
            return plan.spec(level)
        return PartitionSpec(*(axes or None for axes in plan.axes_by_dim(level)[: _num_stacked(plan)]))

    return jax.tree_util.tree_map_with_path(spec, state)


def _owner(plans: dict[tuple[str, ...], ParamPlan], path: tuple[str, ...]) -> ParamPlan | None:
    """The parameter whose path is part of a state's path."""
    spans = (path[i:j] for i in range(len(path)) for j in range(len(path), i, -1))
    return next((plans[span] for span in spans if span in plans), None)
