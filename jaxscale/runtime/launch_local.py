"""Run one training job as several processes on this machine, under `jax.distributed` with CPU collectives (gloo).

    python -m jaxscale.runtime.launch_local --processes 2 --layout fsdp=2,tensor=2 --steps 3

The model is a tiny one and its tokens are synthetic: what this shows is that several processes compute what one does.
The parent watches its children. When one ends badly it stops the others and says which it was; nothing waits for a
collective that the dead process will never join.
"""

import argparse
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jaxscale.errors import JaxscaleError, LayoutError
from jaxscale.types import Layout, ModelShape, Workload, parse_layout, precision_named

_POLL_S = 0.2
_GRACE_S = 5.0  # between asking a process to end and killing it

TINY = ModelShape(
    name="tiny", num_layers=2, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8, d_ff=64, vocab_size=64
)


class ProcessError(JaxscaleError):
    """A process of a multi-process run that ended before its work was done."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every process runs."""

    shape: ModelShape
    workload: Workload
    layout: Layout
    steps: int
    processes: int
    checkpoint_dir: str = ""  # save every step there; empty = do not

    @property
    def devices_per_process(self) -> int:
        """Emulated devices of one process."""
        return self.layout.num_devices // self.processes


def launch(job: Job, *, timeout_s: float = 600.0) -> list[dict[str, float]]:
    """Run a job as `job.processes` processes; returns the metrics of every step."""
    if job.layout.num_devices % job.processes:
        raise LayoutError(
            f"launch: processes={job.processes} does not divide the {job.layout.num_devices} devices of {job.layout}"
        )
    with tempfile.TemporaryDirectory(prefix="jaxscale-") as folder:
        path = Path(folder) / "job.pickle"
        path.write_bytes(pickle.dumps(job))
        with _children(job, path) as children:
            _wait(children, Path(folder), timeout_s)
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@contextmanager
def _children(job: Job, path: Path) -> Iterator[list[subprocess.Popen]]:
    """Start the processes, and leave none behind."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    address = f"127.0.0.1:{_free_port()}"
    children = []
    try:
        for index in range(job.processes):
            log = (path.parent / f"{index}.log").open("w")
            command = [sys.executable, "-m", "jaxscale.runtime.worker", str(path), address, str(index)]
            children.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment))
            log.close()
        yield children
    finally:
        _stop(children)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(children: Sequence[subprocess.Popen], folder: Path, timeout_s: float) -> None:
    """Return when all have ended well; raise as soon as one has not."""
    deadline = time.monotonic() + timeout_s
    while True:
        codes = [child.poll() for child in children]
        # A process ended by a signal comes first: the others may have failed because it was gone.
        failed = sorted((code, index) for index, code in enumerate(codes) if code)
        if failed:
            raise ProcessError(_what_happened(failed[0][1], failed[0][0], len(children), folder))
        if all(code == 0 for code in codes):
            return
        if time.monotonic() > deadline:
            raise ProcessError(f"launch: {len(children)} processes were not done after {timeout_s:.0f} s; all stopped")
        time.sleep(_POLL_S)


def _what_happened(index: int, code: int, count: int, folder: Path) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    tail = (folder / f"{index}.log").read_text(errors="replace").strip().splitlines()[-1:]
    said = f" Its last words: {tail[0]}" if tail else ""
    return f"launch: process {index} of {count} {how}; the other {count - 1} were stopped.{said}"


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, launch, print one line a step."""
    parser = argparse.ArgumentParser(prog="python -m jaxscale.runtime.launch_local", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--layout", default="fsdp=2", help="its devices are shared out evenly over the processes")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seq-len", type=int, default=32)
    parser.add_argument("--global-batch-size", type=int, default=8)
    parser.add_argument("--checkpoint-dir", default="")
    options = parser.parse_args(arguments)
    try:
        job = Job(
            shape=TINY,
            workload=Workload(
                seq_len=options.seq_len,
                global_batch_size=options.global_batch_size,
                precision=precision_named("fp32"),
            ),
            layout=parse_layout(options.layout),
            steps=options.steps,
            processes=options.processes,
            checkpoint_dir=options.checkpoint_dir,
        )
        for metrics in launch(job):
            print(json.dumps(metrics))
    except JaxscaleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
