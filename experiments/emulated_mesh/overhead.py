"""What measuring adds to a step: every step synchronised and its metrics read, against steps left to run.

    python experiments/emulated_mesh/overhead.py [--rounds 15]

Both kinds take turns on the same program, so that a drifting machine does not matter. The same is done for the gradient
noise scale, which is part of the program: its step against the one without.
"""

import argparse
import statistics
import time
from typing import Any

from ground_truth import REFERENCE, come_first
from study import CLUSTER, WORKLOAD, model

from jaxscale.measure.pace import RunningStep, ratios, running_step
from jaxscale.measure.step_child import take_devices
from jaxscale.runtime import TrainOptions

STEPS_A_TURN = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    come_first()
    devices = take_devices(CLUSTER.num_devices, emulated=True)
    step = running_step(model("dense"), WORKLOAD, REFERENCE, devices)
    added = [measured_s(step) / free_s(step) - 1.0 for _ in range(rounds)]
    print(f"measuring: {statistics.median(added):+.1%} of a step, quartiles {_quartiles(added)}")
    noisy = running_step(model("dense"), WORKLOAD, REFERENCE, devices, TrainOptions(noise_scale=True))
    added = [ratio - 1.0 for ratio in ratios(noisy, step, STEPS_A_TURN * rounds)]
    print(f"noise scale: {statistics.median(added):+.1%} of a step, quartiles {_quartiles(added)}")


def measured_s(step: RunningStep) -> float:
    """Seconds of some steps as a measurement runs them."""
    started = time.perf_counter()
    for _ in range(STEPS_A_TURN):
        step.run()
    return time.perf_counter() - started


def free_s(step: RunningStep) -> float:
    """Seconds of as many steps that nobody waits for until the last is done."""
    import jax

    started, metrics = time.perf_counter(), None
    for _ in range(STEPS_A_TURN):
        step.state, metrics = step.compiled(step.state, step.batch)
    jax.block_until_ready((step.state, metrics))
    return time.perf_counter() - started


def _quartiles(values: list[Any]) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:+.1%} to {high:+.1%}"


if __name__ == "__main__":
    main()
