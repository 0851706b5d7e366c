"""A layout as a Hugging Face Accelerate configuration (YAML) with FSDP2; keys as `accelerate config` writes them."""

import yaml

from jaxscale.errors import LayoutError
from jaxscale.export.result import Export
from jaxscale.export.sharding import DataParallel, data_parallel
from jaxscale.types import Cluster, Layout, ModelShape, Workload
from jaxscale.types.legality import check_layout

# ours -> Accelerate's
MIXED_PRECISION = {"bf16": "bf16", "fp16": "fp16", "fp8": "fp8", "bf16_pure": "no", "fp32": "no"}
CONTEXT_STRATEGY = {"ring": "alltoall", "all_gather": "allgather"}  # how key and value blocks travel


def accelerate(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write the YAML that `accelerate launch --config_file` reads; batch and sequence length stay in the script."""
    check_layout(shape, workload, layout, cluster.num_devices)
    if layout.pipeline > 1:
        raise LayoutError(f"layout: pipeline={layout.pipeline}: Accelerate trains without pipelines; allowed: 1")
    parallel = data_parallel(layout)
    hosts = max(cluster.num_chips // cluster.chips_per_host, 1)
    config: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if parallel.stage else "MULTI_GPU",
        "mixed_precision": MIXED_PRECISION[workload.precision.name],
        "num_machines": hosts,
        "num_processes": cluster.num_devices,
        "machine_rank": 0,
        "main_training_function": "main",
        "use_cpu": cluster.chip.kind == "cpu",
        "debug": False,
    }
    if parallel.stage:
        config["fsdp_config"] = _fsdp(layout, parallel)
    if layout.tensor * layout.context > 1 or (parallel.stage and parallel.replicas > 1):
        config["parallelism_config"] = _parallelism(layout, parallel)
    text = yaml.safe_dump(config, sort_keys=False)
    return Export(text=text, filename="accelerate.yaml", notes=parallel.notes + _notes(workload, layout, parallel))


def _fsdp(layout: Layout, parallel: DataParallel) -> dict[str, object]:
    return {
        "fsdp_version": 2,
        "fsdp_reshard_after_forward": parallel.stage == 3,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": True,
        "fsdp_activation_checkpointing": layout.remat != "none",
        "fsdp_offload_params": layout.offload_optimizer,
    }


def _parallelism(layout: Layout, parallel: DataParallel) -> dict[str, object]:
    config: dict[str, object] = {
        "parallelism_config_dp_replicate_size": parallel.replicas,
        "parallelism_config_dp_shard_size": parallel.shards,
        "parallelism_config_tp_size": layout.tensor,
        "parallelism_config_cp_size": layout.context,
    }
    if layout.context > 1:
        config["parallelism_config_cp_comm_strategy"] = CONTEXT_STRATEGY[layout.context_method]
    return config


def _notes(workload: Workload, layout: Layout, parallel: DataParallel) -> tuple[str, ...]:
    steps = layout.num_microbatches(workload.global_batch_size)
    said = {
        f"The training script sets seq_len={workload.seq_len}, per_device_train_batch_size={layout.microbatch_size}, "
        f"gradient_accumulation_steps={steps} and optimizer={workload.optimizer.name}.": True,
        "FSDP shards gradients with the optimizer state: ZeRO stage 1 is exported as 2.": parallel.stage == 1,
        f"expert={layout.expert}: Accelerate has no expert parallelism; the axis shards the batch and the parameters, "
        "and experts are gathered.": layout.expert > 1,
        "sequence_parallel=true has no key: the model's own tensor-parallel plan decides.": layout.sequence_parallel
        and layout.tensor > 1,
        f"remat={layout.remat} is exported as recomputing whole layers.": layout.remat not in ("none", "full"),
        "offload_optimizer=true offloads parameters and gradients as well (CPU offload of FSDP).": bool(
            layout.offload_optimizer and parallel.stage
        ),
        "offload_optimizer=true has no key without FSDP.": bool(layout.offload_optimizer and not parallel.stage),
        "precision=bf16_pure: load the model in bfloat16 in the script; Accelerate then casts nothing.": (
            workload.precision.name == "bf16_pure"
        ),
    }  # fmt: skip
    return tuple(sentence for sentence, holds in said.items() if holds)
