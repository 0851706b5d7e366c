"""A layout as a Levanter configuration (YAML of `levanter.main.train_lm`); keys as in marin-levanter 0.2.227.

Levanter names the dims of its arrays and maps each name to mesh axes, once for computing and once for what rests in
memory (parameters, gradients and optimizer state alike). So the mesh has one axis for each of ours, and the maps say
what it splits. https://github.com/marin-community/marin/blob/main/lib/levanter/src/levanter/utils/mesh.py
"""

import yaml

from jaxscale.errors import LayoutError
from jaxscale.export.levanter_model import FULL_POLICY, SPARSE, model_keys, model_type, says_rope
from jaxscale.export.result import Export
from jaxscale.export.sharding import data_parallel, outer_degrees
from jaxscale.types import Cluster, Layout, ModelShape, Workload
from jaxscale.types.legality import check_layout

# Mixed precision as jmp writes it: what parameters rest in, and what is computed in
PRECISIONS = {
    "bf16": "p=f32,c=bfloat16",
    "fp8": "p=f32,c=bfloat16",
    "bf16_pure": "p=bfloat16,c=bfloat16",
    "fp32": "p=f32,c=f32",
}
OPTIMIZERS = {"adamw": "adam", "lion": "lion", "muon": "muon"}
# our axis -> Levanter's; of the part that crosses slices the name ends in _dcn
MESH_AXES = {"fsdp": "data", "data": "replica", "tensor": "model", "context": "context"}
REMATS = {"none": False, "full": True, "offload_inputs": "offload"}
TENSOR_DIMS = ("mlp", "heads", "kv_head")  # dims that tensor parallelism splits in compute and at rest
TOKEN_DIMS = ("token", "token_repeat")  # what sparse blocks call the tokens they sort by expert


