"""The comparison with PyTorch runs from end to end in tiny sizes."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_comparison_runs_on_a_cpu(tmp_path):
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        pytest.skip("needs torch and transformers")
    command = [sys.executable, str(ROOT / "experiments/gpu_step/run.py"), "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads((tmp_path / "results.json").read_text())["outcomes"]
    assert {(o["case"], o["side"], o["status"]) for o in outcomes} == {
        (f"{model} at 64", side, "ok") for model in ("tiny-dense", "tiny-moe") for side in ("jaxscale", "torch")
    }
    for o in outcomes:  # both start at the loss of a guess among 512 tokens
        assert o["first_loss"] == pytest.approx(6.24, abs=0.6)
        assert o["mfu"] > 0
    rows = (tmp_path / "results.md").read_text().splitlines()
    assert len(rows) == 2 + 2 * 2
    assert all("| remat " in row for row in rows[2:])
