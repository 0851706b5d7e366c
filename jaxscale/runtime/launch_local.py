"""Train on this machine, in one process or in several under `jax.distributed` with CPU collectives (gloo).

The parent watches its children. When one ends badly it stops the others and says which it was; nothing waits for a
collective that the dead process will never join. When the parent itself dies, its children notice that their standard
input has ended and end too.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jaxscale.errors import JaxscaleError, LayoutError
from jaxscale.runtime.options import TrainOptions
from jaxscale.types import Layout, ModelShape, Workload
from jaxscale.types._check import require_positive_int
from jaxscale.types.codec import encode

_POLL_S = 0.2
_GRACE_S = 5.0  # between asking a process to end and killing it
_NO_TIMEOUT_S = float("inf")
_OPTIONS = TrainOptions()

StepMetrics = dict[str, float | None]  # None: a noise scale that is not known yet


class ProcessError(JaxscaleError):
    """A process of a run that ended before its work was done."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every process runs: `steps` optimizer steps from scratch, or on from the last checkpoint."""

    shape: ModelShape
    workload: Workload
    layout: Layout
    steps: int
    processes: int = 1
    emulated: bool = True  # devices that the CPU pretends to be; else those that are there, in one process
    options: TrainOptions = _OPTIONS
    seed: int = 0
    token_file: str = ""  # `.npy`; empty = synthetic tokens
    end_of_document: int = -1  # token id that ends each document of the file; -1 = one long document
    checkpoint_dir: str = ""  # empty = no checkpoints
    checkpoint_every: int = 1  # steps; the last step is always saved

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "processes": self.processes, "checkpoint_every": self.checkpoint_every}
        require_positive_int("train", **counts)
        if self.layout.num_devices % self.processes:
            raise LayoutError(
                f"train: processes={self.processes} does not divide the {self.layout.num_devices} devices of "
                f"{self.layout}"
            )
        if self.processes > 1 and not self.emulated:
            raise LayoutError(
                f"train: processes={self.processes} are for emulated devices; real ones are driven by one process"
            )

    @property
    def devices_per_process(self) -> int:
        """Devices of one process."""
        return self.layout.num_devices // self.processes


def launch(
    job: Job, *, on_step: Callable[[StepMetrics], None] = lambda metrics: None, timeout_s: float = _NO_TIMEOUT_S
) -> list[StepMetrics]:
    """Run a job; returns the metrics of every step, and tells `on_step` each as it ends."""
    with tempfile.TemporaryDirectory(prefix="jaxscale-") as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(encode(job)))
        told: list[StepMetrics] = []

        def tell() -> None:
            for metrics in _read_metrics(Path(folder))[len(told) :]:
                told.append(metrics)
                on_step(metrics)

        with _children(job, path) as children:
            _wait(children, Path(folder), tell, timeout_s)
    return told


def _read_metrics(folder: Path) -> list[StepMetrics]:
    """Steps done so far; a line that is still being written is left for the next time."""
    file = folder / "metrics.jsonl"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def _children(job: Job, path: Path) -> Iterator[list[subprocess.Popen]]:
    """Start the processes, and leave none behind."""
    # Unfiltered, so that the last line of a log is the error itself.
    environment = os.environ | {"JAX_TRACEBACK_FILTERING": "off"} | ({"JAX_PLATFORMS": "cpu"} if job.emulated else {})
    address = f"127.0.0.1:{_free_port()}"
    children = []
    try:
        for index in range(job.processes):
            command = [sys.executable, "-m", "jaxscale.runtime.worker", str(path), address, str(index)]
            with (path.parent / f"{index}.log").open("w") as log:
                # Nothing is ever written to stdin: it ends when this process does, however that happens.
                child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
                )
            children.append(child)
        yield children
    finally:
        _stop(children)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(children: Sequence[subprocess.Popen], folder: Path, tell: Callable[[], None], timeout_s: float) -> None:
    """Return when all have ended well; raise as soon as one has not."""
    deadline = time.monotonic() + timeout_s
    while True:
        codes = [child.poll() for child in children]
        tell()
        # A process ended by a signal comes first: the others may have failed because it was gone.
        failed = sorted((code, index) for index, code in enumerate(codes) if code)
        if failed:
            raise _failure(failed[0][1], failed[0][0], len(children), folder)
        if all(code == 0 for code in codes):
            return
        if time.monotonic() > deadline:
            raise ProcessError(f"train: {len(children)} processes were not done after {timeout_s:.0f} s; all stopped")
        time.sleep(_POLL_S)


def _failure(index: int, code: int, count: int, folder: Path) -> JaxscaleError:
    refusal = folder / f"{index}.refusal"
    if refusal.exists():  # a sentence for the user, not a failure of the process
        return JaxscaleError(refusal.read_text())
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    others = f"; the other {count - 1} were stopped" if count > 1 else ""
    tail = (folder / f"{index}.log").read_text(errors="replace").strip().splitlines()[-1:]
    said = f" Its last words: {tail[0]}" if tail and code != -signal.SIGKILL else ""  # who is killed says nothing of it
    return ProcessError(f"train: process {index} of {count} {how}{others}.{said}")


def _stop(children: Sequence[subprocess.Popen]) -> None:
    running = [child for child in children if child.poll() is None]
    for child in running:
        child.terminate()
    deadline = time.monotonic() + _GRACE_S
    for child in running:
        try:
            child.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for child in children:
        if child.stdin:
            child.stdin.close()
