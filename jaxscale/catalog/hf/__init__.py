"""A Hugging Face `config.json` -> `ModelShape`.

One function a family reads the fields of that family and refuses what a `ModelShape` cannot say. Field names follow
transformers 4 and 5; defaults are those of the family's configuration class, because files on the Hub leave out
what equals them.
"""

from collections.abc import Callable
from typing import Any

from jaxscale.catalog.hf import dense, sparse
from jaxscale.catalog.hf.fields import Fields
from jaxscale.catalog.strict import require_mapping
from jaxscale.errors import SpecError, nearest
from jaxscale.types import ModelShape

FAMILIES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "llama": dense.llama,
    "mistral": dense.mistral,
    "mixtral": sparse.mixtral,
    "qwen2": dense.qwen2,
    "qwen2_moe": sparse.qwen2_moe,
    "qwen3": dense.qwen3,
    "qwen3_moe": sparse.qwen3_moe,
    "gemma": dense.gemma,
    "gemma2": dense.gemma2,
    "gemma3_text": dense.gemma3,
    "gpt2": dense.gpt2,
    "gpt_neox": dense.gpt_neox,
    "mpt": dense.mpt,
    "olmo": dense.olmo,
    "olmo2": dense.olmo2,
    "phi3": dense.phi3,
    "deepseek_v2": sparse.deepseek_v2,
    "deepseek_v3": sparse.deepseek_v3,
    "kimi_k2": sparse.deepseek_v3,
    "gpt_oss": sparse.gpt_oss,
}
_SAME_AS = {"kimi_k2": "deepseek_v3"}  # another name for the same layers


def shape_from_config(config: object, *, name: str, where: str = "config.json") -> ModelShape:
    """Translate a parsed `config.json`; `where` begins every error."""
    fields = Fields(values=require_mapping(config, where=where), where=where)
    text = fields.nested("text_config")  # multimodal wrappers hold the language model inside
    if text is not None and fields.values.get("model_type") not in FAMILIES:
        fields = text
    kind = fields.raw("model_type")
    reader = FAMILIES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        known = ", ".join(sorted(FAMILIES))
        raise SpecError(f"{where}: model_type={kind!r} is not supported; known: {known}.{nearest(str(kind), FAMILIES)}")
    fields.refuse("is_encoder_decoder", [False], "jaxscale models decoder-only transformers")
    fields.refuse("add_cross_attention", [False], "jaxscale models decoder-only transformers")
    fields.refuse("use_bidirectional_attention", [False], "attention is causal")
    try:
        return ModelShape(name=name, family=_SAME_AS.get(kind, kind), source=where, **reader(fields))
    except SpecError as error:
        raise error if str(error).startswith(where) else SpecError(f"{where}: {error}") from error
