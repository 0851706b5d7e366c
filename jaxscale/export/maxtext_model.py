"""A model's shape in MaxText's keys, checked against the model files that MaxText ships (`configs/models/*.yml`).

https://github.com/AI-Hypercomputer/maxtext/tree/main/src/maxtext/configs/models
"""

from jaxscale.errors import LayoutError
from jaxscale.types import ModelShape, RopeShape, Workload

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
LAYERS_PER_BLOCK = {"gemma2": 2}  # one of MaxText's layers is a pair: a windowed and a global one
# MaxText's key -> field of ModelShape, MoEShape, MLAShape
SHAPE_KEYS = {
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
    "attention_sink": "attention_sinks",
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
GROUP_KEYS = {"n_routing_groups": "num_expert_groups", "topk_routing_group": "groups_per_token"}  # above one group
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
CLAMPED_SWIGLU = ["sigmoid", "linear"]  # gpt-oss: the sigmoid of a clamped gate
YARN_KEYS = {
    "rope_factor": "factor",
    "original_max_position_embeddings": "original_max_seq_len",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
}
# Names that MaxText's gemma3 block asks for: it looks the scale of its queries up by them
NAMED = ("gemma3-4b", "gemma3-12b", "gemma3-27b")
# The only stretching of Llama 3 that MaxText knows; it is written into its code (layers/embeddings.py)
LLAMA31 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_seq_len": 8192}


def model_keys(shape: ModelShape, workload: Workload) -> dict[str, object]:
    """Everything that MaxText is told about the model."""
    if shape.family not in DECODER_BLOCKS or shape.mlp not in ACTIVATIONS:
        raise LayoutError(
            f"model {shape.name!r}: MaxText has no decoder block for family={shape.family} with mlp={shape.mlp}; "
            f"families: {', '.join(DECODER_BLOCKS)}"
        )
    sandwich = shape.norm_placement == "sandwich"
    config: dict[str, object] = {
        **_name(shape),
        "decoder_block": DECODER_BLOCKS[shape.family],
        "base_num_decoder_layers": num_blocks(shape),
        **{key: getattr(shape, field) for key, field in SHAPE_KEYS.items()},
        "mlp_bias": shape.mlp_bias or (shape.moe is not None and shape.moe.expert_bias),
        "mlp_activations": CLAMPED_SWIGLU if shape.swiglu_limit else ACTIVATIONS[shape.mlp],
        "mlp_activations_limit": shape.swiglu_limit or -1.0,
        "use_qk_norm": shape.qk_norm != "none",
        "use_post_attn_norm": sandwich,
        "use_post_ffw_norm": sandwich,
        "normalize_embedding_logits": shape.embedding_scale != 1.0,
        "enable_dropout": False,
    }
    if shape.family == "gpt_oss":
        config["inhomogeneous_layer_cycle_interval"] = shape.global_interval or 1
    return config | _rope(shape.rope) | _moe(shape, workload) | _attention(shape)


def _name(shape: ModelShape) -> dict[str, object]:
    """MaxText's own name where its code needs one; what that model's file says then goes before the keys here."""
    if shape.family != "gemma3_text":
        return {"model_name": "default"}
    if shape.name not in NAMED:
        raise LayoutError(f"model {shape.name!r}: MaxText builds gemma3 under these names only: {', '.join(NAMED)}")
    return {"model_name": shape.name}


def num_blocks(shape: ModelShape) -> int:
    """Layers as MaxText counts them."""
    per_block = LAYERS_PER_BLOCK.get(shape.family, 1)
    if shape.num_layers % per_block:
        raise LayoutError(f"num_layers={shape.num_layers}: MaxText builds {shape.family} from blocks of {per_block}")
    return shape.num_layers // per_block


def _attention(shape: ModelShape) -> dict[str, object]:
    if shape.mla is not None:
        return {"attention_type": "mla"} | {key: getattr(shape.mla, field) for key, field in MLA_KEYS.items()}
    return {"attention_type": "local_sliding"} if shape.window and not shape.global_interval else {}


def dropless(shape: ModelShape, workload: Workload) -> bool:
    """Whether MaxText routes without a capacity; of gpt-oss it knows nothing else."""
    return not workload.capacity_factor or shape.family == "gpt_oss"


def _moe(shape: ModelShape, workload: Workload) -> dict[str, object]:
    if shape.moe is None:
        return {}
    config: dict[str, object] = {key: getattr(shape.moe, field) for key, field in MOE_KEYS.items()}
    if shape.moe.num_expert_groups > 1:
        config |= {key: getattr(shape.moe, field) for key, field in GROUP_KEYS.items()}
    config["capacity_factor"] = -1.0 if dropless(shape, workload) else workload.capacity_factor
    config["sparse_matmul"] = dropless(shape, workload)
    if shape.num_moe_layers == shape.num_layers:
        config["base_mlp_dim"] = shape.moe.expert_d_ff  # MaxText requires both widths to be one
    scored = shape.family.startswith("deepseek")  # MaxText's other blocks take the softmax of the chosen ones
    config["routed_score_func"] = shape.moe.router if scored else ""
    return config


def says_rope(rope: RopeShape) -> bool:
    """Whether MaxText can be told how the positions are stretched."""
    if rope.scaling == "llama3":
        return all(getattr(rope, field) == value for field, value in LLAMA31.items())
    return rope.scaling in ("none", "linear", "yarn")


def _rope(rope: RopeShape) -> dict[str, object]:
    config: dict[str, object] = {"rope_max_timescale": int(rope.theta)}
    if rope.local_theta:
        config["local_rope_max_timescale"] = int(rope.local_theta)
    if rope.scaling == "llama3" and says_rope(rope):
        config["rope_type"] = "llama3.1"
    if rope.scaling == "linear":
        config["rope_linear_scaling_factor"] = rope.factor
    if rope.scaling == "yarn":
        config |= {"rope_type": "yarn", "max_position_embeddings": int(rope.factor * rope.original_max_seq_len)}
        config |= {key: int(getattr(rope, field)) for key, field in YARN_KEYS.items()}
        config |= {"rope_interleave": rope.interleaved, "rope_truncate": rope.truncate}
        config |= {"rope_attention_scaling": not rope.mscale, "mscale": rope.mscale or 1.0}
    return config
