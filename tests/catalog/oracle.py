"""Parameter counts by an oracle nobody here wrote: `transformers`, on torch's meta device (no memory, no weights)."""

from typing import Any

import pytest


def config_of(kind: str, **values: Any) -> Any:
    """The configuration object of a model_type; skips the test where transformers is not installed."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    transformers.logging.set_verbosity_error()
    return transformers.AutoConfig.for_model(kind, **values)


def oracle_count(config: Any) -> int:
    """Parameters of torch's model, tied ones once; DeepSeek-V3's routing bias, learned by rule, is a buffer there."""
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    biases = [b.numel() for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")]
    return sum(p.numel() for p in model.parameters()) + sum(biases)


def meta_count(config: dict[str, Any]) -> int:
    """Parameters of the language model that a config.json describes."""
    config = config.get("text_config", config)
    kind = config["model_type"].replace("kimi_k2", "deepseek_v3")
    return oracle_count(config_of(kind, **{key: value for key, value in config.items() if key != "model_type"}))
