"""A layout as a MaxText configuration (YAML laid over its base.yml); keys as in MaxText 0.2.

https://github.com/AI-Hypercomputer/maxtext/blob/main/src/maxtext/configs/base.yml
"""

import yaml

from jaxscale.errors import LayoutError
from jaxscale.export.result import Export
from jaxscale.export.sharding import outer_degrees
from jaxscale.types import AXES, REMAT_POLICIES, Cluster, Layout, ModelShape, Workload
from jaxscale.types.legality import check_layout

DECODER_BLOCKS = {
    "llama": "llama2",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "gpt_oss": "gpt_oss",
}
# MaxText's key -> field of ModelShape, MoEShape, MLAShape, RopeShape
SHAPE_KEYS = {
    "base_num_decoder_layers": "num_layers",
    "base_emb_dim": "d_model",
    "base_num_query_heads": "num_heads",
    "base_num_kv_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "base_mlp_dim": "d_ff",
    "vocab_size": "vocab_size",
    "logits_via_embedding": "tied_embeddings",
    "normalization_layer_epsilon": "norm_epsilon",
    "sliding_window_size": "window",
    "attn_logits_soft_cap": "attention_softcap",
    "final_logits_soft_cap": "logit_softcap",
    "attention_bias": "qkv_bias",
    "mlp_bias": "mlp_bias",
}
MOE_KEYS = {
    "num_experts": "num_experts",
    "num_experts_per_tok": "experts_per_token",
    "base_moe_mlp_dim": "expert_d_ff",
    "shared_experts": "num_shared_experts",
    "first_num_dense_layers": "num_leading_dense_layers",
    "norm_topk_prob": "renormalize_top_k",
    "routed_scaling_factor": "routed_scale",
    "routed_bias": "router_bias",
}
MLA_KEYS = {
    "q_lora_rank": "q_lora_rank",
    "kv_lora_rank": "kv_lora_rank",
    "qk_nope_head_dim": "qk_nope_head_dim",
    "qk_rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
}
ACTIVATIONS = {
    "swiglu": ["silu", "linear"],
    "geglu": ["gelu", "linear"],
    "gelu": ["gelu"],
    "gelu_tanh": ["gelu"],
    "relu": ["relu"],
}
PRECISION_KEYS = {
    "bf16": {"dtype": "bfloat16", "weight_dtype": "float32", "grad_dtype": "float32", "quantization": ""},
    "fp8": {"dtype": "bfloat16", "weight_dtype": "float32", "grad_dtype": "float32", "quantization": "fp8"},
    "bf16_pure": {"dtype": "bfloat16", "weight_dtype": "bfloat16", "grad_dtype": "bfloat16", "quantization": ""},
    "fp32": {"dtype": "float32", "weight_dtype": "float32", "grad_dtype": "float32", "quantization": ""},
}
OPTIMIZERS = {"adamw": "adamw", "sgd": "sgd", "muon": "muon"}
CONTEXT_STRATEGIES = {"ring": "ring", "all_gather": "all_gather"}
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
    if shape.family not in DECODER_BLOCKS or shape.mlp not in ACTIVATIONS:
        raise LayoutError(
            f"model {shape.name!r}: MaxText has no decoder block for family={shape.family} with mlp={shape.mlp}; "
            f"families: {', '.join(DECODER_BLOCKS)}"
        )
    if workload.precision.name not in PRECISION_KEYS:
        raise LayoutError(
            f"precision={workload.precision.name!r} is unknown to MaxText; allowed: {', '.join(PRECISION_KEYS)}"
        )
    config: dict[str, object] = {"base_config": "base.yml", "run_name": shape.name, "model_name": "default"}
    config |= _model(shape, workload) | _batch(shape, workload, layout) | _parallelism(cluster, layout)
    config |= _remat(layout) | PRECISION_KEYS[workload.precision.name]
    config["optimizer_memory_host_offload"] = layout.offload_optimizer
    if workload.optimizer.name in OPTIMIZERS:
        config["opt_type"] = OPTIMIZERS[workload.optimizer.name]
    text = yaml.safe_dump(config, sort_keys=False, width=120)
    return Export(text=text, filename="maxtext.yml", notes=_notes(shape, workload, layout))


def _model(shape: ModelShape, workload: Workload) -> dict[str, object]:
    config: dict[str, object] = {"decoder_block": DECODER_BLOCKS[shape.family]}
    config |= {key: getattr(shape, field) for key, field in SHAPE_KEYS.items()}
    config["mlp_activations"] = ACTIVATIONS[shape.mlp]
    config["use_qk_norm"] = shape.qk_norm != "none"
    config["rope_max_timescale"] = int(shape.rope.theta)
    if shape.moe is not None:
        config |= {key: getattr(shape.moe, field) for key, field in MOE_KEYS.items()}
        config["capacity_factor"] = workload.capacity_factor or -1.0
        config["sparse_matmul"] = not workload.capacity_factor
        config["routed_score_func"] = "sigmoid" if shape.moe.router == "sigmoid" else ""
    if shape.mla is not None:
        config |= {"attention_type": "mla"} | {key: getattr(shape.mla, field) for key, field in MLA_KEYS.items()}
    elif shape.window and not shape.global_interval:
        config["attention_type"] = "local_sliding"
    return config


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
        chunks = layout.pipeline * layout.virtual_stages
        if shape.num_layers % chunks or num_microbatches % layout.pipeline:
            raise LayoutError(
                f"layout: pipeline={layout.pipeline}, virtual_stages={layout.virtual_stages}: MaxText needs "
                f"num_layers={shape.num_layers} in equal chunks, and its {num_microbatches} microbatches in multiples "
                "of pipeline"
            )
        config["num_layers_per_pipeline_stage"] = shape.num_layers // chunks
        config["num_pipeline_microbatches"] = num_microbatches
    return config


def _replicated(layout: Layout) -> bool:
    """Whether parameters stay whole on the fsdp axis, which MaxText calls data."""
    return layout.params_shard == "none"


def _parallelism(cluster: Cluster, layout: Layout) -> dict[str, object]:
    outer = outer_degrees(layout, cluster)
    inner = {axis: getattr(layout, axis) // outer[axis] for axis in AXES}
    config: dict[str, object] = {}
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
    if layout.context > 1:
        config["context_parallel_strategy"] = CONTEXT_STRATEGIES[layout.context_method]
    return config


def _remat(layout: Layout) -> dict[str, object]:
    policy = REMAT_POLICIES[layout.remat]
    if layout.remat == "full":
        return {"remat_policy": "full"}
    places = {
        key: "device" if op in policy.saved else "offload" if op in policy.offloaded else "remat"
        for key, op in REMAT_KEYS.items()
    }
    layer_input = "offload" if policy.offload_layer_input else "device"
    return {"remat_policy": "custom", "decoder_layer_input": layer_input, **places}


def _notes(shape: ModelShape, workload: Workload, layout: Layout) -> tuple[str, ...]:
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
            shape.rope.scaling != "none"
        ),
    }  # fmt: skip
    return tuple(sentence for sentence, holds in said.items() if holds)
