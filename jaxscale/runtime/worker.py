"""One process of a training run; started by `launch_local`, not by people.

python -m jaxscale.runtime.worker JOB_FILE COORDINATOR INDEX
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax

from jaxscale.errors import JaxscaleError
from jaxscale.runtime.launch_local import Job
from jaxscale.types.codec import decode


def main(job_file: Path, coordinator: str, index: int) -> int:
    """Run the job; a mistake of the user's is left as a sentence next to the job file."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_worker(job_file, coordinator, index)
    except JaxscaleError as error:
        (job_file.parent / f"{index}.refusal").write_text(str(error))
        return error.exit_code
    return 0


def _end_with_parent() -> None:
    """Wait until the parent is gone; a collective that waits for others cannot be asked to end, so do not ask."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def run_worker(job_file: Path, coordinator: str, index: int) -> None:
    """Join the other processes and run the job's steps; process 0 writes the metrics next to the job file."""
    job: Job = decode(Job, json.loads(job_file.read_text()))
    if job.emulated:
        jax.config.update("jax_num_cpu_devices", job.devices_per_process)
    if job.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=job.processes,
            process_id=index,
            initialization_timeout=120,
        )
    _train(job, job_file.parent / "metrics.jsonl" if index == 0 else None)
    if job.processes > 1:
        jax.distributed.shutdown()


def _train(job: Job, metrics_file: Path | None) -> None:
    # These initialise the backend's types, so they come after the process has joined.
    from jaxscale.runtime.checkpoint import open_checkpoints
    from jaxscale.runtime.data import load_batch
    from jaxscale.runtime.step import build_step

    devices = jax.devices()
    if len(devices) < job.layout.num_devices:
        raise JaxscaleError(
            f"train: {job.layout} needs {job.layout.num_devices} devices, {len(devices)} are there: "
            f"{devices[0].device_kind}"
        )
    train = build_step(
        job.shape, job.workload, job.layout, devices[: job.layout.num_devices], options=job.options, seed=job.seed
    )
    source = _token_source(job)
    checkpoints = open_checkpoints(job.checkpoint_dir) if job.checkpoint_dir else None
    state = checkpoints.restore(train) if checkpoints and checkpoints.steps else train.init()
    first, noise = int(state.step), train.noise_scale()
    for step in range(first, first + job.steps):
        started = time.perf_counter()
        state, metrics = train.step(state, load_batch(source, step, job.workload, train.batch_sharding))
        told: dict[str, float | None] = {name: float(x) for name, x in metrics.items()}  # waits for the step
        told["step_time_s"] = time.perf_counter() - started
        if noise is not None:
            noise = noise.after(float(metrics["small_batch_square"]), float(metrics["big_batch_square"]))
            told["noise_scale_sequences"] = noise.sequences
        if metrics_file:
            with metrics_file.open("a") as file:
                file.write(json.dumps({"step": step} | told) + "\n")
        if checkpoints and ((step + 1) % job.checkpoint_every == 0 or step + 1 == first + job.steps):
            checkpoints.save(train, state)
    if checkpoints:
        checkpoints.close()  # not where a step has failed: to wait for the other processes could take for ever


def _token_source(job: Job) -> Any:
    from jaxscale.runtime.data import SyntheticTokens, TokenFile

    vocab_size, seq_len = job.shape.vocab_size, job.workload.seq_len
    if not job.token_file:
        return SyntheticTokens(seq_len=seq_len, vocab_size=vocab_size, seed=job.seed)
    return TokenFile(
        path=Path(job.token_file),
        seq_len=seq_len,
        vocab_size=vocab_size,
        global_batch_size=job.workload.global_batch_size,
        end_of_document=job.end_of_document,
        seed=job.seed,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
