"""Where each Hugging Face family keeps each parameter: mapping tables, as data.

An `Entry` names one stored tensor, its layout, and the parameters of ours that it holds with theirs. Layouts are
written as dims: `"(n h) d"` is a matrix whose rows are heads times head width. Where one stored tensor holds several of
ours, `+` marks the dim along which they are joined: `"(n h)+ d"` are rows of q, then of k, then of v;
`"(n h+) d"` joins them within each head; `"e d (f 1+)"` interleaves them.

Letters: n heads (query or kv), h head width, d d_model, f a feed-forward width, e experts, r and l latent widths,
v vocabulary, p positions. A name with `{expert}` is one tensor an expert, stacked first.
Entries whose parameters a model does not have are skipped, so one table serves a family with and without biases.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored tensor and the parameters it holds: (path, layout) pairs, path steps joined by `/`."""

    name: str
    layout: str
    ours: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The tensors of one model family. `layer` names follow `prefix`, in which `{layer}` is the layer's number."""

    prefix: str
    layer: tuple[Entry, ...]
    top: tuple[Entry, ...]
    optional_prefix: str = ""  # may be missing from every name in a file
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)  # endings of stored tensors that hold no parameter


def _entry(name: str, layout: str, *ours: str) -> Entry:
    """An entry whose parameters are written as `path layout`."""
    pairs = (text.partition(" ") for text in ours)
    return Entry(name, layout, tuple((path, own) for path, _, own in pairs))


def _norms(**names: str) -> tuple[Entry, ...]:
    """Norms over d_model: our name = their name."""
    return tuple(
        _entry(f"{theirs}.{suffix}", "d", f"{ours}/{part} d")
        for ours, theirs in names.items()
        for suffix, part in (("weight", "scale"), ("bias", "bias"))
    )


def _projections(prefix: str, out: str, **names: str) -> tuple[Entry, ...]:
    """Separate q, k, v and output projections, stored output dim first."""
    inputs = tuple(
        entry
        for ours, theirs in names.items()
        for entry in (
            _entry(f"{prefix}.{theirs}.weight", "(n h) d", f"attention/{ours} d n h"),
            _entry(f"{prefix}.{theirs}.bias", "(n h)", f"attention/{ours}_bias n h"),
        )
    )
    return (
        *inputs,
        _entry(f"{prefix}.{out}.weight", "d (n h)", "attention/out n h d"),
        _entry(f"{prefix}.{out}.bias", "d", "attention/out_bias d"),
    )


def _feed_forward(prefix: str, path: str, **names: str) -> tuple[Entry, ...]:
    """Gate, up and down, stored output dim first."""
    layouts = {"gate": ("f d", "d f", "f"), "up": ("f d", "d f", "f"), "down": ("d f", "f d", "d")}
    return tuple(
        entry
        for ours, theirs in names.items()
        for entry in (
            _entry(f"{prefix}.{theirs}.weight", layouts[ours][0], f"{path}/{ours} {layouts[ours][1]}"),
            _entry(f"{prefix}.{theirs}.bias", layouts[ours][2], f"{path}/{ours}_bias {layouts[ours][2]}"),
        )
    )


def _experts(prefix: str, **names: str) -> tuple[Entry, ...]:
    layouts = {"gate": ("e f d", "e d f"), "up": ("e f d", "e d f"), "down": ("e d f", "e f d")}
    return tuple(
        _entry(f"{prefix}.{theirs}.weight", layouts[ours][0], f"mlp/experts/{ours} {layouts[ours][1]}")
        for ours, theirs in names.items()
    )


def _top(embedding: str, norm: str, head: str) -> tuple[Entry, ...]:
    return (
        _entry(embedding, "v d", "embedding/table v d"),
        _entry(f"{norm}.weight", "d", "head/norm/scale d"),
        _entry(f"{norm}.bias", "d", "head/norm/bias d"),
        _entry(head, "v d", "head/kernel d v"),
    )


