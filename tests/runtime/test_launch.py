"""Several processes compute what one does; one that dies ends the others, and so does the one that started them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxscale.catalog import load_model
from jaxscale.errors import JaxscaleError, LayoutError
from jaxscale.runtime.launch_local import Job, ProcessError, launch
from jaxscale.runtime.options import TrainOptions
from jaxscale.types import ModelShape, Workload, parse_layout, precision_named
from jaxscale.types.codec import decode, encode

SHAPE = ModelShape(
    name="tiny", num_layers=2, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8, d_ff=64, vocab_size=64
)
JOB = Job(
    shape=SHAPE,
    workload=Workload(seq_len=32, global_batch_size=8, precision=precision_named("fp32")),
    layout=parse_layout("fsdp=2,tensor=2"),
    steps=2,
)
PATIENCE_S = 60.0


def _workers(parent: int) -> list[int]:
    """Processes that run `jaxscale.runtime.worker`, started by `parent`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            started_by = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if started_by == parent and "jaxscale.runtime.worker" in command:
            found.append(int(stat.parent.name))
    return sorted(found)


def _wait_for(condition) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"processes": 3}, "processes=3 does not divide the 4 devices"),
        ({"processes": 2, "emulated": False}, "real ones are driven by one process"),
    ],
)
def test_processes_that_cannot_share_the_devices_are_refused(changes, sentence):
    with pytest.raises(LayoutError, match=sentence):
        dataclasses.replace(JOB, **changes)


@pytest.mark.parametrize("model", ["deepseek-v3", "gemma3-4b", "phi3-mini", "gpt-oss-20b"])
def test_a_job_is_read_as_it_was_written(model):
    options = TrainOptions(z_loss=1e-4, warmup_steps=3, noise_scale=True)
    job = dataclasses.replace(JOB, shape=load_model(model), options=options, token_file="text.npy", end_of_document=0)
    assert decode(Job, json.loads(json.dumps(encode(job)))) == job


def test_starting_processes_needs_no_jax():
    code = "import sys, jaxscale.runtime.launch_local, jaxscale.cli.train; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_refusal_of_a_process_is_one_of_the_launch(tmp_path):
    np.save(tmp_path / "tokens.npy", np.full(1000, 64))
    with pytest.raises(
        JaxscaleError, match=r"token id 64 after place .* is not one of the model's vocab_size=64"
    ) as met:
        launch(dataclasses.replace(JOB, token_file=str(tmp_path / "tokens.npy")))
    assert not isinstance(met.value, ProcessError)
    assert met.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["fsdp=2,tensor=2", "pipeline=2,context=2", "data=2,fsdp=2,optimizer_shard=data"])
def test_processes_agree_with_one(layout):
    job = dataclasses.replace(JOB, layout=parse_layout(layout))
    alone, *together = (launch(dataclasses.replace(job, processes=count)) for count in (1, 2, 4))
    for found in together:
        assert [m["step"] for m in found] == [0, 1]
        assert [m["loss"] for m in found] == pytest.approx([m["loss"] for m in alone], rel=1e-6)


@pytest.mark.slow
def test_other_processes_and_layouts_go_on_from_a_checkpoint_in_the_middle_of_a_text(tmp_path):
    np.save(tmp_path / "tokens.npy", np.random.default_rng(0).integers(0, 64, 2000).astype(np.uint16))
    job = dataclasses.replace(JOB, token_file=str(tmp_path / "tokens.npy"), end_of_document=0)
    kept = dataclasses.replace(job, checkpoint_dir=str(tmp_path / "run"))
    whole = launch(dataclasses.replace(job, steps=4))
    launch(dataclasses.replace(kept, processes=2))
    resumed = launch(dataclasses.replace(kept, processes=4, layout=parse_layout("pipeline=2,fsdp=2,zero=1")))
    assert [m["step"] for m in resumed] == [2, 3]
    assert [m["loss"] for m in resumed] == pytest.approx([m["loss"] for m in whole[2:]], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others(victim):
    endless = dataclasses.replace(JOB, processes=2, steps=10**6)
    caught: list[BaseException] = []
    stepping = threading.Event()

    def run() -> None:
        try:
            launch(endless, on_step=lambda metrics: stepping.set())
        except ProcessError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert stepping.wait(PATIENCE_S)
    workers = _workers(os.getpid())
    os.kill(workers[victim], signal.SIGKILL)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert f"process {victim} of 2 was ended by SIGKILL; the other 1 were stopped" in str(caught[0])
    assert not set(workers) & set(_workers(os.getpid()))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_launcher_leaves_no_orphans(how, tmp_path):
    (tmp_path / "job").write_text(json.dumps(encode(dataclasses.replace(JOB, processes=2, steps=10**6))))
    code = (
        "import json, sys; from jaxscale.runtime.launch_local import Job, launch;"
        "from jaxscale.types.codec import decode;"
        "launch(decode(Job, json.load(open(sys.argv[1]))), on_step=lambda m: print('step', flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "job")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"step\n"
        workers = _workers(launcher.pid)
        assert len(workers) == 2
        launcher.send_signal(how)
        launcher.wait(PATIENCE_S)
    assert _wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
