"""The step compiles for TPUs that are only described, in a child process: no device, no memory, state donated."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.tpu_backend, pytest.mark.slow]

_CHILD = """
import json, sys
from jax.experimental import topologies
from jaxscale.runtime import build_step
from jaxscale.types import ModelShape, Workload, parse_layout
shape = ModelShape(name="small", num_layers=4, d_model=256, num_heads=4, num_kv_heads=4, head_dim=64, d_ff=512,
                   vocab_size=1024)
devices = topologies.get_topology_desc(topology_name="v5p:2x2x1", platform="tpu").devices
train = build_step(shape, Workload(seq_len=512, global_batch_size=8), parse_layout(sys.argv[1]), devices)
memory = train.lower().compile().memory_analysis()
fields = ("argument_size_in_bytes", "alias_size_in_bytes", "output_size_in_bytes", "host_argument_size_in_bytes")
print(json.dumps({name: getattr(memory, name) for name in fields} | {"attention": train.program.execution.attention}))
"""
_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


def _compile(layout: str) -> dict:
    pytest.importorskip("libtpu")
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, layout],
        capture_output=True,
        text=True,
        env=os.environ | _ENVIRONMENT,
        check=False,
        timeout=900,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout.splitlines()[-1])


@pytest.mark.parametrize("layout", ["fsdp=4", "fsdp=2,pipeline=2", "tensor=2,sp=true,context=2"])
def test_state_is_donated_and_kernels_are_the_platforms(layout):
    found = _compile(layout)
    assert found["attention"] == "splash"
    # Every output but a few scalars lies in an argument's place.
    assert found["output_size_in_bytes"] - found["alias_size_in_bytes"] < 10_000
    assert found["alias_size_in_bytes"] > 0.9 * found["argument_size_in_bytes"]


def test_offloaded_state_takes_no_device_memory():
    held, offloaded = _compile("fsdp=4"), _compile("fsdp=4,offload_optimizer=true")
    assert offloaded["host_argument_size_in_bytes"] > 0
    assert offloaded["argument_size_in_bytes"] < 0.5 * held["argument_size_in_bytes"]
