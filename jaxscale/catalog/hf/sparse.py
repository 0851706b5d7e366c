"""Families with experts: a function each, from fields of its config.json to fields of a `ModelShape`."""

from typing import Any

from jaxscale.catalog.hf.common import biases, llama_like, qwen_window, window_pattern
from jaxscale.catalog.hf.fields import Fields
from jaxscale.catalog.hf.rope import rope_shape
from jaxscale.errors import SpecError
from jaxscale.types import MLAShape, MoEShape


def mixtral(c: Fields) -> dict[str, Any]:
    """Mixtral: Mistral whose every MLP is a set of experts."""
    made = llama_like(c, epsilon=1e-5, theta=1e6)
    experts = MoEShape(
        num_experts=c.count("num_local_experts", "num_experts", limit="experts"),
        experts_per_token=c.count("num_experts_per_tok", limit="experts"),
        expert_d_ff=made["d_ff"],
    )
    return made | window_pattern(c, made["num_layers"]) | {"moe": experts}


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


def qwen2_moe(c: Fields) -> dict[str, Any]:
    """Qwen 1.5 and 2 with experts: one gated shared expert beside the routed ones."""
    made = llama_like(c)
    shared = c.count("shared_expert_intermediate_size", limit="width")
    experts = _qwen_experts(c, num_shared_experts=1, shared_expert_d_ff=shared, shared_expert_gate=True)
    return made | qwen_window(c, made["num_layers"]) | {"qkv_bias": c.flag("qkv_bias", default=True), "moe": experts}


def qwen3_moe(c: Fields) -> dict[str, Any]:
    """Qwen 3 with experts, none shared."""
    made = llama_like(c)
    return made | qwen_window(c, made["num_layers"]) | biases(c) | {"qk_norm": "head", "moe": _qwen_experts(c)}


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
    made = llama_like(Fields(values={**c.values, "head_dim": mla.qk_head_dim}, where=c.where))
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


def deepseek_v2(c: Fields) -> dict[str, Any]:
    """Group-limited routing counts only where `topk_method` asks for it (V2); V2-Lite is greedy.

    `norm_topk_prob` counts for nothing, as in transformers: no published V2 sets it.
    """
    methods = {"greedy": "greedy", "group_limited_greedy": "grouped"}
    grouped = c.choice("topk_method", allowed=methods, default="greedy") == "grouped"
    made = _latent(c, interleaved=True)
    router = {"renormalize_top_k": False, **(_groups(c) if grouped else {})}
    return made | {"moe": _deepseek_experts(c, made["num_layers"], **router)}


def deepseek_v3(c: Fields) -> dict[str, Any]:
    """V3 (and Kimi K2) route by a sigmoid with a balancing bias; the multi-token module is left out."""
    made = _latent(c, interleaved=c.flag("rope_interleave", default=True))
    renormalize = c.flag("norm_topk_prob", default=True)
    router = {"router": "sigmoid", "router_bias": True, "renormalize_top_k": renormalize, **_groups(c)}
    return made | {"moe": _deepseek_experts(c, made["num_layers"], **router)}


def gpt_oss(c: Fields) -> dict[str, Any]:
    """gpt-oss: attention sinks, alternating windows, biases in router and experts."""
    made = llama_like(c, epsilon=1e-5, theta=150_000.0, head_dim=64) | biases(c, default=True)
    experts = MoEShape(
        num_experts=c.count("num_local_experts", "num_experts", limit="experts"),
        experts_per_token=c.count("num_experts_per_tok", "experts_per_token", limit="experts"),
        expert_d_ff=made["d_ff"],
        router_bias=True,
        expert_bias=True,
    )
    pattern = window_pattern(c, made["num_layers"], interval=2, default=128)
    c.refuse("swiglu_alpha", [1.702], "the slope of the gate's sigmoid is fixed")
    limit = c.number("swiglu_limit", default=7.0)
    return made | pattern | {"moe": experts, "attention_sinks": True, "swiglu_limit": limit}
