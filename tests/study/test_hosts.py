"""Which host this is, and two processes that measure one mesh together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxscale.errors import MeasurementError
from jaxscale.measure.hosts import Host, this_host
from jaxscale.study import Store

SHAPE = (
    "{name: tiny, num_layers: 1, d_model: 32, num_heads: 2, num_kv_heads: 2, head_dim: 16, d_ff: 64, vocab_size: 128}"
)


def variables(count: str, index: str | None, coordinator: str) -> dict[str, str]:
    found = {"JAX_NUM_PROCESSES": count, "JAX_COORDINATOR_ADDRESS": coordinator}
    return found if index is None else found | {"JAX_PROCESS_ID": index}


def test_a_host_knows_its_place() -> None:
    assert this_host({}) == Host(index=0, count=1)
    assert this_host({"JAX_COORDINATOR_ADDRESS": "h:1"}).leads
    assert this_host(variables("4", "3", "h:8482")) == Host(index=3, count=4, coordinator="h:8482")
    assert not this_host(variables("4", "3", "[::1]:8482")).leads


@pytest.mark.parametrize(
    ("count", "index", "coordinator", "message"),
    [
        ("two", "0", "h:1", "JAX_NUM_PROCESSES='two' must be a whole number"),
        ("0", "0", "h:1", "JAX_NUM_PROCESSES='0' must be a whole number"),
        ("2", "2", "h:1", "JAX_PROCESS_ID='2' must be a number from 0 to JAX_NUM_PROCESSES - 1 = 1"),
        ("2", None, "h:1", "JAX_PROCESS_ID=None must be a number from 0"),
        ("2", "1", "h", "JAX_COORDINATOR_ADDRESS='h' must be host:port of process 0"),
    ],
)
def test_variables_that_contradict_each_other(count: str, index: str | None, coordinator: str, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        this_host(variables(count, index, coordinator))


@pytest.mark.slow
def test_two_processes_sweep_one_mesh_together(tmp_path: Path, free_port: int) -> None:
    (tmp_path / "sweep.yaml").write_text(
        f'models: [{SHAPE}]\nclusters: ["cpu:4"]\nworkloads: {{seq_len: 32, global_batch_size: 8, precision: fp32}}\n'
        'layouts: ["fsdp=*", "fsdp=2,tensor=2"]\nmeasure: {steps: 2, warmup: 1, timeout: 5 min}\n'
    )
    command = [sys.executable, "-m", "jaxscale", "sweep", str(tmp_path / "sweep.yaml"), "--quiet", "--json"]
    processes = [
        subprocess.Popen(
            command, env=os.environ | variables("2", str(index), f"127.0.0.1:{free_port}"), stdout=subprocess.PIPE
        )
        for index in (0, 1)
    ]
    leader, follower = (process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert follower == b""
    assert json.loads(leader)["outcomes"] == {"ok": 2}
    assert [m.num_devices for m in Store(str(tmp_path / "sweep.db")).measurements()] == [4, 4]
