"""In Levanter's own environment: its loader reads each configuration, its model is built abstractly and counted."""

import json
import logging
import math
import sys
from pathlib import Path

import draccus  # pyrefly: ignore
import equinox as eqx  # pyrefly: ignore
import haliax as hax  # pyrefly: ignore
import jax
from haliax.partitioning import pspec_for_axis, round_axis_for_partitioning  # pyrefly: ignore
from levanter.main.train_lm import TrainLmConfig  # pyrefly: ignore
from levanter.utils.mesh import create_mesh_from_axis_specs  # pyrefly: ignore

logging.disable(logging.CRITICAL)


def is_named(leaf: object) -> bool:
    """Whether it is an array with names of dims."""
    return isinstance(leaf, hax.NamedArray)


def parameters(config: TrainLmConfig, vocab_size: int) -> tuple[int, int]:
    """Of the model, and what one device holds of them as the configuration maps dims to mesh axes."""
    mapping = config.trainer.parameter_axis_mapping
    vocab = round_axis_for_partitioning(hax.Axis("vocab", vocab_size), mapping)
    model = eqx.filter_eval_shape(config.model.build, vocab, key=jax.random.PRNGKey(0))
    named = [leaf for leaf in jax.tree.leaves(model, is_leaf=is_named) if is_named(leaf)]
    held = 0
    for leaf in named:
        spec = jax.sharding.NamedSharding(jax.sharding.get_mesh(), pspec_for_axis(leaf.axes, mapping))
        held += math.prod(spec.shard_shape(leaf.array.shape))
    return sum(leaf.size for leaf in named), held


for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    case = json.loads((folder / "case.json").read_text())
    said = {"case": folder.name, "error": ""}
    try:
        config = draccus.parse(TrainLmConfig, str(folder / case["filename"]), args=[])
        inside, across = config.trainer.mesh.axis_shapes(case["devices"], case["groups"])
        sizes = {**inside, **across}
        mesh = create_mesh_from_axis_specs(  # emulated devices have no slices: one mesh with the axes of both
            ici_axes=sizes, dcn_axes={}, devices=jax.devices()[: case["devices"]]
        )
        said |= {"batch": config.trainer.train_batch_size, "seq_len": config.train_seq_len}
        said |= {"devices": math.prod(sizes.values()), "tensor": sizes.get("model", 1) * sizes.get("model_dcn", 1)}
        said |= {"context": sizes.get("context", 1) * sizes.get("context_dcn", 1)}
        with jax.sharding.set_mesh(mesh):
            said["parameters"], said["held"] = parameters(config, case["vocab_size"])
    except (Exception, SystemExit) as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print("SAID", json.dumps(said), flush=True)
