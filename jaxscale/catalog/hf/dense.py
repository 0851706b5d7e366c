"""Families whose layers are all dense: a function each, from fields of its config.json to fields of a `ModelShape`."""

import math
from typing import Any

from jaxscale.catalog.hf.common import (
    GATED,
    biases,
    head_width,
    layernorm,
    llama_like,
    qwen_window,
    sizes,
    window_pattern,
)
from jaxscale.catalog.hf.fields import Fields
from jaxscale.catalog.hf.rope import rope_shape

_PLAIN = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def llama(c: Fields) -> dict[str, Any]:
    """Llama 1 to 3, and the many models that took its layer over."""
    return llama_like(c) | biases(c) | {"mlp_bias": c.flag("mlp_bias", default=False)}


def mistral(c: Fields) -> dict[str, Any]:
    """Llama with a sliding window, which later versions switch off by null."""
    made = llama_like(c)
    return made | window_pattern(c, made["num_layers"], default=4096)


def qwen2(c: Fields) -> dict[str, Any]:
    """Qwen 2 and 2.5: biases on q, k and v."""
    made = llama_like(c)
    return made | qwen_window(c, made["num_layers"]) | {"qkv_bias": True}


def qwen3(c: Fields) -> dict[str, Any]:
    """Qwen 3: a norm on every query and key head instead of biases."""
    made = llama_like(c, head_dim=128)
    return made | qwen_window(c, made["num_layers"]) | biases(c) | {"qk_norm": "head"}


def gemma(c: Fields) -> dict[str, Any]:
    """Gemma 1, whose first files say gelu and mean its approximation."""
    legacy = GATED | {"gelu": "geglu"}
    return _gemma(c) | {"mlp": c.choice("hidden_act", allowed=legacy, default="gelu_pytorch_tanh")}


def _gemma(c: Fields, **defaults: int) -> dict[str, Any]:
    """Gemma scales embeddings by sqrt(d_model), stores norm weights as an offset from one and ties the head."""
    made = llama_like(c, tied=True, head_dim=256, **defaults) | biases(c)
    mlp = c.choice("hidden_activation", allowed=GATED, default="gelu_pytorch_tanh")
    return made | {"mlp": mlp, "norm_unit_offset": True, "embedding_scale": math.sqrt(made["d_model"])}


def gemma2(c: Fields) -> dict[str, Any]:
    """Gemma 2: every second layer sees all tokens; scores and logits are capped."""
    return _capped(c, _gemma(c), interval=2, attention_softcap=50.0, logit_softcap=30.0)


def gemma3(c: Fields) -> dict[str, Any]:
    """Gemma 3: every sixth layer sees all tokens, with its own rotary base; queries and keys are normed.

    Its configuration kept Gemma 2's cap on scores, which no published model sets and transformers does not apply.
    """
    interval = c.count("sliding_window_pattern", "_sliding_window_pattern", limit="layers", default=6)
    made = _gemma(c, num_attention_heads=8, num_key_value_heads=4, vocab_size=262_208)
    rope = rope_shape(c, default_theta=1e6, default_local_theta=10_000.0)
    made |= {"qk_norm": "head", "rope": rope}
    capped = _capped(c, made, interval=interval, attention_softcap=0.0, logit_softcap=0.0)
    return capped | {"attention_softcap": 0.0}


def _capped(
    c: Fields, made: dict[str, Any], *, interval: int, attention_softcap: float, logit_softcap: float
) -> dict[str, Any]:
    """What Gemma 2 and 3 share: sandwich norms, an own scale of scores, a window, and caps that null switches off."""
    caps = {"attn_logit_softcapping": attention_softcap, "final_logit_softcapping": logit_softcap}
    attention, logits = (0.0 if c.is_null(name) else c.number(name, default=cap) for name, cap in caps.items())
    return made | {
        **window_pattern(c, made["num_layers"], interval=interval, default=4096),
        "norm_placement": "sandwich",
        "attention_scale": c.number("query_pre_attn_scalar", default=256, minimum=1e-6) ** -0.5,
        "attention_softcap": attention,
        "logit_softcap": logits,
    }


