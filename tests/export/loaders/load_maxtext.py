"""In MaxText's own environment: its loader reads each configuration, its model is built abstractly and counted."""

import json
import logging
import math
import sys
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh
from maxtext.configs import pyconfig  # pyrefly: ignore
from maxtext.utils import maxtext_utils, model_creation_utils  # pyrefly: ignore

logging.disable(logging.CRITICAL)


def parameters(config, num_devices: int) -> tuple[int, int]:
    """Of the model, and what one device holds of them."""
    mesh = Mesh(maxtext_utils.create_device_mesh(config, jax.devices()[:num_devices]), config.mesh_axes)
    _, model = model_creation_utils.create_nnx_abstract_model(config, mesh)
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    held = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    return sum(math.prod(leaf.shape) for leaf in leaves), held


for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    case = json.loads((folder / "case.json").read_text())
    overrides = {
        "skip_jax_distributed_system": "true", "internal_compile": "true",
        "internal_compile_num_devices": case["devices"], "compile_topology_num_slices": case["groups"],
    }  # fmt: skip
    said = {"case": folder.name, "error": ""}
    try:
        config = pyconfig.initialize(
            ["train", str(folder / case["filename"]), *(f"{k}={v}" for k, v in overrides.items())]
        )
        said |= {"batch": config.global_batch_size_to_train_on, "seq_len": config.max_target_length}
        if case["groups"] == 1:  # emulated devices have no slices
            said["parameters"], said["held"] = parameters(config, case["devices"])
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print("SAID", json.dumps(said), flush=True)