_GATE_UP_DOWN = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
_LLAMA_ATTENTION = _projections("self_attn", "o_proj", q="q_proj", k="k_proj", v="v_proj")
_LLAMA_MLP = _feed_forward("mlp", "mlp", **_GATE_UP_DOWN)
_PRE_NORMS = _norms(attention_norm="input_layernorm", mlp_norm="post_attention_layernorm")
_HEAD_QK_NORMS = (
    _entry("self_attn.q_norm.weight", "h", "attention/q_norm/scale h"),
    _entry("self_attn.k_norm.weight", "h", "attention/k_norm/scale h"),
)
_EACH_EXPERT = _experts("mlp.experts.{expert}", **_GATE_UP_DOWN)
_ROUTER = (_entry("mlp.gate.weight", "e d", "mlp/router d e"),)

LLAMA = Family(
    prefix="model.layers.{layer}.",
    layer=(*_PRE_NORMS, *_LLAMA_ATTENTION, *_LLAMA_MLP),
    top=_top("model.embed_tokens.weight", "model.norm", "lm_head.weight"),
)
QWEN3 = replace(LLAMA, layer=(*LLAMA.layer, *_HEAD_QK_NORMS))

_MIXTRAL_EXPERTS = _experts("block_sparse_moe.experts.{expert}", gate="w1", down="w2", up="w3")
MIXTRAL = replace(
    LLAMA,
    layer=(
        *_PRE_NORMS,
        *_LLAMA_ATTENTION,
        _entry("block_sparse_moe.gate.weight", "e d", "mlp/router d e"),
        *_MIXTRAL_EXPERTS,
    ),
)
QWEN2_MOE = replace(
    LLAMA,
    layer=(
        *LLAMA.layer,
        *_ROUTER,
        *_EACH_EXPERT,
        *_feed_forward("mlp.shared_expert", "mlp/shared", **_GATE_UP_DOWN),
        _entry("mlp.shared_expert_gate.weight", "o d", "mlp/shared_router d o"),
    ),
)
QWEN3_MOE = replace(QWEN3, layer=(*QWEN3.layer, *_ROUTER, *_EACH_EXPERT))

_SANDWICH_NORMS = _norms(
    attention_norm="input_layernorm",
    attention_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)
GEMMA = replace(LLAMA, layer=(*_SANDWICH_NORMS, *_LLAMA_ATTENTION, *_HEAD_QK_NORMS, *_LLAMA_MLP))

OLMO2 = replace(
    LLAMA,
    layer=(
        *_norms(attention_post_norm="post_attention_layernorm", mlp_post_norm="post_feedforward_layernorm"),
        *_LLAMA_ATTENTION,
        _entry("self_attn.q_norm.weight", "(n h)", "attention/q_norm/scale n h"),
        _entry("self_attn.k_norm.weight", "(n h)", "attention/k_norm/scale n h"),
        *_LLAMA_MLP,
    ),
)

_QKV = ("attention/q d n h", "attention/k d n h", "attention/v d n h")
_QKV_BIAS = ("attention/q_bias n h", "attention/k_bias n h", "attention/v_bias n h")
PHI3 = replace(
    LLAMA,
    layer=(
        *_PRE_NORMS,
        _entry("self_attn.qkv_proj.weight", "(n h)+ d", *_QKV),
        _entry("self_attn.o_proj.weight", "d (n h)", "attention/out n h d"),
        _entry("mlp.gate_up_proj.weight", "f+ d", "mlp/gate d f", "mlp/up d f"),
        _entry("mlp.down_proj.weight", "d f", "mlp/down f d"),
    ),
)

GPT2 = Family(
    prefix="transformer.h.{layer}.",
    optional_prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"),
    layer=(
        *_norms(attention_norm="ln_1", mlp_norm="ln_2"),
        _entry("attn.c_attn.weight", "d (n h)+", *_QKV),
        _entry("attn.c_attn.bias", "(n h)+", *_QKV_BIAS),
        _entry("attn.c_proj.weight", "(n h) d", "attention/out n h d"),
        _entry("attn.c_proj.bias", "d", "attention/out_bias d"),
        _entry("mlp.c_fc.weight", "d f", "mlp/up d f"),
        _entry("mlp.c_fc.bias", "f", "mlp/up_bias f"),
        _entry("mlp.c_proj.weight", "f d", "mlp/down f d"),
        _entry("mlp.c_proj.bias", "d", "mlp/down_bias d"),
    ),
    top=(
        *_top("transformer.wte.weight", "transformer.ln_f", "lm_head.weight"),
        _entry("transformer.wpe.weight", "p d", "embedding/positions p d"),
    ),
)