def gpt2(c: Fields) -> dict[str, Any]:
    """GPT-2: learned positions, biases everywhere, a tied head."""
    c.refuse("scale_attn_by_inverse_layer_idx", [False], "attention is scaled alike in all layers")
    d_model = c.count("n_embd", "hidden_size", limit="width")
    heads = c.count("n_head", "num_attention_heads", limit="heads")
    return layernorm(c, "layer_norm_epsilon") | {
        "num_layers": c.count("n_layer", "num_hidden_layers", limit="layers"),
        "d_model": d_model,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": head_width(c, "n_embd", d_model, "n_head", heads),
        "d_ff": c.count("n_inner", limit="width", default=4 * d_model),
        "vocab_size": c.count("vocab_size", limit="vocabulary"),
        "mlp": c.choice("activation_function", allowed=_PLAIN, default="gelu_new"),
        "tied_embeddings": c.flag("tie_word_embeddings", default=True),
        "positions": "learned",
        "attention_scale": 0.0 if c.flag("scale_attn_weights", default=True) else 1.0,
        "max_seq_len": c.count("n_positions", "max_position_embeddings", "n_ctx", limit="tokens"),
    }


def gpt_neox(c: Fields) -> dict[str, Any]:
    """GPT-NeoX and Pythia: attention and MLP side by side, a quarter of each head rotates."""
    return sizes(c) | layernorm(c, "layer_norm_eps") | biases(c, default=True) | {
        "mlp": c.choice("hidden_act", allowed=_PLAIN, default="gelu"),
        "tied_embeddings": c.flag("tie_word_embeddings", default=False),
        "parallel_block": c.flag("use_parallel_residual", default=True),
        "rope": rope_shape(c, fraction=0.25),
    }  # fmt: skip


def mpt(c: Fields) -> dict[str, Any]:
    """MPT: ALiBi, LayerNorm without biases, a tied head."""
    d_model = c.count("d_model", "hidden_size", limit="width")
    heads = c.count("n_heads", "num_attention_heads", limit="heads")
    return layernorm(c, "layer_norm_epsilon", biases=not c.flag("no_bias", default=True)) | {
        "num_layers": c.count("n_layers", "num_hidden_layers", limit="layers"),
        "d_model": d_model,
        "num_heads": heads,
        "head_dim": head_width(c, "d_model", d_model, "n_heads", heads),
        "d_ff": d_model * c.count("expansion_ratio", limit="width", default=4),
        "vocab_size": c.count("vocab_size", limit="vocabulary"),
        "mlp": "gelu",
        "tied_embeddings": c.flag("tie_word_embeddings", default=True),
        **_mpt_attention(c, heads),
    }  # fmt: skip


def _mpt_attention(c: Fields, heads: int) -> dict[str, Any]:
    attention = c.nested("attn_config") or Fields(values={}, where=f"{c.where}: attn_config")
    attention.refuse("prefix_lm", [False], "attention is causal")
    kinds = {"multihead_attention": heads, "multiquery_attention": 1, "grouped_query_attention": 0}
    kind = attention.choice("attn_type", allowed={k: k for k in kinds}, default="multihead_attention")
    made: dict[str, Any] = {
        "num_kv_heads": kinds[kind] or attention.count("kv_n_heads", limit="heads"),
        "positions": "alibi",
        "qk_norm": "full" if attention.flag("qk_ln", default=False) else "none",
        "qkv_clip": attention.number("clip_qkv", default=0.0),
        "attention_scale": attention.number("softmax_scale", default=0.0),
    }
    if not attention.flag("alibi", default=True):
        made |= {"positions": "learned", "max_seq_len": c.count("max_seq_len", limit="tokens")}
    return made


def olmo(c: Fields) -> dict[str, Any]:
    """OLMo 1: LayerNorm without parameters, and a clamp on q, k and v."""
    return llama_like(c) | biases(c) | {
        "norm": "layernorm", "norm_scale": False, "norm_epsilon": 1e-5, "qkv_clip": c.number("clip_qkv", default=0.0),
    }  # fmt: skip


def olmo2(c: Fields) -> dict[str, Any]:
    """OLMo 2: norms after the sublayers, and over all query and key heads at once."""
    return llama_like(c, epsilon=1e-5) | biases(c) | {"norm_placement": "post", "qk_norm": "full"}


def phi3(c: Fields) -> dict[str, Any]:
    """Phi-3 and Phi-4: Llama with fused projections, perhaps a window."""
    made = llama_like(c, epsilon=1e-5)
    return made | window_pattern(c, made["num_layers"])
