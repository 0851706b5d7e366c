"""A layout as a torchtitan configuration: since 0.3 that is a Python function that returns a `Trainer.Config`.

https://github.com/pytorch/torchtitan/tree/main/torchtitan/config
"""

from jaxscale.errors import LayoutError
from jaxscale.export.result import Export
from jaxscale.export.sharding import data_parallel
from jaxscale.types import Cluster, Layout, ModelShape, Workload
from jaxscale.types.legality import check_layout

# (family, layers, d_model) -> torchtitan's module and function that describe the same model
MODELS = {
    ("llama", 32, 4096): ("llama3", "llama3_8b"),
    ("llama", 80, 8192): ("llama3", "llama3_70b"),
    ("llama", 126, 16384): ("llama3", "llama3_405b"),
    ("qwen3", 28, 1024): ("qwen3", "qwen3_0_6b"),
    ("qwen3", 28, 2048): ("qwen3", "qwen3_1_7b"),
    ("qwen3", 40, 5120): ("qwen3", "qwen3_14b"),
    ("qwen3", 64, 5120): ("qwen3", "qwen3_32b"),
    ("qwen3_moe", 48, 2048): ("qwen3", "qwen3_30b_a3b"),
    ("deepseek_v2", 27, 2048): ("deepseek_v3", "deepseek_v3_16b"),
    ("deepseek_v3", 61, 7168): ("deepseek_v3", "deepseek_v3_671b"),
    ("gpt_oss", 24, 2880): ("gpt_oss", "gpt_oss_20b"),
    ("gpt_oss", 36, 2880): ("gpt_oss", "gpt_oss_120b"),
}
LLAMA3_VOCABULARY = 128_256  # what sets Llama 3 apart from other models of its family with the same sizes
SCHEDULES = {
    "gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "Interleaved1F1B", "zero_bubble": "InterleavedZeroBubble",
    "layered": "LoopedBFS",
}  # fmt: skip
REMATS = {"none": "None", "full": "FullAC.Config()"}  # the rest: SelectiveAC
PRECISIONS = {
    "bf16": {"dtype": "float32", "mixed_precision_param": "bfloat16"},
    "bf16_pure": {"dtype": "bfloat16", "mixed_precision_param": "bfloat16"},
    "fp32": {"dtype": "float32", "mixed_precision_param": "float32"},
}


def torchtitan(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write a module for `--module jaxscale_torchtitan --config train`, where torchtitan knows the model."""
    check_layout(shape, workload, layout, cluster.num_devices)
    if workload.precision.name not in PRECISIONS:
        raise LayoutError(
            f"precision={workload.precision.name!r}: torchtitan sets it in its model converters; allowed here: "
            f"{', '.join(PRECISIONS)}"
        )
    settings = {"training": _training(shape, workload, layout), "parallelism": _parallelism(shape, layout)}
    lines = [
        f"    config.{section}.{key} = {value!r}" for section, keys in settings.items() for key, value in keys.items()
    ]
    remat = REMATS.get(layout.remat, "SelectiveAC.Config()")
    lines.append(f"    config.activation_checkpoint = {remat}")
    known = _model(shape)
    imports = []
    if remat != "None":
        name = remat.split(".")[0]
        imports.append(f"from torchtitan.distributed.activation_checkpoint import {name}")
    if known:
        imports.append(f"from torchtitan.models.{known[0]}.config_registry import {known[1]}")
    imports.append("from torchtitan.trainer import Trainer")
    body = [
        f'"""{shape.name} on {cluster.name}: {layout}."""', "", *imports, "", "",
        "def apply(config: Trainer.Config) -> Trainer.Config:",
        '    """Set batch, parallelism and recomputation; the model is left as it is."""',
        *lines, "    return config",
    ]  # fmt: skip
    if known:
        body += ["", "", "def train() -> Trainer.Config:", f"    return apply({known[1]}())"]
    return Export(text="\n".join(body) + "\n", filename="jaxscale_torchtitan.py", notes=_notes(shape, workload, layout))


def _model(shape: ModelShape) -> tuple[str, str] | None:
    if shape.family == "llama" and shape.vocab_size != LLAMA3_VOCABULARY:
        return None
    return MODELS.get((shape.family, shape.num_layers, shape.d_model))


def _training(shape: ModelShape, workload: Workload, layout: Layout) -> dict[str, object]:
    """Without a pipeline the local batch is one microbatch; with one it is all of them."""
    local = workload.global_batch_size // layout.batch_shards
    return {
        "seq_len": workload.seq_len,
        "global_batch_size": workload.global_batch_size,
        "local_batch_size": local if layout.pipeline > 1 else layout.microbatch_size,
        "enable_cpu_offload": layout.offload_optimizer,
        # Its CUDA graphs refuse pipelines, and experts whose number of tokens the host must know.
        "disable_cuda_graphs": layout.pipeline > 1 or shape.moe is not None,
        **PRECISIONS[workload.precision.name],
    }


def _parallelism(shape: ModelShape, layout: Layout) -> dict[str, object]:
    parallel = data_parallel(layout)
    settings: dict[str, object] = {
        "data_parallel_replicate_degree": parallel.replicas,
        "data_parallel_shard_degree": parallel.shards,
        "fsdp_reshard_after_forward": "always" if parallel.stage == 3 else "never",
        "tensor_parallel_degree": layout.tensor,
        "enable_sequence_parallel": layout.sequence_parallel,
        "context_parallel_degree": layout.context,
        "expert_parallel_degree": layout.expert,
        "pipeline_parallel_degree": layout.pipeline,
    }
    if layout.pipeline > 1:
        chunks = layout.pipeline * layout.virtual_stages
        settings["pipeline_parallel_schedule"] = SCHEDULES[layout.schedule]
        settings["pipeline_parallel_microbatch_size"] = layout.microbatch_size
        settings["pipeline_parallel_layers_per_stage"] = -(-shape.num_layers // chunks)
        settings["pipeline_parallel_first_stage_less_layers"] = 0
        settings["pipeline_parallel_last_stage_less_layers"] = 0
    return settings


def _notes(shape: ModelShape, workload: Workload, layout: Layout) -> tuple[str, ...]:
    parallel = data_parallel(layout)
    said = {
        f"torchtitan has no configuration of {shape.name}; call apply() on that of your own model.": _model(shape)
        is None,
        "torchtitan has no ZeRO stage 1: stages 1 and 2 are exported as FSDP that keeps parameters gathered after the "
        "forward pass, so that they rest sharded.": parallel.stage in (1, 2),
        f"remat={layout.remat} is exported as SelectiveAC, which keeps every second matmul.": layout.remat
        not in REMATS,
        f"optimizer={workload.optimizer.name} is chosen by the model's configuration (AdamW by default).": (
            workload.optimizer.name != "adamw"
        ),
        "offload_optimizer=true offloads parameters and gradients too (enable_cpu_offload).": layout.offload_optimizer,
        f"context_method={layout.context_method}: torchtitan's context parallelism chooses it itself.": layout.context
        > 1,
        f"tensor={layout.tensor} does not split experts once expert_parallel_degree is above 1.": layout.expert > 1
        and layout.tensor > 1,
        f"capacity_factor={workload.capacity_factor}: torchtitan's experts are dropless.": bool(
            shape.moe is not None and workload.capacity_factor
        ),
    }
    return parallel.notes + tuple(sentence for sentence, holds in said.items() if holds)
