"""One process of a multi-process run; started by `launch_local`, not by people.

python -m jaxscale.runtime.worker JOB_FILE COORDINATOR INDEX
"""

import json
import pickle
import sys
from pathlib import Path

import jax

from jaxscale.runtime.launch_local import Job


def run_worker(job_file: Path, coordinator: str, index: int) -> None:
    """Join the other processes and run the job's steps; process 0 writes the metrics next to the job file."""
    job: Job = pickle.loads(job_file.read_bytes())
    jax.config.update("jax_num_cpu_devices", job.devices_per_process)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator_address=coordinator,
        num_processes=job.processes,
        process_id=index,
        initialization_timeout=120,
    )
    _train(job, job_file.parent / "metrics.jsonl" if index == 0 else None)
    jax.distributed.shutdown()


def _train(job: Job, metrics_file: Path | None) -> None:
    # These initialise the backend's types, so they come after the process has joined.
    from jaxscale.runtime.checkpoint import open_checkpoints
    from jaxscale.runtime.data import SyntheticTokens, load_batch
    from jaxscale.runtime.step import build_step

    train = build_step(job.shape, job.workload, job.layout, jax.devices())
    source = SyntheticTokens(seq_len=job.workload.seq_len, vocab_size=job.shape.vocab_size)
    checkpoints = open_checkpoints(job.checkpoint_dir) if job.checkpoint_dir else None
    state = checkpoints.restore(train) if checkpoints and checkpoints.steps else train.init()
    first = int(state.step)
    for step in range(first, first + job.steps):
        state, metrics = train.step(state, load_batch(source, step, job.workload, train.batch_sharding))
        if metrics_file:
            with metrics_file.open("a") as file:
                file.write(json.dumps({"step": step} | {name: float(x) for name, x in metrics.items()}) + "\n")
        if checkpoints:
            checkpoints.save(train, state)
    if checkpoints:
        with checkpoints:
            pass


if __name__ == "__main__":
    run_worker(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
