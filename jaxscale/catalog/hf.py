"""A Hugging Face `config.json` -> `ModelShape`.

One function a family reads the fields of that family and refuses what a `ModelShape` cannot say. Field names follow
transformers 4 and 5; defaults are those of the family's configuration class, because files on the Hub leave out
what equals them.
"""

import math
from collections.abc import Callable
from typing import Any

from jaxscale.catalog.hf_fields import Fields, rope_shape
from jaxscale.catalog.strict import require_mapping
from jaxscale.errors import SpecError, nearest
from jaxscale.types import MLAShape, ModelShape, MoEShape

_GATED = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu"}
_PLAIN = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def shape_from_config(config: object, *, name: str, where: str = "config.json") -> ModelShape:
    """Translate a parsed `config.json`; `where` begins every error."""
    fields = Fields(values=require_mapping(config, where=where), where=where)
    text = fields.nested("text_config")  # multimodal wrappers hold the language model inside
    if text is not None and fields.values.get("model_type") not in FAMILIES:
        fields = text
    kind = fields.raw("model_type")
    reader = FAMILIES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        known = ", ".join(sorted(FAMILIES))
        raise SpecError(f"{where}: model_type={kind!r} is not supported; known: {known}.{nearest(str(kind), FAMILIES)}")
    fields.refuse("is_encoder_decoder", [False], "jaxscale models decoder-only transformers")
    fields.refuse("add_cross_attention", [False], "jaxscale models decoder-only transformers")
    try:
        return ModelShape(name=name, family=_ALIASES.get(kind, kind), source=where, **reader(fields))
    except SpecError as error:
        raise error if str(error).startswith(where) else SpecError(f"{where}: {error}") from error


def _sizes(c: Fields, **defaults: int) -> dict[str, Any]:
    """The sizes that every Llama-like family spells the same."""
    d_model = c.count("hidden_size", limit="width")
    heads = c.count("num_attention_heads", limit="heads", **_default(defaults, "num_attention_heads"))
    kv_heads = c.count("num_key_value_heads", limit="heads", default=defaults.get("num_key_value_heads", heads))
    head_dim = c.raw("head_dim", default=defaults.get("head_dim"))
    if head_dim is None and d_model % heads:
        raise SpecError(f"{c.where}: hidden_size={d_model} is not a multiple of num_attention_heads={heads}")
    return {
        "num_layers": c.count("num_hidden_layers", limit="layers"),
        "d_model": d_model,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": d_model // heads if head_dim is None else c.count("head_dim", limit="width", default=head_dim),
        "d_ff": c.count("intermediate_size", limit="width"),
        "vocab_size": c.count("vocab_size", limit="vocabulary", **_default(defaults, "vocab_size")),
    }


def _default(defaults: dict[str, int], name: str) -> dict[str, int]:
    return {"default": defaults[name]} if name in defaults else {}


def _llama_like(
    c: Fields, *, tied: bool = False, epsilon: float = 1e-6, theta: float = 10_000.0, **defaults: int
) -> dict[str, Any]:
    return _sizes(c, **defaults) | {
        "mlp": c.choice("hidden_act", "hidden_activation", allowed=_GATED, default="silu"),
        "tied_embeddings": c.flag("tie_word_embeddings", default=tied),
        "norm_epsilon": c.number("rms_norm_eps", default=epsilon, maximum=1.0),
        "rope": rope_shape(c, default_theta=theta),
    }


def _biases(c: Fields, *, default: bool = False) -> dict[str, bool]:
    """`attention_bias` puts a bias on all four projections."""
    bias = c.flag("attention_bias", default=default)
    return {"qkv_bias": bias, "attention_out_bias": bias}


def _window(c: Fields, num_layers: int, *, interval: int = 0, default: int = 0) -> dict[str, int]:
    """Window and interval of full layers, from `layer_types` where given; `interval` is the family's own pattern."""
    window = c.count("sliding_window", limit="tokens", default=default, minimum=0)
    types = c.raw("layer_types", default=None)
    if types is not None:
        interval = _interval(c, types, num_layers)
        if interval == 1:
            return {}
    longest = c.count("max_position_embeddings", limit="tokens", default=2**31)
    if not window or window >= longest:
        return {}
    return {"window": window, "global_interval": interval}


def _interval(c: Fields, types: object, num_layers: int) -> int:
    """The g of "every g-th layer is full": 0 = none is, 1 = all are."""
    if not isinstance(types, list) or len(types) != num_layers:
        raise SpecError(f"{c.where}: layer_types must list one kind for each of the {num_layers} layers")
    unknown = set(map(str, types)) - {"full_attention", "sliding_attention"}
    if unknown:
        raise SpecError(f"{c.where}: layer_types has {min(unknown)!r}; known: full_attention, sliding_attention")
    full = [kind == "full_attention" for kind in types]
    interval = full.index(True) + 1 if any(full) else 0
    if any(is_full != (bool(interval) and (i + 1) % interval == 0) for i, is_full in enumerate(full)):
        raise SpecError(f"{c.where}: layer_types must repeat one pattern that ends in its only full_attention layer")
    return interval


