"""A training run that saves every step, for others to kill: a line for each save before it starts.

Run as `python -m tests.runtime.checkpoint_run DIRECTORY LAYOUT`.
"""

import functools
import hashlib
import json
import sys

import jax
import numpy as np

from jaxscale.runtime import build_step
from jaxscale.runtime.canonical import convert_state
from jaxscale.runtime.checkpoint import open_checkpoints
from jaxscale.runtime.data import SyntheticTokens, load_batch
from jaxscale.types import ModelShape, Workload, parse_layout

# Large enough that writing it takes as long as everything else does.
SHAPE = ModelShape(
    name="killed", num_layers=4, d_model=128, num_heads=4, num_kv_heads=4, head_dim=32, d_ff=512, vocab_size=512
)
WORKLOAD = Workload(seq_len=32, global_batch_size=8)
LAYOUT = "fsdp=2,tensor=2,zero=1"


def build(layout: str):
    parsed = parse_layout(layout)
    return build_step(SHAPE, WORKLOAD, parsed, jax.devices()[: parsed.num_devices])


@functools.cache
def _converter(layout: str):
    return jax.jit(functools.partial(convert_state, build(layout).program, to=True))


def digest(layout: str, state) -> str:
    """Of every bit of a state in the form that no layout changes."""
    canonical = _converter(layout)({"params": state.master, "optimizer": state.optimizer})
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(canonical))).hexdigest()


def main(directory: str, layout: str) -> None:
    train = build(layout)
    source = SyntheticTokens(seq_len=WORKLOAD.seq_len, vocab_size=SHAPE.vocab_size)
    with open_checkpoints(directory) as checkpoints:
        state = checkpoints.restore(train) if checkpoints.steps else train.init()
        while True:
            state, _ = train.step(state, load_batch(source, int(state.step), WORKLOAD, train.batch_sharding))
            print(json.dumps({"step": int(state.step), "digest": digest(layout, state)}), flush=True)
            checkpoints.save(train, state)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_disable_most_optimizations", True)
    main(*sys.argv[1:])
