"""A layout as a MaxText configuration (YAML laid over its base.yml); keys as in MaxText 0.2.

https://github.com/AI-Hypercomputer/maxtext/blob/main/src/maxtext/configs/base.yml
"""

import yaml

from jaxscale.errors import LayoutError
from jaxscale.export.maxtext_model import NAMED, dropless, model_keys, num_blocks, says_rope
from jaxscale.export.result import Export
from jaxscale.export.sharding import outer_degrees
from jaxscale.types import AXES, Cluster, Layout, ModelShape, Workload, remat_policy
from jaxscale.types.legality import check_layout

PRECISION_KEYS = {
    "bf16": {"dtype": "bfloat16", "weight_dtype": "float32", "grad_dtype": "float32", "quantization": ""},
    "fp8": {"dtype": "bfloat16", "weight_dtype": "float32", "grad_dtype": "float32", "quantization": "fp8"},
    "bf16_pure": {"dtype": "bfloat16", "weight_dtype": "bfloat16", "grad_dtype": "bfloat16", "quantization": ""},
    "fp32": {"dtype": "float32", "weight_dtype": "float32", "grad_dtype": "float32", "quantization": ""},
}
OPTIMIZERS = {"adamw": "adamw", "sgd": "sgd", "muon": "muon"}
CONTEXT_STRATEGIES = {"ring": "ring", "all_gather": "all_gather"}
RING_KERNEL = {"attention": "flash", "use_tokamax_splash": True}  # the one that rings keys and values on TPUs
# MaxText's tensor of a custom remat policy -> our op
REMAT_KEYS = {
    "query_proj": "q",
    "key_proj": "k",
    "value_proj": "v",
    "context": "attention",
    "out_proj": "attention_out",
    "mlpwi_0": "mlp_gate",
    "mlpwi_1": "mlp_up",
    "mlpwi": "mlp_up",
    "mlpwo": "mlp_down",
    "moe_mlpwi_0": "expert_gate",
    "moe_mlpwi_1": "expert_up",
    "moe_mlpwo": "expert_down",
    "mla_q": "q_down",
    "mla_kv": "kv_down",
}
# our axis -> MaxText's, after ici_ and dcn_; `tensor_sequence` is tensor with the residual stream split too
AXIS_KEYS = {axis: axis for axis in AXES}


