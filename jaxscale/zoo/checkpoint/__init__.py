"""Hugging Face checkpoints: mapping tables, written layouts, `safetensors` files."""

from jaxscale.zoo.checkpoint.convert import (
    family_of,
    load_checkpoint,
    params_from_tensors,
    save_checkpoint,
    tensors_from_params,
)
from jaxscale.zoo.checkpoint.families import FAMILIES

__all__ = [
    "FAMILIES",
    "family_of",
    "load_checkpoint",
    "params_from_tensors",
    "save_checkpoint",
    "tensors_from_params",
]
