"""The TPU kernels through the real TPU compiler, without a TPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.tpu_backend
def test_layers_compile_with_their_kernels_and_save_attention():
    """Two kinds of sparse layer in one scan. Saving "attention" keeps splash's forward at one a layer."""
    pytest.importorskip("libtpu")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    program = [sys.executable, str(Path(__file__).with_name("tpu_program.py")), "flash"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    calls = json.loads(done.stdout.splitlines()[-1])
    assert calls == {
        "splash_mha_fwd_residuals": 2,
        "splash_mha_dq_no_residuals": 2,
        "splash_mha_dkv_no_residuals": 2,
        "gmm": 18,  # gate, up and down: forward, recomputed, and the backward pass of their rows
        "tgmm": 6,  # the gradients of their weights
    }
