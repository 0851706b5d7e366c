"""Parameter counts of the presets against the exact counts that their makers publish, and against transformers."""

import json
from pathlib import Path

import pytest

from jaxscale.catalog import load_model, model_names
from jaxscale.cost.inventory import count_parameters
from jaxscale.types import ModelShape

from .oracle import meta_count

HUB_CONFIGS: dict[str, dict] = json.loads(Path(__file__).with_name("hub_configs.json").read_text())

# Exact totals: the parameter count that the Hugging Face Hub shows for the repository (its safetensors metadata,
# where that has no quantisation scales, extra heads or copies of tied weights), read 2025.
HUB_TOTALS = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1.5b": 1_557_611_200,
    "opt-125m": 125_239_296,
    "opt-1.3b": 1_315_758_080,
    "opt-6.7b": 6_658_473_984,
    "opt-13b": 12_853_473_280,
    "opt-30b": 29_974_540_288,
    "mpt-7b": 6_649_286_656,
    "falcon-7b": 6_921_720_704,
    "falcon-40b": 41_303_293_952,
    "llama1-7b": 6_738_415_616,
    "llama1-13b": 13_015_864_320,
    "llama1-30b": 32_528_943_616,
    "llama1-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "mistral-large-123b": 122_610_069_504,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_630_071_296,
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen2-72b": 72_706_203_648,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma2-27b": 27_227_128_320,
    "gemma3-1b": 999_885_952,
    "olmo-1b": 1_176_764_416,
    "olmo-7b": 6_888_095_744,
    "olmo2-1b": 1_484_916_736,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
    "olmo2-32b": 32_234_279_936,
    "phi3-mini": 3_821_079_552,
    "phi3-medium": 13_960_238_080,
    "phi4-14b": 14_659_507_200,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
}


@pytest.mark.parametrize("preset", HUB_TOTALS)
def test_total_equals_hub(preset: str) -> None:
    assert count_parameters(load_model(preset)).total == HUB_TOTALS[preset]


# (total, without embeddings): Biderman et al. 2023 (arXiv 2304.01373), table 1, and the repository's README; the
# model of 20B from Black et al. 2022 (arXiv 2204.06745), section 2.
PYTHIA = {
    "pythia-70m": (70_426_624, 18_915_328),
    "pythia-160m": (162_322_944, 85_056_000),
    "pythia-410m": (405_334_016, 302_311_424),
    "pythia-1b": (1_011_781_632, 805_736_448),
    "pythia-1.4b": (1_414_647_808, 1_208_602_624),
    "pythia-2.8b": (2_775_208_960, 2_517_652_480),
    "pythia-6.9b": (6_857_302_016, 6_444_163_072),
    "pythia-12b": (11_846_072_320, 11_327_027_200),
}


@pytest.mark.parametrize("preset", PYTHIA)
def test_pythia_total_and_embedding(preset: str) -> None:
    count = count_parameters(load_model(preset))
    assert (count.total, count.total - count.embedding) == PYTHIA[preset]


def test_gpt_neox_20b() -> None:
    assert count_parameters(load_model("gpt-neox-20b")).total == 20_554_567_680


# Parameters without embeddings: Gemma (arXiv 2403.08295) table 2, Gemma 2 (arXiv 2408.00118) table 2.
GEMMA_WITHOUT_EMBEDDING = {
    "gemma-2b": 1_981_884_416,
    "gemma-7b": 7_751_248_896,
    "gemma2-2b": 2_024_517_888,
    "gemma2-9b": 8_324_201_984,
    "gemma2-27b": 26_047_480_320,
}


@pytest.mark.parametrize("preset", GEMMA_WITHOUT_EMBEDDING)
def test_gemma_without_embedding(preset: str) -> None:
    count = count_parameters(load_model(preset))
    assert count.total - count.embedding == GEMMA_WITHOUT_EMBEDDING[preset]


def billions(value: float, digits: int) -> float:
    return round(value / 1e9, digits)


# Rounded: (total, without embeddings) in billions. Gemma 3 (arXiv 2503.19786) table 1; cards of Qwen 2.5 and 3.
ROUNDED = {
    "gemma3-4b": (3.880, 3.209),
    "gemma3-12b": (11.766, 10.759),
    "qwen2.5-0.5b": (0.49, 0.36),
    "qwen2.5-3b": (3.09, 2.77),
    "qwen2.5-7b": (7.61, 6.53),
    "qwen3-0.6b": (0.6, 0.44),
    "qwen3-1.7b": (1.7, 1.4),
    "qwen3-14b": (14.8, 13.2),
    "qwen3-32b": (32.8, 31.2),
    "qwen3-30b-a3b": (30.5, 29.9),
}


