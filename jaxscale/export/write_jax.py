"""A layout as a short script with nothing but jax: the mesh, the sharding of every weight, and one block compiled."""

from jaxscale.errors import LayoutError
from jaxscale.export.result import Export
from jaxscale.types import Cluster, Layout, ModelShape, Workload
from jaxscale.types.legality import check_layout

COMPUTE_DTYPES = {2: "bfloat16", 4: "float32"}

# How the two dims of a weight [in, out] are split; "zero" is the ZeRO group
_COLUMN = ("zero", "tensor")  # out is split, as in Megatron's column-parallel layer
_ROW = ("tensor", "zero")

_SCRIPT = '''"""{title}

Builds the mesh and the shardings, prints what one device holds of each weight, and compiles one feed-forward block
without allocating it. To try it without accelerators: XLA_FLAGS=--xla_force_host_platform_device_count={devices}
JAX_PLATFORMS=cpu python {filename}
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

AXES = {axes}  # outermost first
DEGREES = {degrees}
SEQ_LEN, MICROBATCH = {seq_len}, {microbatch}  # tokens; sequences on all batch shards together
DTYPE = jnp.{dtype}

ZERO = {zero}  # axes that shard parameters; experts are split by their own axis already
ZERO_EXPERT = {zero_expert}
BATCH = ("data", "fsdp", "expert")
SEQUENCE = {sequence}  # axes that split the residual stream's sequence

# weight: (shape, how each dim is split); the first dim are the layers
WEIGHTS = {{
{weights}
}}
RESIDUAL = P(BATCH, SEQUENCE, None)  # [batch, sequence, d_model]


def feed_forward(x, up, down):
    """One block: x [batch, sequence, d_model], gathered over ZERO when it is used, summed over tensor."""
    up = jax.lax.with_sharding_constraint(up, NamedSharding(mesh, P(None, "tensor")))
    down = jax.lax.with_sharding_constraint(down, NamedSharding(mesh, P("tensor", None)))
    hidden = jax.nn.silu(jnp.einsum("bsd,df->bsf", x, up))
    return jax.lax.with_sharding_constraint(
        x + jnp.einsum("bsf,fd->bsd", hidden, down), NamedSharding(mesh, RESIDUAL)
    )


mesh = jax.make_mesh(DEGREES, AXES, axis_types=(AxisType.Auto,) * len(AXES))
print(mesh)
for name, (shape, spec) in WEIGHTS.items():
    print(f"{{name}}: {{shape}} -> {{NamedSharding(mesh, spec).shard_shape(shape)}} on each device, {{spec}}")

arguments = [jax.ShapeDtypeStruct((MICROBATCH, SEQ_LEN, {d_model}), DTYPE, sharding=NamedSharding(mesh, RESIDUAL))]
for shape, spec in (
    (({d_model}, {d_ff}), P(ZERO or None, "tensor")),
    (({d_ff}, {d_model}), P("tensor", ZERO or None)),
):
    arguments.append(jax.ShapeDtypeStruct(shape, DTYPE, sharding=NamedSharding(mesh, spec)))
compiled = jax.jit(feed_forward).lower(*arguments).compile()
held = [s.shard_shape(a.shape) for s, a in zip(compiled.input_shardings[0], arguments)]
print("one block compiled; each device gets", held)
'''


