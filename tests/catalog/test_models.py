"""Model names and YAML shapes."""

from pathlib import Path

import pytest

from jaxscale.catalog import load_model, model_names
from jaxscale.catalog.hf import shape_from_config
from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import CatalogError, JaxscaleError, SpecError
from jaxscale.types import RopeShape

SHAPE = """
name: mine
num_layers: 4
d_model: 256
num_heads: 8
num_kv_heads: 8
head_dim: 48
d_ff: 1024
vocab_size: 1000
moe: {num_experts: 8, experts_per_token: 2, expert_d_ff: 128, num_leading_dense_layers: 1}
mla: {kv_lora_rank: 64, q_lora_rank: 0, qk_nope_head_dim: 32, qk_rope_head_dim: 16, v_head_dim: 32}
rope: {theta: 1e6, scaling: longrope, factor: 4, short_factors: [1.0, 1.5], long_factors: [2, 3]}
"""


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str, name: str = "shape.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return written


@pytest.mark.parametrize("spelling", ["llama3-8b", "Llama-3-8B", "LLAMA3_8B", " llama3 8b "])
def test_spelling(spelling: str) -> None:
    assert load_model(spelling).name == "llama3-8b"


def test_no_two_presets_are_one_spelling() -> None:
    assert [load_model(name).name for name in model_names()] == list(model_names())


def test_unknown_name() -> None:
    with pytest.raises(CatalogError, match=r"'lama3-8b' is unknown.*Did you mean llama3-8b"):
        load_model("lama3-8b")
    for text in ("", " ", ".", "a" * 5000, "\0"):
        with pytest.raises(CatalogError):
            load_model(text)


def test_a_folder_does_not_hide_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2-124m").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("gpt2-124m").num_layers == 12
    with pytest.raises(CatalogError, match=r"config\.json: cannot be read: No such file"):
        load_model("./gpt2-124m")


def test_yaml_shape(write) -> None:
    shape = load_model(write(SHAPE))
    assert (shape.name, shape.moe.num_experts, shape.mla.qk_head_dim, shape.rope.theta) == ("mine", 8, 48, 1e6)
    assert shape.rope.long_factors == (2.0, 3.0)
    assert shape.num_moe_layers == 3
    assert count_parameters(shape).active < count_parameters(shape).total
    assert load_model(write(SHAPE.replace("name: mine", ""))).name == "shape"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("d_model: 256", "dmodel: 256", "'dmodel' is unknown.*Did you mean d_model"),
        ("d_model: 256\n", "", "d_model missing"),
        ("d_model: 256", "d_model: 0", "d_model=0 must be between 1"),
        ("d_model: 256", "d_model: 256.0", "d_model=256.0 must be a whole number"),
        ("d_model: 256", "d_model: 99999999999999999999", "must be between 1 and"),
        ("num_experts: 8", "num_experts: 1", "experts_per_token=2 is more than num_experts=1"),
        ("num_experts: 8", "experts: 8", "moe: 'experts' is unknown.*Did you mean num_experts"),
        ("kv_lora_rank: 64", "kv_lora_rank: none", "mla: kv_lora_rank='none' must be a whole number"),
        ("scaling: longrope", "scaling: longroep", "Did you mean longrope"),
        ("[2, 3]", "[2, x]", r"long_factors\[1\]='x' must be a number"),
        ("num_kv_heads: 8", "num_kv_heads: 3", "num_kv_heads=3 does not divide num_heads=8"),
        ("d_ff: 1024", "d_ff: 1024\nqkv_bias: true", "qkv_bias=True, but latent attention"),
        ("d_ff: 1024", "d_ff: 1024\nqk_norm: head", "qk_norm='head', but latent attention"),
        ("d_ff: 1024", "d_ff: 1024\nmlp: geglu\nswiglu_limit: 7", "swiglu_limit=7 needs mlp='swiglu', got 'geglu'"),
        ("d_ff: 1024", "d_ff: 1024\nparallel_shared_norm: true", "parallel_shared_norm needs parallel_block"),
    ],
)
def test_yaml_shape_with_a_fault(write, old: str, new: str, message: str) -> None:
    assert old in SHAPE
    with pytest.raises(SpecError, match=message):
        load_model(write(SHAPE.replace(old, new)))


