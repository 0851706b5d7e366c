"""One twin, in a process of its own: a `Twin` as JSON on stdin, a `TwinResult` as JSON in a file.

Run as `python -m jaxscale.measure.child RESULT_FILE`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from jaxscale.measure.shrink import Twin
from jaxscale.measure.twin import SMALL_LEAF, STEPS, TwinResult, single_device
from jaxscale.types.codec import decode, encode


def main(arguments: list[str]) -> None:
    """Read a twin, run it, write the result."""
    twin: Twin = decode(Twin, json.load(sys.stdin))
    import jax

    jax.config.update("jax_num_cpu_devices", twin.layout.num_devices)
    result = run(twin)
    Path(arguments[0]).write_text(json.dumps(encode(result)))


def run(twin: Twin) -> TwinResult:
    """Train three steps sharded and on one device, from the same parameters and batch."""
    import jax
    import numpy as np

    from jaxscale.aot.hlo import MeshAxes, read_program
    from jaxscale.runtime import Batch, build_step

    started = time.monotonic()
    tokens = np.random.default_rng(0).integers(
        0, twin.shape.vocab_size, (twin.workload.global_batch_size, twin.workload.seq_len + 1), dtype=np.int32
    )
    batch = Batch(tokens=tokens[:, :-1], targets=tokens[:, 1:])

    def train(step: Any, params: Any) -> tuple[list[float], Any]:
        state = step.init(params)
        placed = jax.device_put(batch, step.batch_sharding)
        gradients, _ = step.gradients(state, placed)
        losses = []
        for _ in range(STEPS):
            state, metrics = step.step(state, placed)
            losses.append(float(metrics["loss"]))
        return losses, jax.tree.map(np.asarray, gradients)

    alone = build_step(twin.shape, twin.workload, single_device(twin), jax.devices()[:1])
    params = jax.tree.map(np.asarray, alone.init().master)
    sharded = build_step(twin.shape, twin.workload, twin.layout, jax.devices())
    losses, gradients = train(sharded, params)
    single_losses, single_gradients = train(alone, params)
    mesh = MeshAxes(names=tuple(sharded.mesh.axis_names), sizes=tuple(sharded.mesh.devices.shape))
    program = read_program(sharded.lower().compile().as_text(), mesh)
    return TwinResult(
        twin=twin,
        losses=tuple(losses),
        single_losses=tuple(single_losses),
        gradient_error=_worst_error(gradients, single_gradients),
        collectives=tuple(program.collectives),
        seconds=time.monotonic() - started,
    )


def _worst_error(found: Any, expected: Any) -> float:
    import jax
    import numpy as np

    # Some gradients are zero but for rounding: of the keys' bias, since a softmax takes no notice of it.
    floor = SMALL_LEAF * max(float(np.abs(want).max()) for want in jax.tree.leaves(expected))

    def error(got: Any, want: Any) -> float:
        scale = max(float(np.abs(want).max()), floor)
        return float(np.abs(got - want).max()) / scale

    return max(jax.tree.leaves(jax.tree.map(error, found, expected)))


if __name__ == "__main__":
    main(sys.argv[1:])
