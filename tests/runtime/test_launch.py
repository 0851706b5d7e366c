"""Several processes compute what one does; one that dies ends the others."""

import dataclasses
import os
import signal
import threading
from pathlib import Path

import pytest

from jaxscale.errors import LayoutError
from jaxscale.runtime.launch_local import TINY, Job, ProcessError, launch
from jaxscale.types import Workload, parse_layout, precision_named

JOB = Job(
    shape=TINY,
    workload=Workload(seq_len=32, global_batch_size=8, precision=precision_named("fp32")),
    layout=parse_layout("fsdp=2,tensor=2"),
    steps=2,
    processes=1,
)


def _workers() -> list[int]:
    """Child processes of this one that run `jaxscale.runtime.worker`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and "jaxscale.runtime.worker" in command:
            found.append(int(stat.parent.name))
    return sorted(found)


def test_processes_must_share_the_devices_evenly():
    with pytest.raises(LayoutError, match="processes=3 does not divide the 4 devices"):
        launch(dataclasses.replace(JOB, processes=3))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_agree_with_one(processes):
    alone, together = launch(JOB), launch(dataclasses.replace(JOB, processes=processes))
    assert len(alone) == len(together) == JOB.steps
    for a, b in zip(alone, together, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-6)


@pytest.mark.slow
def test_other_processes_restore_a_checkpoint(tmp_path):
    directory = str(tmp_path / "run")
    whole = launch(dataclasses.replace(JOB, steps=4))
    launch(dataclasses.replace(JOB, processes=2, checkpoint_dir=directory))
    resumed = launch(dataclasses.replace(JOB, processes=4, checkpoint_dir=directory))
    assert [m["step"] for m in resumed] == [2, 3]
    assert [m["loss"] for m in resumed] == pytest.approx([m["loss"] for m in whole[2:]], rel=1e-6)


@pytest.mark.slow
def test_a_killed_process_ends_the_others(tmp_path):
    endless = dataclasses.replace(JOB, processes=2, steps=10**6)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            launch(endless)
        except ProcessError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while len(_workers()) < 2 and thread.is_alive():
        thread.join(0.1)
    first, second = _workers()
    os.kill(second, signal.SIGKILL)
    thread.join(60)
    assert not thread.is_alive()
    assert "process 1 of 2 was ended by SIGKILL; the other 1 were stopped" in str(caught[0])
    assert first not in _workers()
