"""Run the twin of a layout on emulated devices and on one, and compare what both compute.

The devices are emulated in a child process of its own: how many there are is fixed when JAX starts.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jaxscale.errors import MeasurementError
from jaxscale.measure.shrink import Twin
from jaxscale.types import Collective, Layout
from jaxscale.types.codec import decode, encode

STEPS = 3
LOSS_TOLERANCE = 1e-5  # relative, float32
SMALL_LEAF = 1e-3  # of the largest gradient of all: leaves below are held against this, for float32 rounds to 1e-7
GRADIENT_TOLERANCE = 1e-4  # of a leaf's largest gradient; sums over devices are taken in another order than on one
DEFAULT_TIMEOUT_S = 600.0
# XLA's CPU compiler moves gathers out of the loop over microbatches, which the TPU's does not: it would hide them.
XLA_FLAGS = "--xla_disable_hlo_passes=while-loop-invariant-code-motion,while-loop-expensive-invariant-code-motion"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinResult:
    """Losses of three optimizer steps, sharded and on one device, and the collectives of the compiled program."""

    twin: Twin
    losses: tuple[float, ...]
    single_losses: tuple[float, ...]
    gradient_error: float  # the worst leaf's largest difference, of that leaf's largest gradient (see SMALL_LEAF)
    collectives: tuple[Collective, ...]  # of one device and step, as compiled
    seconds: float

    @property
    def loss_error(self) -> float:
        """The largest relative difference of a step's loss."""
        return max(abs(a - b) / abs(b) for a, b in zip(self.losses, self.single_losses, strict=True))

    @property
    def agrees(self) -> bool:
        """Whether losses and gradients are the same within the stated tolerances."""
        return self.loss_error <= LOSS_TOLERANCE and self.gradient_error <= GRADIENT_TOLERANCE


def run_twin(twin: Twin, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> TwinResult:
    """Run a twin in a child process; raises MeasurementError where it dies or takes longer than `timeout_s`."""
    with tempfile.TemporaryDirectory(prefix="jaxscale-twin-") as folder:
        result = Path(folder) / "result.json"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": XLA_FLAGS}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "jaxscale.measure.child", str(result)],
                input=json.dumps(encode(twin)),
                text=True,
                capture_output=True,
                env=environment,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"twin of {twin.shape.name}: no result within {timeout_s:.0f} s") from None
        if done.returncode or not result.exists():
            words = " | ".join(line for line in done.stderr.splitlines() if line.strip()[:1])[-600:]
            raise MeasurementError(f"twin of {twin.shape.name} as {twin.layout}: it died: {words}")
        return decode(TwinResult, json.loads(result.read_text()))


def single_device(twin: Twin) -> Layout:
    """The layout of the reference: one device, the whole batch at once."""
    return Layout(microbatch_size=twin.workload.global_batch_size)