def _qwen_window(c: Fields, num_layers: int) -> dict[str, int]:
    """Qwen windows the layers from `max_window_layers` on, if it windows at all."""
    if not c.flag("use_sliding_window", default=False):
        return {}
    first = c.count("max_window_layers", limit="layers", default=0, minimum=0)
    if 0 < first < num_layers and c.values.get("layer_types") is None:
        raise SpecError(f"{c.where}: max_window_layers={first} windows some last layers only, which is not supported")
    return {} if first >= num_layers else _window(c, num_layers)


def _llama(c: Fields) -> dict[str, Any]:
    return _llama_like(c) | _biases(c) | {"mlp_bias": c.flag("mlp_bias", default=False)}


def _mistral(c: Fields) -> dict[str, Any]:
    made = _llama_like(c)
    return made | _window(c, made["num_layers"])


def _mixtral(c: Fields) -> dict[str, Any]:
    made = _llama_like(c, epsilon=1e-5, theta=1e6)
    experts = MoEShape(
        num_experts=c.count("num_local_experts", "num_experts", limit="experts"),
        experts_per_token=c.count("num_experts_per_tok", limit="experts"),
        expert_d_ff=made["d_ff"],
    )
    return made | _window(c, made["num_layers"]) | {"moe": experts}


def _qwen2(c: Fields) -> dict[str, Any]:
    made = _llama_like(c)
    return made | _qwen_window(c, made["num_layers"]) | {"qkv_bias": True}


def _qwen3(c: Fields) -> dict[str, Any]:
    made = _llama_like(c, head_dim=128)
    return made | _qwen_window(c, made["num_layers"]) | _biases(c) | {"qk_norm": "head"}


def _sparse_layers(c: Fields) -> dict[str, int]:
    """Which layers have experts: `mlp_only_layers` may name leading layers, or `decoder_sparse_step` every n-th."""
    step = c.count("decoder_sparse_step", limit="layers", default=1)
    dense = c.raw("mlp_only_layers", default=[])
    if not isinstance(dense, list) or sorted(map(str, dense)) != sorted(map(str, range(len(dense)))):
        raise SpecError(f"{c.where}: mlp_only_layers={dense!r} must name the first layers only, 0, 1, ...")
    if dense and step != 1:
        raise SpecError(f"{c.where}: mlp_only_layers together with decoder_sparse_step={step} is not supported")
    return {"num_leading_dense_layers": len(dense), "layer_interval": step}


def _qwen_experts(c: Fields, **shared: Any) -> MoEShape:
    return MoEShape(
        num_experts=c.count("num_experts", "num_local_experts", limit="experts"),
        experts_per_token=c.count("num_experts_per_tok", limit="experts"),
        expert_d_ff=c.count("moe_intermediate_size", limit="width"),
        renormalize_top_k=c.flag("norm_topk_prob", default=False),
        **_sparse_layers(c),
        **shared,
    )


def _qwen2_moe(c: Fields) -> dict[str, Any]:
    made = _llama_like(c)
    shared = c.count("shared_expert_intermediate_size", limit="width")
    experts = _qwen_experts(c, num_shared_experts=1, shared_expert_d_ff=shared, shared_expert_gate=True)
    return made | _qwen_window(c, made["num_layers"]) | {"qkv_bias": c.flag("qkv_bias", default=True), "moe": experts}


def _qwen3_moe(c: Fields) -> dict[str, Any]:
    made = _llama_like(c)
    return made | _qwen_window(c, made["num_layers"]) | _biases(c) | {"qk_norm": "head", "moe": _qwen_experts(c)}


def _gemma(c: Fields, **defaults: int) -> dict[str, Any]:
    """Gemma scales embeddings by sqrt(d_model), stores norm weights as an offset from one and ties the head."""
    made = _llama_like(c, tied=True, head_dim=256, **defaults) | _biases(c)
    return made | {"mlp": "geglu", "norm_unit_offset": True, "embedding_scale": math.sqrt(made["d_model"])}


def _gemma2(
    c: Fields, *, interval: int = 2, window: int = 4096, soft: tuple[float, float] = (50.0, 30.0), **defaults: int
) -> dict[str, Any]:
    made = _gemma(c, **defaults)
    present = ("attn_logit_softcapping", "final_logit_softcapping")
    caps = [
        0.0 if n in c.values and c.values[n] is None else c.number(n, default=d)
        for n, d in zip(present, soft, strict=True)
    ]
    return made | {
        **_window(c, made["num_layers"], interval=interval, default=window),
        "norm_placement": "sandwich",
        "attention_scale": c.number("query_pre_attn_scalar", default=256, minimum=1e-6) ** -0.5,
        "attention_softcap": caps[0],
        "logit_softcap": caps[1],
    }


