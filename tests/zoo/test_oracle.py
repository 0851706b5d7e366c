"""The oracle nobody here wrote: logits of Hugging Face's own models, from their own checkpoint files."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxscale.catalog import load_model
from jaxscale.zoo import load_checkpoint, logits, save_checkpoint
from tests.zoo.cases import CASES, VOCAB
from tests.zoo.draw import quick_jit

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SEQ_LEN = 24
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
PARTIAL_LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16,
    "partial_rotary_factor": 0.75, "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.0, 2.0, 3.0],
}  # fmt: skip


def reference_model(config_class: str, config: dict[str, Any], seed: int):
    """A Hugging Face model whose every parameter, norms and biases too, is random."""
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    filled = getattr(transformers, config_class)(**config)
    model = transformers.AutoModelForCausalLM.from_config(filled, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in name:
                continue
            if tensor.ndim == 1:
                tensor.add_(0.3 * torch.randn_like(tensor))
            elif tensor.ndim > 1:
                tensor.mul_(3.0)
    return model


def reference_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens), use_cache=False).logits.numpy()


def assert_same_logits(model, shape, folder, tokens) -> np.ndarray:
    """Load the model's files and compare; returns the reference's logits."""
    expected = reference_logits(model, tokens)
    params = load_checkpoint(shape, folder)
    actual = np.asarray(quick_jit(lambda p, t: logits(shape, p, t))(params, jnp.asarray(tokens)))
    assert np.std(expected) > 0.05, "logits of a model that does something"
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)
    return expected


@pytest.mark.parametrize("name", CASES)
def test_logits_match_transformers(name, tmp_path):
    case = CASES[name]
    model = reference_model(case.config_class, case.config, seed=len(name))
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    tokens = np.random.default_rng(0).integers(0, VOCAB, (2, SEQ_LEN))
    imported = load_model(str(tmp_path))
    assert dataclasses.replace(imported, name=case.shape.name, source="") == case.shape
    expected = assert_same_logits(model, case.shape, tmp_path, tokens)

    written = tmp_path / "written"
    save_checkpoint(case.shape, load_checkpoint(case.shape, tmp_path), written, max_shard_bytes=50_000)
    (written / "config.json").write_text((tmp_path / "config.json").read_text())
    again = transformers.AutoModelForCausalLM.from_pretrained(written, attn_implementation="eager", dtype="float32")
    np.testing.assert_array_equal(reference_logits(again.eval(), tokens), expected)


# Fields of a configuration that a draw may change, with what it draws from; those that a family lacks are left.
DRAWN = {
    "hidden_size": (32, 64), "d_model": (32, 64), "n_embd": (32, 64), "intermediate_size": (24, 80),
    "vocab_size": (61, 130), "moe_intermediate_size": (8, 24), "sliding_window": (3, 12), "v_head_dim": (4, 16),
    "num_experts_per_tok": (1, 3), "norm_topk_prob": (True, False), "tie_word_embeddings": (True, False),
    "kv_lora_rank": (8, 20), "rms_norm_eps": (1e-6, 1e-3), "num_key_value_heads": (1, 2),
}  # fmt: skip
FIXED = {"mixtral": ("sliding_window",), "phi3": ("sliding_window", "hidden_size")}
FIXED |= {"deepseek_v2": ("num_key_value_heads",), "deepseek_v3": ("num_key_value_heads",)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_random_configurations_match_too(name, seed, tmp_path):
    case, rng = CASES[name], np.random.default_rng([seed, len(name)])
    drawn = {
        key: choices[rng.integers(len(choices))]
        for key, choices in DRAWN.items()
        if key in case.config and key not in FIXED.get(name, ())
    }
    model = reference_model(case.config_class, case.config | drawn, seed=seed)
    model.save_pretrained(tmp_path)
    shape = load_model(str(tmp_path))
    tokens = rng.integers(0, shape.vocab_size, (3, rng.integers(5, 40)))
    assert_same_logits(model, shape, tmp_path, tokens)


# What the drawn fields do not reach: (case it starts from, configuration class or none to keep it, changes).
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma": ("llama3", "GemmaConfig", {"head_dim": 16, "rope_parameters": PLAIN_ROPE}),
    "olmo": ("llama3", "OlmoConfig", {"clip_qkv": 0.4, "rope_parameters": PLAIN_ROPE}),
    "phi4_mini": ("phi3", "", {"rope_parameters": PARTIAL_LONGROPE}),
    "sequential_neox": ("gpt_neox", "", {"use_parallel_residual": False}),
    "mixtral_window": ("mixtral", "", {"sliding_window": 6}),
    "half_rotation_deepseek": ("deepseek_v3", "", {"rope_interleave": False}),
    "direct_queries_deepseek": ("deepseek_v3", "", {"q_lora_rank": None}),
    "unscaled_deepseek": ("deepseek_v3", "", {"rope_parameters": PLAIN_ROPE}),
    "greedy_deepseek": ("deepseek_v2", "", {"topk_method": "greedy", "q_lora_rank": 16}),
    "qwen2_window": ("qwen2", "", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}),
    "mpt_six_heads": ("mpt", "", {"d_model": 48, "n_heads": 6}),
    "odd_llama": (
        "llama3", "",
        {"hidden_size": 48, "head_dim": 12, "num_attention_heads": 6, "num_key_value_heads": 3, "attention_bias": True},
    ),
    "odd_qwen3_moe": (
        "qwen3_moe", "",
        {
            "head_dim": 20, "num_attention_heads": 6, "num_experts": 6, "num_experts_per_tok": 3,
            "norm_topk_prob": False, "decoder_sparse_step": 2, "num_hidden_layers": 5,
        },
    ),
    "odd_gemma3": (
        "gemma3", "",
        {"hidden_size": 48, "head_dim": 12, "num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": 5},
    ),
    "odd_deepseek": (
        "deepseek_v3", "",
        {
            "n_routed_experts": 12, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 4, "qk_nope_head_dim": 12,
            "qk_rope_head_dim": 8, "v_head_dim": 6, "first_k_dense_replace": 2, "num_hidden_layers": 4,
            "n_shared_experts": 1, "norm_topk_prob": False,
        },
    ),
    "odd_gpt_oss": (
        "gpt_oss", "",
        {"head_dim": 12, "num_attention_heads": 6, "num_key_value_heads": 3, "num_local_experts": 5,
         "num_experts_per_tok": 3, "sliding_window": 5},
    ),
    "qwen3_moe_dense_first": ("qwen3_moe", "", {"mlp_only_layers": [0]}),
    "tied_olmo": ("llama3", "OlmoConfig", {"tie_word_embeddings": True, "rope_parameters": PLAIN_ROPE}),
    "exact_gelu": ("llama3", "", {"hidden_act": "gelu"}),
    "exact_gemma2": ("gemma2", "", {"hidden_activation": "gelu"}),
    "legacy_gemma": ("llama3", "GemmaConfig", {"head_dim": 16, "hidden_act": "gelu", "rope_parameters": PLAIN_ROPE}),
    "silu_gemma": ("llama3", "GemmaConfig", {"head_dim": 16, "hidden_act": "silu", "rope_parameters": PLAIN_ROPE}),
    "gemma3_of_one_base": (
        "gemma3", "",
        {"rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0},
            "sliding_attention": PLAIN_ROPE,
        }},
    ),
    "dynamic_from_longest": ("llama_dynamic_mqa", "", {"max_position_embeddings": 20}),
    "windowed_by_layer_types": (
        "qwen2", "",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3,
         "layer_types": ["sliding_attention"] * 3},
    ),
    "renormalizing_deepseek_v2": ("deepseek_v2", "", {"norm_topk_prob": True}),
    "capped_gemma3": ("gemma3", "", {"attn_logit_softcapping": 2.0}),
    "unscaled_gpt2": ("gpt2", "", {"scale_attn_weights": False}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_match_too(variant, tmp_path):
    name, config_class, changes = VARIANTS[variant]
    model = reference_model(config_class or CASES[name].config_class, CASES[name].config | changes, seed=3)
    model.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, VOCAB, (2, SEQ_LEN))
    assert_same_logits(model, load_model(str(tmp_path)), tmp_path, tokens)