GPT_NEOX = Family(
    prefix="gpt_neox.layers.{layer}.",
    ignored=("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
    layer=(
        *_PRE_NORMS,
        _entry("attention.query_key_value.weight", "(n h+) d", *_QKV),
        _entry("attention.query_key_value.bias", "(n h+)", *_QKV_BIAS),
        _entry("attention.dense.weight", "d (n h)", "attention/out n h d"),
        _entry("attention.dense.bias", "d", "attention/out_bias d"),
        *_feed_forward("mlp", "mlp", up="dense_h_to_4h", down="dense_4h_to_h"),
    ),
    top=_top("gpt_neox.embed_in.weight", "gpt_neox.final_layer_norm", "embed_out.weight"),
)

MPT = Family(
    prefix="transformer.blocks.{layer}.",
    layer=(
        *_norms(attention_norm="norm_1", mlp_norm="norm_2"),
        _entry("attn.Wqkv.weight", "(n h)+ d", *_QKV),
        _entry("attn.out_proj.weight", "d (n h)", "attention/out n h d"),
        *_feed_forward("ffn", "mlp", up="up_proj", down="down_proj"),
    ),
    top=_top("transformer.wte.weight", "transformer.norm_f", "lm_head.weight"),
)

DEEPSEEK = replace(
    LLAMA,
    layer=(
        *_PRE_NORMS,
        _entry("self_attn.q_proj.weight", "(n h) d", "attention/q d n h"),
        _entry("self_attn.q_a_proj.weight", "r d", "attention/q_down d r"),
        _entry("self_attn.q_a_layernorm.weight", "r", "attention/q_norm/scale r"),
        _entry("self_attn.q_b_proj.weight", "(n h) r", "attention/q_up r n h"),
        _entry("self_attn.kv_a_proj_with_mqa.weight", "l d", "attention/kv_down d l"),
        _entry("self_attn.kv_a_layernorm.weight", "r", "attention/kv_norm/scale r"),
        _entry("self_attn.kv_b_proj.weight", "(n h+) r", "attention/k r n h", "attention/v r n h"),
        _entry("self_attn.o_proj.weight", "d (n h)", "attention/out n h d"),
        *_LLAMA_MLP,
        *_ROUTER,
        _entry("mlp.gate.e_score_correction_bias", "e", "mlp/router_bias e"),
        *_EACH_EXPERT,
        *_feed_forward("mlp.shared_experts", "mlp/shared", **_GATE_UP_DOWN),
    ),
)

GPT_OSS = replace(
    LLAMA,
    layer=(
        *_PRE_NORMS,
        *_LLAMA_ATTENTION,
        _entry("self_attn.sinks", "n", "attention/sinks n"),
        _entry("mlp.router.weight", "e d", "mlp/router d e"),
        _entry("mlp.router.bias", "e", "mlp/router_bias e"),
        _entry("mlp.experts.gate_up_proj", "e d (f 1+)", "mlp/experts/gate e d f 1", "mlp/experts/up e d f 1"),
        _entry("mlp.experts.gate_up_proj_bias", "e (f 1+)", "mlp/experts/gate_bias e f 1", "mlp/experts/up_bias e f 1"),
        _entry("mlp.experts.down_proj", "e f d", "mlp/experts/down e f d"),
        _entry("mlp.experts.down_proj_bias", "e d", "mlp/experts/down_bias e d"),
    ),
)

# Keyed by `ModelShape.family`, which is the model_type of a Hugging Face configuration.
FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "gemma": LLAMA,
    "olmo": LLAMA,
    "qwen3": QWEN3,
    "mixtral": MIXTRAL,
    "qwen2_moe": QWEN2_MOE,
    "qwen3_moe": QWEN3_MOE,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "olmo2": OLMO2,
    "phi3": PHI3,
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "mpt": MPT,
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "gpt_oss": GPT_OSS,
}