def _gemma3(c: Fields) -> dict[str, Any]:
    interval = c.count("sliding_window_pattern", "_sliding_window_pattern", limit="layers", default=6)
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262_208}
    made = _gemma2(c, interval=interval, soft=(0.0, 0.0), **sizes)
    rope = rope_shape(c, default_theta=1e6)
    if not rope.local_theta and c.nested("rope_parameters") is None:
        rope = rope_shape(
            Fields(values={**c.values, "rope_local_base_freq": 10_000.0}, where=c.where), default_theta=1e6
        )
    return made | {"qk_norm": "head", "rope": rope}


def _gpt2(c: Fields) -> dict[str, Any]:
    c.refuse("scale_attn_by_inverse_layer_idx", [False], "attention is scaled alike in all layers")
    d_model = c.count("n_embd", "hidden_size", limit="width")
    heads = c.count("n_head", "num_attention_heads", limit="heads")
    if d_model % heads:
        raise SpecError(f"{c.where}: n_embd={d_model} is not a multiple of n_head={heads}")
    return _layernorm(c, "layer_norm_epsilon") | {
        "num_layers": c.count("n_layer", "num_hidden_layers", limit="layers"),
        "d_model": d_model,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": d_model // heads,
        "d_ff": c.count("n_inner", limit="width", default=4 * d_model),
        "vocab_size": c.count("vocab_size", limit="vocabulary"),
        "mlp": c.choice("activation_function", allowed=_PLAIN, default="gelu_new"),
        "tied_embeddings": c.flag("tie_word_embeddings", default=True),
        "positions": "learned",
        "max_seq_len": c.count("n_positions", "max_position_embeddings", "n_ctx", limit="tokens"),
    }


def _layernorm(c: Fields, epsilon_name: str, *, biases: bool = True) -> dict[str, Any]:
    """LayerNorm, and biases everywhere or nowhere."""
    names = ("norm_bias", "qkv_bias", "attention_out_bias", "mlp_bias")
    epsilon = c.number(epsilon_name, default=1e-5, maximum=1.0)
    return {"norm": "layernorm", "norm_epsilon": epsilon, **dict.fromkeys(names, biases)}


def _gpt_neox(c: Fields) -> dict[str, Any]:
    return _sizes(c) | _layernorm(c, "layer_norm_eps") | _biases(c, default=True) | {
        "mlp": c.choice("hidden_act", allowed=_PLAIN, default="gelu"),
        "tied_embeddings": c.flag("tie_word_embeddings", default=False),
        "parallel_block": c.flag("use_parallel_residual", default=True),
        "rope": rope_shape(c, fraction=0.25),
    }  # fmt: skip


def _mpt(c: Fields) -> dict[str, Any]:
    d_model = c.count("d_model", "hidden_size", limit="width")
    heads = c.count("n_heads", "num_attention_heads", limit="heads")
    attention = c.nested("attn_config") or Fields(values={}, where=f"{c.where}: attn_config")
    kinds = {"multihead_attention": heads, "multiquery_attention": 1, "grouped_query_attention": 0}
    kind = attention.choice("attn_type", allowed={k: k for k in kinds}, default="multihead_attention")
    kv_heads = kinds[kind] or attention.count("kv_n_heads", limit="heads")
    attention.refuse("prefix_lm", [False], "attention is causal")
    if d_model % heads:
        raise SpecError(f"{c.where}: d_model={d_model} is not a multiple of n_heads={heads}")
    alibi = attention.flag("alibi", default=True)
    learned = {"positions": "learned", "max_seq_len": c.count("max_seq_len", limit="tokens")} if not alibi else {}
    return (
        _layernorm(c, "layer_norm_epsilon", biases=not c.flag("no_bias", default=True))
        | {
            "num_layers": c.count("n_layers", "num_hidden_layers", limit="layers"),
            "d_model": d_model,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": d_model // heads,
            "d_ff": d_model * c.count("expansion_ratio", limit="width", default=4),
            "vocab_size": c.count("vocab_size", limit="vocabulary"),
            "mlp": "gelu",
            "tied_embeddings": c.flag("tie_word_embeddings", default=True),
            "positions": "alibi",
            "qk_norm": "full" if attention.flag("qk_ln", default=False) else "none",
            "qkv_clip": attention.number("clip_qkv", default=0.0),
            "attention_scale": attention.number("softmax_scale", default=0.0),
        }
        | learned
    )


