"""In EasyDeL's own environment: its eLargeModel takes each file; mesh, remat policy and arguments are built."""
# ruff: noqa: E402

import json
import logging
import sys
from pathlib import Path

import jax
import yaml

# Without PyTorch these cannot be touched; EasyDeL imports all its models, looks at theirs, and is content with none.
for name in ("dbrx", "glm4v_moe", "llama4", "phimoe", "qwen3_5_moe", "qwen3_next"):
    sys.modules[f"transformers.models.{name}"] = None  # type: ignore[assignment]
from easydel.infra.base_config import EasyDeLBaseConfig  # pyrefly: ignore
from easydel.infra.elarge import eLargeModel  # pyrefly: ignore
from easydel.infra.elarge.builders import to_from_pretrained_kwargs  # pyrefly: ignore
from easydel.infra.elarge.types import get_training_arguments_class, normalize_trainer_config  # pyrefly: ignore
from easydel.infra.utils import get_gradient_checkpoint_policy  # pyrefly: ignore
from eformer.escale import create_mesh  # pyrefly: ignore

logging.disable(logging.CRITICAL)
EMULATED = jax.devices()


def pretend(count: int) -> None:
    """Let JAX see only so many of the emulated devices."""
    jax.devices = lambda *_: EMULATED[:count]
    jax.device_count = jax.local_device_count = lambda *_: count


def arguments(trainer: dict) -> object:
    """The training arguments, as eLargeModel makes them."""
    values = {key: value for key, value in normalize_trainer_config(trainer).items() if key != "trainer_type"}
    return get_training_arguments_class(trainer["trainer_type"])(**values)


for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    case = json.loads((folder / "case.json").read_text())
    said = {"case": folder.name, "error": ""}
    try:
        elm = eLargeModel(yaml.safe_load((folder / case["filename"]).read_text())["config"])
        elm.validate()
        given = to_from_pretrained_kwargs(elm.config)
        base = EasyDeLBaseConfig(**given["config_kwargs"])
        if base.gradient_checkpointing:
            get_gradient_checkpoint_policy(base.gradient_checkpointing, save_names=base.gradient_checkpointing_targets)
        pretend(case["devices"])
        mesh = create_mesh(given["sharding_axis_dims"], given["sharding_axis_names"])
        made = arguments(elm.config["trainer"])
        said |= {"devices": mesh.size, "tensor": mesh.shape["tp"], "context": mesh.shape["sp"]}
        said |= {"batch": made.total_batch_size * made.gradient_accumulation_steps, "seq_len": made.max_length}
    except (Exception, SystemExit) as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print("SAID", json.dumps(said), flush=True)
