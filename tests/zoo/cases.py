"""Small random models of every family, as Hugging Face configurations and as the model shapes they must equal."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from jaxscale.types import MLAShape, ModelShape, MoEShape, RopeShape

VOCAB, D_MODEL, D_FF, LAYERS, HEADS, KV_HEADS, MAX_LEN = 97, 32, 48, 3, 4, 2, 64


@dataclass(frozen=True)
class Case:
    config_class: str
    config: dict[str, Any]
    shape: ModelShape


HF = {
    "vocab_size": VOCAB, "hidden_size": D_MODEL, "intermediate_size": D_FF, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": MAX_LEN,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}  # fmt: skip


def shape(family: str, **changes: Any) -> ModelShape:
    base: dict[str, Any] = {
        "name": f"tiny-{family}", "family": family, "vocab_size": VOCAB, "d_model": D_MODEL, "d_ff": D_FF,
        "num_layers": LAYERS, "num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_dim": 8, "norm_epsilon": 1e-6,
    }  # fmt: skip
    return ModelShape(**base | changes)


def _mla_case(version: int, config: dict[str, Any], **moe: Any) -> Case:
    sparse = {
        "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5,
        "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 12,
        "num_key_value_heads": HEADS,
    }  # fmt: skip
    rope = {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
        "mscale": 0.7, "mscale_all_dim": 1.1, "beta_fast": 32.0, "beta_slow": 1.0,
    }  # fmt: skip
    experts = MoEShape(
        num_experts=8, experts_per_token=2, expert_d_ff=16, num_shared_experts=2, shared_expert_d_ff=16,
        num_leading_dense_layers=1, num_expert_groups=4, groups_per_token=2, routed_scale=1.5, **moe,
    )  # fmt: skip
    mla = MLAShape(
        kv_lora_rank=16, q_lora_rank=config["q_lora_rank"] or 0, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=12
    )
    yarn = RopeShape(
        interleaved=True, scaling="yarn", factor=4.0, original_max_seq_len=16, mscale=0.7, mscale_all_dim=1.1
    )
    return Case(
        f"DeepseekV{version}Config",
        HF | sparse | config | {"rope_parameters": rope},
        shape(f"deepseek_v{version}", num_kv_heads=HEADS, head_dim=12, moe=experts, mla=mla, rope=yarn),
    )


LLAMA3_ROPE = RopeShape(
    theta=500_000.0, scaling="llama3", factor=8.0, original_max_seq_len=16, low_freq_factor=1.0, high_freq_factor=4.0
)
TOP2 = MoEShape(num_experts=4, experts_per_token=2, expert_d_ff=16)
LONG = tuple(1.0 + 0.5 * i for i in range(4))
SHORT = tuple(1.0 + 0.1 * i for i in range(4))
GPT_BIASES: dict[str, Any] = {
    "norm": "layernorm", "norm_epsilon": 1e-5, "norm_bias": True, "qkv_bias": True, "attention_out_bias": True,
    "mlp_bias": True, "num_kv_heads": HEADS,
}  # fmt: skip
SANDWICH: dict[str, Any] = {
    "norm_placement": "sandwich", "norm_unit_offset": True, "tied_embeddings": True, "mlp": "geglu",
    "embedding_scale": math.sqrt(D_MODEL), "window": 8,
}  # fmt: skip

CASES: dict[str, Case] = {
    "llama3": Case(
        "LlamaConfig",
        HF
        | {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
        shape("llama", rope=LLAMA3_ROPE),
    ),
    "llama_linear_biased": Case(
        "LlamaConfig",
        HF
        | {
            "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        shape(
            "llama",
            rope=RopeShape(scaling="linear", factor=4.0),
            qkv_bias=True,
            attention_out_bias=True,
            mlp_bias=True,
            tied_embeddings=True,
        ),
    ),
    "llama_dynamic_mqa": Case(
        "LlamaConfig",
        HF
        | {
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 10000.0,
                "factor": 2.0,
                "original_max_position_embeddings": 16,
            },
            "max_position_embeddings": 16,
            "num_key_value_heads": 1,
        },
        shape("llama", rope=RopeShape(scaling="dynamic", factor=2.0, original_max_seq_len=16), num_kv_heads=1),
    ),
    "llama_yarn": Case(
        "LlamaConfig",
        HF
        | {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
        shape("llama", rope=RopeShape(scaling="yarn", factor=4.0, original_max_seq_len=16)),
    ),
    "mistral": Case("MistralConfig", HF | {"sliding_window": 8}, shape("mistral", window=8)),
    "mixtral": Case(
        "MixtralConfig",
        HF | {"num_local_experts": 4, "num_experts_per_tok": 2, "rms_norm_eps": 1e-5, "sliding_window": None},
        shape("mixtral", moe=dataclasses.replace(TOP2, expert_d_ff=D_FF), norm_epsilon=1e-5),
    ),
    "qwen2": Case("Qwen2Config", HF, shape("qwen2", qkv_bias=True)),
    "qwen2_moe": Case(
        "Qwen2MoeConfig",
        HF
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "norm_topk_prob": False,
            "shared_expert_intermediate_size": 24,
            "decoder_sparse_step": 2,
        },
        shape(
            "qwen2_moe",
            qkv_bias=True,
            moe=dataclasses.replace(
                TOP2,
                num_shared_experts=1,
                shared_expert_d_ff=24,
                shared_expert_gate=True,
                renormalize_top_k=False,
                layer_interval=2,
            ),
        ),
    ),
    "qwen3": Case("Qwen3Config", HF | {"head_dim": 16}, shape("qwen3", qk_norm="head", head_dim=16)),
    "qwen3_moe": Case(
        "Qwen3MoeConfig",
        HF
        | {
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "norm_topk_prob": True,
        },
        shape("qwen3_moe", qk_norm="head", moe=TOP2),
    ),
    "gemma2": Case(
        "Gemma2Config",
        HF
        | {
            "head_dim": 16,
            "sliding_window": 8,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        shape(
            "gemma2",
            **SANDWICH,
            head_dim=16,
            global_interval=2,
            attention_scale=24**-0.5,
            attention_softcap=2.0,
            logit_softcap=3.0,
        ),
    ),
    "gemma3": Case(
        "Gemma3TextConfig",
        HF
        | {
            "head_dim": 16,
            "sliding_window": 8,
            "query_pre_attn_scalar": 24,
            "num_hidden_layers": 8,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) + ["sliding_attention"] * 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
        shape(
            "gemma3_text",
            **SANDWICH,
            num_layers=8,
            head_dim=16,
            global_interval=6,
            attention_scale=24**-0.5,
            qk_norm="head",
            rope=RopeShape(theta=1_000_000.0, local_theta=10_000.0, scaling="linear", factor=8.0),
        ),
    ),
    "gpt2": Case(
        "GPT2Config",
        {
            "vocab_size": VOCAB,
            "n_embd": D_MODEL,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_positions": MAX_LEN,
            "n_inner": D_FF,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        shape("gpt2", **GPT_BIASES, mlp="gelu_tanh", positions="learned", max_seq_len=MAX_LEN, tied_embeddings=True),
    ),
    "gpt_neox": Case(
        "GPTNeoXConfig",
        {k: v for k, v in HF.items() if k != "num_key_value_heads"}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        shape("gpt_neox", **GPT_BIASES, mlp="gelu", parallel_block=True, rope=RopeShape(fraction=0.5)),
    ),
    "mpt": Case(
        "MptConfig",
        {
            "d_model": D_MODEL,
            "n_heads": HEADS,
            "n_layers": LAYERS,
            "vocab_size": VOCAB,
            "max_seq_len": MAX_LEN,
            "attn_config": {"clip_qkv": 0.5},
        },
        shape(
            "mpt",
            num_kv_heads=HEADS,
            d_ff=4 * D_MODEL,
            mlp="gelu",
            norm="layernorm",
            norm_epsilon=1e-5,
            positions="alibi",
            qkv_clip=0.5,
            tied_embeddings=True,
        ),
    ),
    "olmo2": Case(
        "Olmo2Config",
        HF | {"rms_norm_eps": 1e-5},
        shape("olmo2", norm_placement="post", qk_norm="full", norm_epsilon=1e-5),
    ),
    "phi3": Case(
        "Phi3Config",
        HF
        | {
            "rms_norm_eps": 1e-5,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": list(SHORT),
                "long_factor": list(LONG),
                "original_max_position_embeddings": 16,
                "factor": 4.0,
            },
            "sliding_window": None,
        },
        shape(
            "phi3",
            norm_epsilon=1e-5,
            rope=RopeShape(
                scaling="longrope", factor=4.0, original_max_seq_len=16, short_factors=SHORT, long_factors=LONG
            ),
        ),
    ),
    "deepseek_v2": _mla_case(2, {"q_lora_rank": None, "topk_method": "group_limited_greedy"}, renormalize_top_k=False),
    "deepseek_v3": _mla_case(3, {"q_lora_rank": 24, "norm_topk_prob": True}, router="sigmoid", router_bias=True),
    "gpt_oss": Case(
        "GptOssConfig",
        HF
        | {
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 8,
            "num_hidden_layers": 4,
            "rms_norm_eps": 1e-5,
            "swiglu_limit": 0.5,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 4.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "original_max_position_embeddings": 16,
                "truncate": False,
            },
        },
        shape(
            "gpt_oss",
            num_layers=4,
            head_dim=16,
            norm_epsilon=1e-5,
            window=8,
            global_interval=2,
            qkv_bias=True,
            attention_out_bias=True,
            attention_sinks=True,
            swiglu_limit=0.5,
            moe=dataclasses.replace(TOP2, expert_d_ff=D_FF, router_bias=True, expert_bias=True),
            rope=RopeShape(theta=150000.0, scaling="yarn", factor=4.0, original_max_seq_len=16, truncate=False),
        ),
    ),
}