def _olmo(c: Fields) -> dict[str, Any]:
    """OLMo 1: LayerNorm without parameters, and a clamp on q, k and v."""
    return _llama_like(c) | _biases(c) | {
        "norm": "layernorm", "norm_scale": False, "norm_epsilon": 1e-5, "qkv_clip": c.number("clip_qkv", default=0.0),
    }  # fmt: skip


def _olmo2(c: Fields) -> dict[str, Any]:
    return _llama_like(c, epsilon=1e-5) | _biases(c) | {"norm_placement": "post", "qk_norm": "full"}


def _phi3(c: Fields) -> dict[str, Any]:
    made = _llama_like(c, epsilon=1e-5)
    return made | _window(c, made["num_layers"])


def _latent(c: Fields, *, interleaved: bool) -> dict[str, Any]:
    """The attention that DeepSeek-V2 and -V3 share."""
    c.refuse("attention_bias", [False], "latent attention has no biases here")
    c.refuse("mlp_bias", [False], "the MLP has no biases here")
    mla = MLAShape(
        kv_lora_rank=c.count("kv_lora_rank", limit="width"),
        q_lora_rank=c.count("q_lora_rank", limit="width", default=0, minimum=0),
        qk_nope_head_dim=c.count("qk_nope_head_dim", limit="width"),
        qk_rope_head_dim=c.count("qk_rope_head_dim", limit="width"),
        v_head_dim=c.count("v_head_dim", limit="width"),
    )
    made = _llama_like(Fields(values={**c.values, "head_dim": mla.qk_head_dim}, where=c.where))
    return made | {"mla": mla, "rope": rope_shape(c, interleaved=interleaved)}


def _deepseek_experts(c: Fields, num_layers: int, **router: Any) -> MoEShape | None:
    if c.raw("n_routed_experts", default=None) is None:
        return None
    c.refuse("moe_layer_freq", [1], "every layer after the dense ones has experts")
    shared = c.count("n_shared_experts", limit="experts", default=0, minimum=0)
    width = c.count("moe_intermediate_size", limit="width")
    dense = c.count("first_k_dense_replace", limit="layers", default=0, minimum=0)
    return MoEShape(
        num_experts=c.count("n_routed_experts", limit="experts"),
        experts_per_token=c.count("num_experts_per_tok", limit="experts"),
        expert_d_ff=width,
        num_shared_experts=shared,
        shared_expert_d_ff=width if shared else 0,
        num_leading_dense_layers=min(dense, num_layers),
        routed_scale=c.number("routed_scaling_factor", default=1.0),
        **router,
    )


def _groups(c: Fields) -> dict[str, int]:
    names = {"num_expert_groups": "n_group", "groups_per_token": "topk_group"}
    return {field: c.count(name, limit="experts", default=1) for field, name in names.items()}


def _deepseek_v2(c: Fields) -> dict[str, Any]:
    """Group-limited routing counts only where `topk_method` asks for it (V2); V2-Lite is greedy."""
    methods = {"greedy": "greedy", "group_limited_greedy": "grouped"}
    grouped = c.choice("topk_method", allowed=methods, default="greedy") == "grouped"
    made = _latent(c, interleaved=True)
    router = {"renormalize_top_k": c.flag("norm_topk_prob", default=False), **(_groups(c) if grouped else {})}
    return made | {"moe": _deepseek_experts(c, made["num_layers"], **router)}


def _deepseek_v3(c: Fields) -> dict[str, Any]:
    """V3 (and Kimi K2) route by a sigmoid with a balancing bias; the multi-token module is left out."""
    made = _latent(c, interleaved=c.flag("rope_interleave", default=True))
    renormalize = c.flag("norm_topk_prob", default=True)
    router = {"router": "sigmoid", "router_bias": True, "renormalize_top_k": renormalize, **_groups(c)}
    return made | {"moe": _deepseek_experts(c, made["num_layers"], **router)}


def _gpt_oss(c: Fields) -> dict[str, Any]:
    made = _llama_like(c, epsilon=1e-5, theta=150_000.0, head_dim=64) | _biases(c, default=True)
    experts = MoEShape(
        num_experts=c.count("num_local_experts", "num_experts", limit="experts"),
        experts_per_token=c.count("num_experts_per_tok", "experts_per_token", limit="experts"),
        expert_d_ff=made["d_ff"],
        router_bias=True,
        expert_bias=True,
    )
    pattern = _window(c, made["num_layers"], interval=2, default=128)
    limit = c.number("swiglu_limit", default=7.0)
    return made | pattern | {"moe": experts, "attention_sinks": True, "swiglu_limit": limit}


_ALIASES = {"kimi_k2": "deepseek_v3"}
FAMILIES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "mpt": _mpt,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "kimi_k2": _deepseek_v3,
    "gpt_oss": _gpt_oss,
}