@pytest.mark.parametrize("text", ["", "{", "[1]", '"a"', "NaN", "[" * 100_000])
def test_json_that_is_no_config(write, text: str) -> None:
    with pytest.raises(JaxscaleError, match=r"config\.json"):
        load_model(write(text, "config.json"))


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96,
    "vocab_size": 100, "max_position_embeddings": 8192,
}  # fmt: skip
SCALINGS = [
    ({"factor": 4.0}, "linear", RopeShape(scaling="linear", factor=4.0)),
    ({"factor": 2.0}, "dynamic", RopeShape(scaling="dynamic", factor=2.0, original_max_seq_len=8192)),
    (
        {"factor": 4.0, "original_max_position_embeddings": 2048, "beta_fast": 16, "attention_factor": 1.2},
        "yarn",
        RopeShape(scaling="yarn", factor=4.0, original_max_seq_len=2048, beta_fast=16.0, attention_factor=1.2),
    ),
    (
        {"factor": 8.0, "original_max_position_embeddings": 4096, "low_freq_factor": 1, "high_freq_factor": 4},
        "llama3",
        RopeShape(scaling="llama3", factor=8.0, original_max_seq_len=4096),
    ),
    (
        {"original_max_position_embeddings": 4096, "short_factor": [1, 1.1], "long_factor": [2, 4]},
        "longrope",
        RopeShape(
            scaling="longrope", factor=2.0, original_max_seq_len=4096, short_factors=(1.0, 1.1), long_factors=(2.0, 4.0)
        ),
    ),
]


@pytest.mark.parametrize(("fields", "kind", "expected"), SCALINGS, ids=[kind for _, kind, _ in SCALINGS])
def test_rope_scaling_in_both_spellings(fields: dict, kind: str, expected: RopeShape) -> None:
    spellings = [
        {"rope_scaling": {"type": kind, **fields}},
        {"rope_scaling": {"rope_type": kind, **fields}, "rope_theta": 10_000.0},
        {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **fields}},
    ]
    for spelling in spellings:
        assert shape_from_config(LLAMA | spelling, name="m").rope == expected


def test_old_phi3_files() -> None:
    """Phi-3 states its first context outside the scaling section, and called longrope `su`, then `yarn`."""
    fields = {"short_factor": [1.0], "long_factor": [2.0]}
    for kind in ("su", "yarn", "longrope"):
        config = LLAMA | {
            "model_type": "phi3",
            "original_max_position_embeddings": 2048,
            "rope_scaling": {"type": kind, **fields},
        }
        rope = shape_from_config(config, name="m").rope
        assert (rope.scaling, rope.factor, rope.original_max_seq_len) == ("longrope", 4.0, 2048)


def test_a_window_that_covers_the_context_is_none() -> None:
    config = LLAMA | {"model_type": "mistral"}
    assert shape_from_config(config | {"sliding_window": 8192}, name="m").window == 0
    assert shape_from_config(config | {"sliding_window": 1024}, name="m").window == 1024
    assert shape_from_config(config | {"sliding_window": None}, name="m").window == 0
    types = ["sliding_attention", "full_attention"]
    gemma = config | {"model_type": "gemma2", "sliding_window": 16, "layer_types": types}
    assert shape_from_config(gemma, name="m").global_interval == 2
    assert shape_from_config(gemma | {"layer_types": ["full_attention"] * 2}, name="m").window == 0
    assert shape_from_config(gemma | {"layer_types": ["sliding_attention"] * 2}, name="m").global_interval == 0
    assert shape_from_config(gemma | {"attn_logit_softcapping": None}, name="m").attention_softcap == 0.0