def maxtext(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write the YAML for `python -m maxtext.trainers.pre_train.train FILE` (`base_config: base.yml` included)."""
    check_layout(shape, workload, layout, cluster.num_devices)
    if workload.precision.name not in PRECISION_KEYS:
        raise LayoutError(
            f"precision={workload.precision.name!r} is unknown to MaxText; allowed: {', '.join(PRECISION_KEYS)}"
        )
    config: dict[str, object] = {"base_config": "base.yml", "run_name": shape.name}
    _refuse_ring(workload, cluster, layout)
    config |= model_keys(shape, workload) | _batch(shape, workload, layout) | _parallelism(cluster, layout)
    config |= _remat(layout) | PRECISION_KEYS[workload.precision.name]
    config["optimizer_memory_host_offload"] = layout.offload_optimizer
    if workload.optimizer.name in OPTIMIZERS:
        config["opt_type"] = OPTIMIZERS[workload.optimizer.name]
    text = yaml.safe_dump(config, sort_keys=False, width=120)
    return Export(text=text, filename="maxtext.yml", notes=_notes(shape, workload, cluster, layout))


def _batch(shape: ModelShape, workload: Workload, layout: Layout) -> dict[str, object]:
    """MaxText's batch is per device of every axis, so with tensor parallelism it may be a fraction."""
    num_microbatches = layout.num_microbatches(workload.global_batch_size)
    accumulation = 1 if layout.pipeline > 1 else num_microbatches
    config: dict[str, object] = {
        "max_target_length": workload.seq_len,
        "per_device_batch_size": workload.global_batch_size / (layout.num_devices * accumulation),
        "gradient_accumulation_steps": accumulation,
    }
    if layout.pipeline > 1:
        chunks, layers = layout.pipeline * layout.virtual_stages, num_blocks(shape)
        if layers % chunks or num_microbatches % layout.pipeline:
            raise LayoutError(
                f"layout: pipeline={layout.pipeline}, virtual_stages={layout.virtual_stages}: MaxText needs "
                f"its {layers} layers in equal chunks, and its {num_microbatches} microbatches in multiples of pipeline"
            )
        config["num_layers_per_pipeline_stage"] = layers // chunks
        config["num_pipeline_microbatches"] = num_microbatches
    return config


def _replicated(layout: Layout) -> bool:
    """Whether parameters stay whole on the fsdp axis, which MaxText calls data."""
    return layout.params_shard == "none"


def _parallelism(cluster: Cluster, layout: Layout) -> dict[str, object]:
    outer = outer_degrees(layout, cluster)
    inner = {axis: getattr(layout, axis) // outer[axis] for axis in AXES}
    config: dict[str, object] = {"hardware": cluster.chip.kind}
    for prefix, degrees in (("ici", inner), ("dcn", outer)):
        named = {AXIS_KEYS[axis]: degree for axis, degree in degrees.items()} | {"tensor_sequence": 1}
        if _replicated(layout):
            named |= {"data": named["data"] * named["fsdp"], "fsdp": 1}
        if layout.params_shard == "data":
            named |= {"data": 1, "fsdp": named["data"] * named["fsdp"]}
        if layout.sequence_parallel:
            named |= {"tensor_sequence": named["tensor"], "tensor": 1}
        config |= {f"{prefix}_{axis}_parallelism": degree for axis, degree in named.items()}
    config["shard_optimizer_over_data"] = layout.optimizer_shard != layout.params_shard
    return config | _context(cluster, layout)


def _context(cluster: Cluster, layout: Layout) -> dict[str, object]:
    if layout.context == 1:
        return {}
    if _rings(cluster, layout) and cluster.chip.kind == "tpu":
        return {"context_parallel_strategy": "ring", **RING_KERNEL}
    method = "ring" if _rings(cluster, layout) else "all_gather"
    return {"context_parallel_strategy": CONTEXT_STRATEGIES[method]}


def _refuse_ring(workload: Workload, cluster: Cluster, layout: Layout) -> None:
    """MaxText's ring on TPUs cuts what a device holds of a sequence into as many parts as there are devices."""
    if _rings(cluster, layout) and cluster.chip.kind == "tpu" and workload.seq_len % layout.context**2:
        raise LayoutError(
            f"layout: context={layout.context} with context_method=ring: MaxText needs seq_len={workload.seq_len} in "
            f"multiples of {layout.context} x {layout.context} on TPUs; set context_method=all_gather"
        )


def _rings(cluster: Cluster, layout: Layout) -> bool:
    """Whether MaxText can ring keys and values where it is asked to."""
    return layout.context > 1 and layout.context_method == "ring" and cluster.chip.kind != "cpu"


def _remat(layout: Layout) -> dict[str, object]:
    policy = remat_policy(layout.remat)
    if layout.remat == "full":
        return {"remat_policy": "full"}
    places = {
        key: "device" if op in policy.saved else "offload" if op in policy.offloaded else "remat"
        for key, op in REMAT_KEYS.items()
    }
    layer_input = "offload" if policy.offload_layer_input else "device"
    return {"remat_policy": "custom", "decoder_layer_input": layer_input, **places}


def _notes(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> tuple[str, ...]:
    optimizer = workload.optimizer.name
    said = {
        f"optimizer={optimizer}: MaxText has {', '.join(OPTIMIZERS)}; opt_type is left at its default.": optimizer
        not in OPTIMIZERS,
        "params_shard=none: MaxText's fsdp axis always shards parameters, so fsdp is exported as data with "
        "shard_optimizer_over_data.": layout.params_shard == "none" and layout.fsdp > 1,
        "grads_shard is not a choice of MaxText: gradients follow parameters, or the optimizer state where it is "
        "sharded wider.": layout.grads_shard != layout.params_shard,
        f"schedule={layout.schedule}: MaxText's pipeline is circular, its backward is the transpose of the whole "
        "forward, as in GPipe.": layout.pipeline > 1 and layout.schedule != "gpipe",
        "remat=none: MaxText still recomputes norms and activation functions; all matmul outputs are kept.": (
            layout.remat == "none"
        ),
        f"axis_order={'/'.join(layout.axis_order)}: MaxText places its axes in its own order (mesh_axes).": (
            layout.axis_order != Layout().axis_order
        ),
        f"rope.scaling={shape.rope.scaling} is not exported; choose rope_type and its factors.": (
            not says_rope(shape.rope)
        ),
        "context_method=ring: MaxText rings on TPUs and GPUs only; all_gather is exported.": (
            layout.context > 1 and layout.context_method == "ring" and not _rings(cluster, layout)
        ),
        f"model_name={shape.name}: MaxText takes the model from its own file of that name.": shape.name in NAMED,
        f"capacity_factor={workload.capacity_factor}: MaxText routes gpt-oss without a capacity.": bool(
            shape.moe is not None and workload.capacity_factor and dropless(shape, workload)
        ),
    }  # fmt: skip
    return tuple(sentence for sentence, holds in said.items() if holds)
