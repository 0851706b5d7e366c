"""A layout as a DeepSpeed configuration (JSON), checked against the package's own reader (0.19)."""

import json

from jaxscale.errors import LayoutError
from jaxscale.export.result import Export
from jaxscale.export.sharding import data_parallel
from jaxscale.types import Cluster, Layout, ModelShape, Workload
from jaxscale.types.legality import check_layout

# ours -> DeepSpeed's
OPTIMIZERS = {"adamw": "AdamW", "lion": "Lion", "muon": "Muon", "sgd": "SGD"}
PRECISION_KEYS: dict[str, dict[str, object]] = {
    "bf16": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
    "fp16": {"fp16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
    "fp8": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
    "bf16_pure": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "bf16"}},
    "fp32": {},
}


def deepspeed(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write the JSON that `deepspeed.initialize(config=...)` reads; model and sequence length stay in the script."""
    check_layout(shape, workload, layout, cluster.num_devices)
    parallel = data_parallel(layout)
    if layout.pipeline > 1 and parallel.stage > 1:
        raise LayoutError(
            f"layout: pipeline={layout.pipeline} with ZeRO stage {parallel.stage}: DeepSpeed's pipeline engine allows "
            "stages 0 and 1; set zero=1"
        )
    zero: dict[str, object] = {"stage": parallel.stage}
    if layout.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    config: dict[str, object] = {
        "train_batch_size": workload.global_batch_size,
        "train_micro_batch_size_per_gpu": layout.microbatch_size,
        "gradient_accumulation_steps": layout.num_microbatches(workload.global_batch_size),
        "zero_optimization": zero,
        **PRECISION_KEYS[workload.precision.name],
    }
    if workload.optimizer.name in OPTIMIZERS:
        config["optimizer"] = {"type": OPTIMIZERS[workload.optimizer.name], "params": {}}
    if workload.optimizer.name == "sgd" and parallel.stage:
        config["zero_allow_untested_optimizer"] = True  # torch's own; ZeRO stops without it
    if layout.tensor > 1:
        config["tensor_parallel"] = {"autotp_size": layout.tensor}
    if layout.context > 1:
        config["sequence_parallel_size"] = layout.context
    if "offload" in layout.remat:
        config["activation_checkpointing"] = {"cpu_checkpointing": True, "partition_activations": False}
    notes = parallel.notes + _notes(workload, layout, parallel.stage, parallel.replicas)
    return Export(text=json.dumps(config, indent=2) + "\n", filename="ds_config.json", notes=notes)


def _notes(workload: Workload, layout: Layout, stage: int, replicas: int) -> tuple[str, ...]:
    optimizer, precision = workload.optimizer.name, workload.precision.name
    said = {
        f"seq_len={workload.seq_len} and the model are given to the training script, not to DeepSpeed's JSON.": True,
        f"pipeline={layout.pipeline} is given in code: PipelineModule(num_stages={layout.pipeline}).": layout.pipeline
        > 1,
        f"schedule={layout.schedule}: DeepSpeed's pipeline engine runs 1f1b.": layout.pipeline > 1
        and (layout.schedule, layout.virtual_stages) != ("1f1b", 1),
        f"expert={layout.expert} is given in code: MoE(ep_size={layout.expert}).": layout.expert > 1,
        f"context={layout.context} is Ulysses sequence parallelism in DeepSpeed (all-to-all over heads), not "
        f"{layout.context_method}.": layout.context > 1,
        "sequence_parallel=true has no key: AutoTP keeps activations whole.": layout.sequence_parallel
        and layout.tensor > 1,
        f"data={replicas} replicas: ZeRO shards over all data-parallel ranks, not over fsdp={layout.fsdp} (MiCS, which "
        "did, was removed in DeepSpeed 0.19).": stage > 0 and replicas > 1,
        f"remat={layout.remat} is given in the model's code (torch.utils.checkpoint).": True,
        f"optimizer={optimizer} is given in code: DeepSpeed has no name for it.": optimizer not in OPTIMIZERS,
        "precision=fp8 is given in code (Transformer Engine); bf16 is exported.": precision == "fp8",
    }
    return tuple(sentence for sentence, holds in said.items() if holds)