def plain_jax(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write a script that runs as it is; it builds shardings, not a model, so that it stays readable."""
    check_layout(shape, workload, layout, cluster.num_devices)
    if shape.num_layers % layout.pipeline:
        raise LayoutError(
            f"layout: pipeline={layout.pipeline} does not divide num_layers={shape.num_layers}: a stacked array of "
            "layers cannot be sharded unevenly"
        )
    filename = "shardings.py"
    order = tuple(reversed(layout.axis_order))
    text = _SCRIPT.format(
        title=f"{shape.name} on {cluster.name}: {layout}.", filename=filename, devices=cluster.num_devices,
        axes=order, degrees=tuple(getattr(layout, axis) for axis in order), seq_len=workload.seq_len,
        microbatch=layout.microbatch_size * layout.batch_shards,
        dtype=COMPUTE_DTYPES[workload.precision.compute_bytes],
        zero=_zero(layout, "fsdp", "expert", "context"), zero_expert=_zero(layout, "fsdp", "context"),
        sequence=("context", "tensor") if layout.sequence_parallel else ("context",),
        weights="\n".join(_weights(shape, layout)), d_model=shape.d_model, d_ff=_width(shape),
    )  # fmt: skip
    return Export(text=text, filename=filename, notes=_notes(shape, workload, layout))


def _zero(layout: Layout, *group: str) -> tuple[str, ...]:
    if layout.params_shard == "none":
        return ()
    return (*(("data",) if layout.params_shard == "data" else ()), *group)


def _width(shape: ModelShape) -> int:
    """Width of the feed-forward that the script compiles: one dense layer's, or one expert's."""
    return shape.moe.expert_d_ff if shape.moe is not None and shape.num_moe_layers == shape.num_layers else shape.d_ff


def _weights(shape: ModelShape, layout: Layout) -> list[str]:
    """One line a weight: its shape and PartitionSpec as source text."""
    d = shape.d_model
    dense: dict[str, tuple[tuple[int, int], tuple[str, str]]] = {}
    if shape.mla is None:
        dense["q"] = ((d, shape.num_heads * shape.head_dim), _COLUMN)
        dense["k"] = dense["v"] = ((d, shape.num_kv_heads * shape.head_dim), _COLUMN)
        dense["attention_out"] = ((shape.num_heads * shape.head_dim, d), _ROW)
    if shape.num_moe_layers < shape.num_layers:
        dense |= {name: ((d, shape.d_ff), _COLUMN) for name in _up_names(shape, "mlp")}
        dense["mlp_down"] = ((shape.d_ff, d), _ROW)
    spec = {"zero": "ZERO or None", "tensor": '"tensor"'}
    lines = [
        f'    "{name}": (({shape.num_layers}, {rows}, {columns}), P("pipeline", {spec[first]}, {spec[second]})),'
        for name, ((rows, columns), (first, second)) in dense.items()
    ]
    if shape.moe is not None:
        experts, width = shape.moe.num_experts, shape.moe.expert_d_ff
        lines += [
            f'    "{name}": (({shape.num_layers}, {experts}, {d}, {width}), '
            'P("pipeline", "expert", ZERO_EXPERT or None, "tensor")),'
            for name in _up_names(shape, "expert")
        ]
        lines.append(
            f'    "expert_down": (({shape.num_layers}, {experts}, {width}, {d}), '
            'P("pipeline", "expert", "tensor", ZERO_EXPERT or None)),'
        )
    vocab = -(-shape.vocab_size // layout.tensor) * layout.tensor
    return [*lines, f'    "embedding": (({vocab}, {d}), P("tensor", ZERO or None)),']


def _up_names(shape: ModelShape, owner: str) -> tuple[str, ...]:
    return (f"{owner}_gate", f"{owner}_up") if shape.gated_mlp else (f"{owner}_up",)


def _notes(shape: ModelShape, workload: Workload, layout: Layout) -> tuple[str, ...]:
    said = {
        f"The optimizer ({workload.optimizer.name}, optimizer_shard={layout.optimizer_shard}) and gradients are left "
        "to your training loop; shard them as this says.": True,
        f"remat={layout.remat} is not in the script; wrap the layer in jax.checkpoint.": layout.remat != "none",
        f"pipeline={layout.pipeline}: the script shards layers over the axis; the schedule ({layout.schedule}) is "
        "yours to write.": layout.pipeline > 1,
        f"context={layout.context}: attention over a split sequence ({layout.context_method}) is not in the script.": (
            layout.context > 1
        ),
        f"vocab_size={shape.vocab_size} is padded to a multiple of tensor={layout.tensor}.": (
            shape.vocab_size % layout.tensor > 0
        ),
        "The projections of latent attention are not in the script.": shape.mla is not None,
        f"microbatch_size={layout.microbatch_size}: accumulate {layout.num_microbatches(workload.global_batch_size)} "
        "microbatches.": layout.num_microbatches(workload.global_batch_size) > 1,
        "offload_optimizer=true is not in the script.": layout.offload_optimizer,
    }  # fmt: skip
    return tuple(sentence for sentence, holds in said.items() if holds)