@pytest.mark.parametrize("preset", ROUNDED)
def test_rounded_total_and_embedding(preset: str) -> None:
    count = count_parameters(load_model(preset))
    for value, published in zip((count.total, count.total - count.embedding), ROUNDED[preset], strict=True):
        last_digit = 10.0 ** -len(f"{published}".partition(".")[2])
        assert value / 1e9 == pytest.approx(published, abs=last_digit)


# Narayanan et al. 2021 (arXiv 2104.04473), table 1; Korthikanti et al. 2022 (arXiv 2205.05198), table 3; in billions.
MEGATRON = {
    "megatron-1.7b": 1.7,
    "megatron-3.6b": 3.6,
    "megatron-7.5b": 7.5,
    "megatron-18b": 18.4,
    "megatron-22b": 22.0,
    "megatron-39b": 39.1,
    "megatron-76b": 76.1,
    "megatron-145b": 145.6,
    "megatron-310b": 310.1,
    "megatron-530b": 529.6,
    "megatron-1t": 1008.0,
}


@pytest.mark.parametrize("preset", MEGATRON)
def test_megatron_table(preset: str) -> None:
    assert count_parameters(load_model(preset)).total / 1e9 == pytest.approx(MEGATRON[preset], abs=0.1)


# (total, active) in billions; makers differ in whether the input embedding counts as active.
SPARSE = {
    "mixtral-8x7b": (46.7, 12.9, "all"),  # Jiang et al. 2024 (arXiv 2401.04088)
    "mixtral-8x22b": (141, 39, "all"),  # mistral.ai, 2024-04
    "qwen2-57b-a14b": (57, 14, "all"),  # arXiv 2407.10671
    "qwen3-235b-a22b": (235, 22, "all"),  # model card, 2025-04
    "deepseek-v2": (236, 21, "all"),  # arXiv 2405.04434
    "deepseek-v3": (671, 37, "without input embedding"),  # arXiv 2412.19437
    "kimi-k2-1t": (1026, 32, "without input embedding"),  # arXiv 2507.20534
    "gpt-oss-20b": (20.91, 3.61, "without input embedding"),  # arXiv 2508.10925, table 1
    "gpt-oss-120b": (116.83, 5.13, "without input embedding"),
}


@pytest.mark.parametrize("preset", SPARSE)
def test_sparse_total_and_active(preset: str) -> None:
    shape = load_model(preset)
    count = count_parameters(shape)
    total, active, convention = SPARSE[preset]
    counted = count.active - (shape.vocab_size * shape.d_model if convention != "all" else 0)
    digits = len(f"{active}".partition(".")[2])
    assert (billions(count.total, digits), billions(counted, digits)) == (total, active)


def test_gpt_oss_parts() -> None:
    """OpenAI's table 1: MLP, attention, embedding and unembedding, in billions."""
    count = count_parameters(load_model("gpt-oss-120b"))
    parts = (count.experts + count.mlp, count.attention, count.embedding)
    assert [billions(part, 2) for part in parts] == [114.71, 0.96, 1.16]


# Real configurations at full size, built by transformers on the meta device.
FULL_SIZE = HUB_CONFIGS | {
    "opt-66b": {
        "model_type": "opt",
        "hidden_size": 9216,
        "word_embed_proj_dim": 9216,
        "num_hidden_layers": 64,
        "ffn_dim": 36864,
        "num_attention_heads": 72,
        "max_position_embeddings": 2048,
        "vocab_size": 50272,
    },
    "falcon-40b": {
        "model_type": "falcon",
        "hidden_size": 8192,
        "num_hidden_layers": 60,
        "num_attention_heads": 128,
        "num_kv_heads": 8,
        "new_decoder_architecture": True,
        "parallel_attn": True,
        "bias": False,
        "vocab_size": 65024,
    },
}


@pytest.mark.parametrize("preset", FULL_SIZE)
def test_full_size_equals_transformers(preset: str) -> None:
    assert count_parameters(load_model(preset)).total == meta_count(FULL_SIZE[preset])


@pytest.mark.parametrize("preset", model_names())
def test_parts_sum_to_total(preset: str) -> None:
    count = count_parameters(load_model(preset))
    assert count.total == count.embedding + count.attention + count.mlp + count.experts + count.norm
    assert count.active <= count.total
    assert (count.active == count.total) == (load_model(preset).moe is None)


def test_catalogue_spans_the_field() -> None:
    totals = [count_parameters(load_model(preset)).total for preset in model_names()]
    assert len(totals) >= 40
    assert min(totals) < 124.5e6
    assert max(totals) > 1e12


def test_every_preset_has_a_source() -> None:
    shapes: list[ModelShape] = [load_model(preset) for preset in model_names()]
    assert [shape.name for shape in shapes if not shape.source] == []
