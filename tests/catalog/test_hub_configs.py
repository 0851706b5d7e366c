"""A model's published config.json gives the preset of that model, field by field; bad fields are named."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_model
from jaxscale.catalog.hf import FAMILIES, shape_from_config
from jaxscale.errors import JaxscaleError, SpecError
from jaxscale.types import ModelShape

# The fields that describe the model, as the files stand on the Hugging Face Hub; one member or more a family.
HUB_CONFIGS: dict[str, dict] = json.loads(Path(__file__).with_name("hub_configs.json").read_text())


@pytest.mark.parametrize("preset", HUB_CONFIGS)
def test_config_gives_preset(preset: str) -> None:
    shape = shape_from_config(HUB_CONFIGS[preset], name=preset)
    assert dataclasses.replace(shape, source="") == dataclasses.replace(load_model(preset), source="")


def test_every_family_has_a_config() -> None:
    kinds = {config.get("text_config", config)["model_type"] for config in HUB_CONFIGS.values()}
    assert kinds == set(FAMILIES)


def test_folder_or_file(tmp_path: Path) -> None:
    folder = tmp_path / "Llama-3.1-8B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(HUB_CONFIGS["llama3.1-8b"]))
    assert load_model(str(folder)).name == "Llama-3.1-8B"
    assert load_model(str(folder / "config.json")) == dataclasses.replace(
        load_model(str(folder)), source=str(folder / "config.json")
    )


BAD_FIELDS = [
    ("llama3.1-8b", {"hidden_size": None}, "hidden_size is missing"),
    ("llama3.1-8b", {"hidden_size": -4096}, "hidden_size=-4096 must be a whole number from 1"),
    ("llama3.1-8b", {"hidden_size": 4096.5}, "hidden_size=4096.5 must be a whole number"),
    ("llama3.1-8b", {"hidden_size": "4096"}, "hidden_size='4096' must be a whole number"),
    ("llama3.1-8b", {"hidden_size": True}, "hidden_size=True must be a whole number"),
    ("llama3.1-8b", {"hidden_size": 10**30}, "must be a whole number from 1 to"),
    ("llama3.1-8b", {"hidden_size": 4097}, "hidden_size=4097 is not a multiple of num_attention_heads=32"),
    ("llama3.1-8b", {"num_key_value_heads": 5}, "num_kv_heads=5 does not divide num_heads=32"),
    ("llama3.1-8b", {"num_hidden_layers": 0}, "num_hidden_layers=0"),
    ("llama3.1-8b", {"hidden_act": "silly"}, "hidden_act='silly' is not supported.*Did you mean silu"),
    ("llama3.1-8b", {"tie_word_embeddings": "no"}, "tie_word_embeddings='no' must be true or false"),
    ("llama3.1-8b", {"rope_theta": float("nan")}, "rope_theta=nan must be a number"),
    ("llama3.1-8b", {"rope_scaling": 8.0}, "rope_scaling must be a mapping, got a number"),
    ("llama3.1-8b", {"rope_scaling": {"rope_type": "llama4"}}, "rope_type='llama4' is not supported.*llama3"),
    ("llama3.1-8b", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
    ("llama3.1-8b", {"rope_scaling": {"rope_type": "longrope"}}, "short_factor is missing"),
    ("llama3.1-8b", {"model_type": "lama"}, "model_type='lama' is not supported.*Did you mean llama"),
    ("llama3.1-8b", {"model_type": None}, "model_type is missing"),
    ("llama3.1-8b", {"model_type": ["llama"]}, "model_type=.* is not supported"),
    ("llama3.1-8b", {"is_encoder_decoder": True}, "decoder-only"),
    ("mixtral-8x7b", {"num_experts_per_tok": 9}, "experts_per_token=9 is more than num_experts=8"),
    ("gpt-oss-20b", {"layer_types": ["full_attention"] * 3}, "layer_types must list one kind for each of the 24"),
    ("gpt-oss-20b", {"layer_types": ["linear_attention"] * 24}, "layer_types has 'linear_attention'"),
    ("gpt-oss-20b", {"layer_types": ["full_attention", *["sliding_attention"] * 23]}, "must repeat one pattern"),
    ("qwen2.5-7b", {"use_sliding_window": True, "max_window_layers": 10}, "max_window_layers=10"),
    ("qwen3-30b-a3b", {"mlp_only_layers": [3]}, "mlp_only_layers=.* must name the first layers only"),
    ("deepseek-v3", {"kv_lora_rank": None}, "kv_lora_rank is missing"),
    ("deepseek-v3", {"attention_bias": True}, "attention_bias=True is not supported"),
    ("deepseek-v3", {"n_group": 7}, "num_expert_groups=7 must divide num_experts=256"),
    ("deepseek-v2", {"moe_layer_freq": 2}, "moe_layer_freq=2 is not supported"),
    ("gpt2-1.5b", {"n_head": 24}, "n_embd=1600 is not a multiple of n_head=24"),
    ("gpt2-1.5b", {"add_cross_attention": True}, "decoder-only"),
    ("mpt-7b", {"attn_config": {"attn_type": "flash"}}, "attn_type='flash' is not supported"),
    ("gpt-oss-20b", {"swiglu_alpha": 1.5}, "swiglu_alpha=1.5 is not supported"),
    (
        "gemma3-1b",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
        "sliding_attention: rope_type='linear' is not supported",
    ),
]


@pytest.mark.parametrize(("preset", "change", "message"), BAD_FIELDS)
def test_bad_field_is_named(preset: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        shape_from_config(HUB_CONFIGS[preset] | change, name="m", where="config.json")
    assert str(caught.value).startswith("config.json: ")


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=8), st.just([]), st.just({})
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(HUB_CONFIGS)), st.data())
def test_junk_in_any_field_is_a_clear_error_or_a_shape(preset: str, data: st.DataObject) -> None:
    config = copy.deepcopy(HUB_CONFIGS[preset])
    holder = config.get("text_config", config)
    holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(JUNK)
    try:
        made: object = shape_from_config(config, name="m")
    except JaxscaleError as error:
        made = str(error)
    assert isinstance(made, ModelShape) or str(made).startswith("config.json")
