"""Import of config.json against an oracle nobody here wrote: models of `transformers` on torch's meta device."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxscale.catalog.hf import FAMILIES, shape_from_config
from jaxscale.cost.inventory import count_parameters

from .oracle import config_of, oracle_count


@st.composite
def llama_like(draw: st.DrawFn) -> dict[str, Any]:
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    heads = kv_heads * draw(st.sampled_from([1, 2]))
    return {
        "hidden_size": heads * draw(st.sampled_from([8, 16])),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": draw(st.integers(3, 70)),
        "num_hidden_layers": draw(st.integers(1, 5)),
        "vocab_size": draw(st.integers(10, 300)),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": 0,
    }


def with_fields(base: st.SearchStrategy, **extra: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(lambda a, b: a | b, base, st.fixed_dictionaries(extra))


def of(*values: Any) -> st.SearchStrategy:
    return st.sampled_from(values)


gpt2 = st.builds(
    lambda heads, width, inner, **rest: {"n_head": heads, "n_embd": heads * width, "n_inner": inner, **rest},
    heads=of(1, 3), width=of(8, 16), inner=of(None, 37), n_layer=st.integers(1, 4), vocab_size=st.integers(10, 99),
    n_positions=of(16, 33), tie_word_embeddings=st.booleans(),
)  # fmt: skip
mpt = st.builds(
    lambda heads, width, **rest: {"n_heads": heads, "d_model": heads * width, **rest},
    heads=of(1, 4), width=of(8, 16), n_layers=st.integers(1, 4), vocab_size=st.integers(10, 99), max_seq_len=of(16, 32),
)  # fmt: skip
experts = {"num_experts_per_tok": of(1, 2), "moe_intermediate_size": st.integers(3, 40)}
latent = with_fields(
    llama_like(), kv_lora_rank=of(4, 12), q_lora_rank=of(None, 6), qk_nope_head_dim=of(8, 12),
    qk_rope_head_dim=of(4, 8), v_head_dim=of(4, 10), n_shared_experts=of(1, 2), n_routed_experts=of(2, 8),
    first_k_dense_replace=of(0, 1), tie_word_embeddings=of(False), **experts,
).map(lambda c: c | {"num_key_value_heads": c["num_attention_heads"], "n_group": 1, "topk_group": 1})  # fmt: skip
head_dim = of(8, 24)
CONFIGS: dict[str, st.SearchStrategy] = {
    "llama": with_fields(llama_like(), head_dim=head_dim, attention_bias=st.booleans(), mlp_bias=st.booleans()),
    "mistral": with_fields(llama_like(), head_dim=head_dim, sliding_window=of(None, 4)),
    "mixtral": with_fields(llama_like(), num_local_experts=of(2, 5), num_experts_per_tok=of(1, 2)),
    "qwen2": llama_like(),
    "qwen2_moe": with_fields(
        llama_like(), num_experts=of(2, 5), shared_expert_intermediate_size=of(5, 24), qkv_bias=st.booleans(),
        decoder_sparse_step=of(1, 2), mlp_only_layers=of([]), **experts,
    ),
    "qwen3": with_fields(llama_like(), head_dim=head_dim, attention_bias=st.booleans()),
    "qwen3_moe": with_fields(
        llama_like(), head_dim=head_dim, num_experts=of(2, 5), mlp_only_layers=of([], [0]),
        norm_topk_prob=st.booleans(), **experts,
    ),
    "gemma": with_fields(llama_like(), head_dim=head_dim, tie_word_embeddings=of(True)),
    "gemma2": with_fields(llama_like(), head_dim=head_dim, sliding_window=of(4, 16)),
    "gemma3_text": with_fields(llama_like(), head_dim=head_dim, sliding_window=of(4, 16)),
    "gpt2": gpt2,
    "gpt_neox": with_fields(llama_like(), attention_bias=st.booleans(), use_parallel_residual=st.booleans()).map(
        lambda c: c | {"num_key_value_heads": c["num_attention_heads"]}
    ),
    "mpt": mpt,
    "olmo": with_fields(llama_like(), attention_bias=st.booleans(), clip_qkv=of(None, 8.0)),
    "olmo2": with_fields(llama_like(), attention_bias=st.booleans()),
    "phi3": llama_like(),
    "deepseek_v2": latent,
    "deepseek_v3": latent,
    "gpt_oss": with_fields(
        llama_like(), head_dim=head_dim, num_local_experts=of(2, 5), num_experts_per_tok=of(1, 2),
        attention_bias=st.booleans(),
    ),
}  # fmt: skip


def as_version_4(config: dict[str, Any]) -> dict[str, Any]:
    """Spell rotary fields as transformers 4 wrote them."""
    made = dict(config)
    rope = made.pop("rope_parameters", None) or {}
    if "full_attention" in rope:
        made["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    names = (
        {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        if config["model_type"] == "gpt_neox"
        else {}
    )
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            made[names.get(key, key)] = rope[key]
    scaling = {k: v for k, v in rope.items() if k not in ("rope_theta", "partial_rotary_factor", "rope_type")}
    made["rope_scaling"] = {"type": rope["rope_type"], **scaling} if scaling else None
    return made


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_counts_equal_transformers(family: str) -> None:
    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(CONFIGS[family])
    def check(values: dict[str, Any]) -> None:
        config = config_of(family, **values)
        file = json.loads(config.to_json_string(use_diff=False))
        shape = shape_from_config(file, name="m")
        assert count_parameters(shape).total == oracle_count(config)
        assert shape_from_config(as_version_4(file), name="m") == shape

    check()


def test_every_family_is_compared() -> None:
    assert set(FAMILIES) - set(CONFIGS) == {"kimi_k2"}  # DeepSeek-V3 under another name
