"""A model's shape in the keys of Levanter's model configs (`levanter.models`), as of marin-levanter 0.2.227.

https://github.com/marin-community/marin/tree/main/lib/levanter/src/levanter/models
"""

from jaxscale.errors import LayoutError
from jaxscale.types import ModelShape, RopeShape, Workload

# family -> the `type` of Levanter's config; its gemma2 and gemma3 have heads of d_model / num_heads, as no Gemma does
TYPES = {
    "llama": "llama",
    "mistral": "llama",  # Levanter's own mistral takes no width of a head, and no window either
    "mixtral": "mixtral",
    "qwen2": "qwen",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "gemma": "gemma",
    "olmo2": "olmo2",
    "gpt2": "gpt2",
}
HEAD_IS_SHARE_OF_MODEL = ("mixtral", "gemma", "olmo2", "gpt2")  # types whose head width is d_model / num_heads
FULL_POLICY = ("llama", "qwen", "qwen3")  # types whose gradient_checkpointing may be more than a switch
SPARSE = ("mixtral", "qwen3_moe")
# Levanter's key -> field of ModelShape
SHAPE_KEYS = {
    "hidden_dim": "d_model",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "num_kv_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_dim": "d_ff",
    "layer_norm_epsilon": "norm_epsilon",
    "tie_word_embeddings": "tied_embeddings",
}
ACTIVATIONS = {
    "swiglu": "silu", "geglu": "gelu_new", "geglu_erf": "gelu", "gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu",
    "relu2": "relu2",
}  # fmt: skip
MOE_KEYS = {
    "mixtral": {"n_routed_experts": "num_experts", "num_experts_per_tok": "experts_per_token",
                "n_shared_experts": "num_shared_experts", "intermediate_dim": "expert_d_ff"},
    "qwen3_moe": {"num_experts": "num_experts", "num_experts_per_tok": "experts_per_token",
                  "moe_intermediate_dim": "expert_d_ff", "norm_topk_prob": "renormalize_top_k"},
}  # fmt: skip
GPT2_KEYS = ("hidden_dim", "num_layers", "num_heads", "layer_norm_epsilon")
LLAMA3_ROPE = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_seq_len",
}
YARN_ROPE = {
    "factor": "factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "original_max_position_embeddings": "original_max_seq_len",
}
ROPES = {"none": {}, "linear": {"factor": "factor"}, "llama3": LLAMA3_ROPE, "yarn": YARN_ROPE}


def model_type(shape: ModelShape) -> str:
    """Levanter's name of the architecture; raises LayoutError where it has none."""
    if shape.family not in TYPES:
        raise LayoutError(
            f"model {shape.name!r}: Levanter has no config for family={shape.family}; families: {', '.join(TYPES)}"
        )
    kind = TYPES[shape.family]
    if kind in HEAD_IS_SHARE_OF_MODEL and shape.head_dim * shape.num_heads != shape.d_model:
        raise LayoutError(
            f"model {shape.name!r}: head_dim={shape.head_dim} cannot be said to Levanter's {kind}; allowed: "
            f"d_model / num_heads = {shape.d_model / shape.num_heads:g}"
        )
    if (shape.moe is not None) != (kind in SPARSE):
        raise LayoutError(f"model {shape.name!r}: Levanter's {kind} and experts do not go together")
    return kind


def model_keys(shape: ModelShape, workload: Workload) -> dict[str, object]:
    """The `model` section, without what is recomputed."""
    kind = model_type(shape)
    config: dict[str, object] = {"type": kind, "max_seq_len": max(shape.max_seq_len, workload.seq_len)}
    config["activation_function"] = ACTIVATIONS[shape.mlp]
    if kind == "gpt2":
        return config | _gpt2(shape)
    config |= {key: getattr(shape, field) for key, field in SHAPE_KEYS.items()}
    if kind in HEAD_IS_SHARE_OF_MODEL:
        del config["head_dim"]
    if shape.moe is not None:
        config |= {key: getattr(shape.moe, field) for key, field in MOE_KEYS[kind].items()}
    return config | _extras(shape, kind) | {"rope": _rope(shape.rope)}


def _gpt2(shape: ModelShape) -> dict[str, object]:
    """Levanter's GPT-2 ties its embeddings and has a width of the MLP in multiples of the model's."""
    if shape.d_ff % shape.d_model or shape.positions != "learned" or not shape.tied_embeddings:
        raise LayoutError(
            f"model {shape.name!r}: Levanter's gpt2 has learned positions, tied embeddings, and a d_ff that d_model "
            f"divides; this one has positions={shape.positions}, tied_embeddings={shape.tied_embeddings}, "
            f"d_ff={shape.d_ff}, d_model={shape.d_model}"
        )
    config: dict[str, object] = {key: getattr(shape, SHAPE_KEYS[key]) for key in GPT2_KEYS}
    return config | {"mlp_scale": shape.d_ff // shape.d_model, "use_bias": shape.mlp_bias}


def _extras(shape: ModelShape, kind: str) -> dict[str, object]:
    """What only some of the architectures have."""
    if kind == "qwen3_moe":
        return {"use_qk_norm": shape.qk_norm != "none", "use_bias": shape.qkv_bias}
    if kind == "llama":
        return {"use_qk_norm": shape.qk_norm != "none"}
    return {}


def says_rope(rope: RopeShape) -> bool:
    """Whether Levanter can be told how the positions are stretched."""
    return rope.scaling in ROPES


def _rope(rope: RopeShape) -> dict[str, object]:
    kind = rope.scaling if says_rope(rope) else "none"
    name = "default" if kind == "none" else kind
    return {"type": name, "theta": rope.theta, **{key: getattr(rope, field) for key, field in ROPES[kind].items()}}