def levanter(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write the YAML for `python -m levanter.main.train_lm --config_path FILE`; data and tokenizer are the user's."""
    check_layout(shape, workload, layout, cluster.num_devices)
    _refuse(shape, workload, layout)
    trainer: dict[str, object] = {
        "mp": PRECISIONS[workload.precision.name],
        "train_batch_size": workload.global_batch_size,
        "per_device_parallelism": layout.microbatch_size,
        "mesh": _mesh(shape, cluster, layout),
    }
    if workload.precision.name == "fp8":
        trainer["quantization"] = {"fp8": True}
    config: dict[str, object] = {
        "model": model_keys(shape, workload) | {"gradient_checkpointing": _remat(shape, layout)},
        "train_seq_len": workload.seq_len,
        "trainer": trainer,
    }
    if workload.optimizer.name in OPTIMIZERS:
        config["optimizer"] = {"type": OPTIMIZERS[workload.optimizer.name]}
    text = yaml.safe_dump(config, sort_keys=False, width=120)
    return Export(text=text, filename="levanter.yaml", notes=_notes(shape, workload, layout))


def _refuse(shape: ModelShape, workload: Workload, layout: Layout) -> None:
    if workload.precision.name not in PRECISIONS:
        raise LayoutError(
            f"precision={workload.precision.name!r} is unknown to Levanter; allowed: {', '.join(PRECISIONS)}"
        )
    if layout.pipeline > 1:
        raise LayoutError(f"layout: pipeline={layout.pipeline}: Levanter's train_lm has no pipelines; set pipeline=1")
    if layout.expert > 1:
        raise LayoutError(
            f"layout: expert={layout.expert}: Levanter's {model_type(shape)} does not send tokens to experts; set "
            f"expert=1 (fsdp={layout.fsdp * layout.expert} splits their parameters)"
        )
    shards = data_parallel(layout).shards * layout.context
    if shape.d_model % shards:
        raise LayoutError(
            f"layout: Levanter shards parameters along d_model={shape.d_model}, which fsdp x context = {shards} must "
            "divide"
        )


def _mesh(shape: ModelShape, cluster: Cluster, layout: Layout) -> dict[str, object]:
    """Axes inside and across slices, and which dim each splits; an axis of one device is left out of the maps."""
    across = outer_degrees(layout, cluster)
    outer = {axis: across[axis] for axis in MESH_AXES}
    inner = {axis: getattr(layout, axis) // outer[axis] for axis in MESH_AXES}
    axes = {MESH_AXES[axis]: degree for axis, degree in _by_role(layout, inner).items()}
    dcn_axes = {f"{MESH_AXES[axis]}_dcn": degree for axis, degree in _by_role(layout, outer).items()}
    sizes = axes | dcn_axes

    def split_by(*names: str) -> list[str]:
        """The mesh axes of these names that have more than one device, those across slices first."""
        return [name for stem in names for name in (f"{stem}_dcn", stem) if sizes[name] > 1]

    tokens = TOKEN_DIMS if model_type(shape) in SPARSE else ()
    mapping = {
        "shared_mapping": {"position": split_by("context"), **{dim: split_by("model") for dim in TENSOR_DIMS}},
        "compute_mapping": {
            "batch": split_by("replica", "data"),
            **{dim: split_by("replica", "data", "context") for dim in tokens},
        },
        "param_mapping": {"embed": split_by("data", "context"), "vocab": split_by("model")},
    }
    said = {kind: {dim: names for dim, names in dims.items() if names} for kind, dims in mapping.items()}
    said["compute_mapping"].setdefault("batch", ["replica", "data"])
    used = {name for name, degree in sizes.items() if degree > 1}
    return {
        "axes": {name: degree for name, degree in axes.items() if name in used or name in ("replica", "data")},
        "dcn_axes": {"replica_dcn": dcn_axes["replica_dcn"]} | {n: d for n, d in dcn_axes.items() if n in used},
        **said,
    }


def _by_role(layout: Layout, degrees: dict[str, int]) -> dict[str, int]:
    """Degrees with fsdp as what shards the parameters and data as what replicates them."""
    parallel = data_parallel(layout)
    both = degrees["data"] * degrees["fsdp"]
    if not parallel.stage:
        return degrees | {"data": both, "fsdp": 1}
    if parallel.replicas == 1:
        return degrees | {"data": 1, "fsdp": both}
    return degrees


def _remat(shape: ModelShape, layout: Layout) -> bool | str:
    """Levanter's layers name none of their activations: all is kept, or the inputs of layers only."""
    policy = REMATS.get(layout.remat, True)
    return policy if isinstance(policy, bool) or model_type(shape) in FULL_POLICY else True


def _notes(shape: ModelShape, workload: Workload, layout: Layout) -> tuple[str, ...]:
    parallel, optimizer, kind = data_parallel(layout), workload.optimizer.name, model_type(shape)
    said = {
        f"vocab_size={shape.vocab_size} is that of the tokenizer in Levanter; `data`, with it, is left to you.": True,
        f"ZeRO stage {parallel.stage} is exported as stage 3: Levanter shards parameters, gradients and optimizer "
        "state alike.": parallel.stage in (1, 2),
        f"remat={layout.remat} is exported as full recomputation: Levanter's {kind} names no activations.": (
            _remat(shape, layout) is True and layout.remat != "full"
        ),
        "sequence_parallel=true is not exported: the residual stream stays whole on Levanter's tensor axis.": (
            layout.sequence_parallel
        ),
        f"tensor={layout.tensor} does not split the logits: Levanter's loss takes the whole vocabulary on each device "
        "(the embeddings rest split).": layout.tensor > 1,
        "context_method=ring: Levanter gathers keys and values.": layout.context > 1
        and layout.context_method == "ring",
        f"capacity_factor={workload.capacity_factor}: Levanter's experts are dropless.": bool(
            shape.moe is not None and workload.capacity_factor
        ),
        f"window={shape.window}: Levanter's {kind} attends to everything.": bool(shape.window),
        f"rope.scaling={shape.rope.scaling} is not exported.": not says_rope(shape.rope),
        f"optimizer={optimizer}: Levanter has {', '.join(OPTIMIZERS)}; its default is kept.": optimizer
        not in OPTIMIZERS,
        "offload_optimizer=true is not exported: Levanter keeps optimizer state on the devices.": (
            layout.offload_optimizer
        ),
        f"axis_order={'/'.join(layout.axis_order)}: Levanter's mesh is ordered as its axes are listed.": (
            layout.axis_order != Layout().axis_order
        ),
    }  # fmt: skip
    return parallel.notes + tuple(sentence for sentence, holds in said.items() if holds)
