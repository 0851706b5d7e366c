"""A run that is killed while it writes a checkpoint leaves the last complete one, every bit of it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxscale.runtime.checkpoint import open_checkpoints
from tests.runtime.checkpoint_run import LAYOUT, build, digest

ROOT = Path(__file__).parents[2]
OTHER_LAYOUT = "pipeline=2,data=2"
SAVES_BEFORE_KILL = 3
LATEST_KILL_S = 0.6  # after a save began; one takes about half of that


def _run_and_kill(directory: Path, delay_s: float) -> dict[int, str]:
    """Let a run save a few times and kill it `delay_s` into the next; returns the digest of every step it reached."""
    command = [sys.executable, "-m", "tests.runtime.checkpoint_run", str(directory), LAYOUT]
    said: list[dict] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        while len(said) <= SAVES_BEFORE_KILL:
            line = child.stdout.readline()
            assert line, f"the run ended by itself, with code {child.wait()}"
            said.append(json.loads(line))
        time.sleep(delay_s)  # the moment is what varies, not something that is waited for
        child.send_signal(signal.SIGKILL)
        said += [json.loads(line) for line in child.stdout.read().splitlines() if line.endswith("}")]
    return {line["step"]: line["digest"] for line in said}


def _check(directory: Path, layout: str, known: dict[int, str]) -> int:
    """Restore the last complete checkpoint and compare it with what the run held; returns its step."""
    train = build(layout)
    with open_checkpoints(directory) as checkpoints:
        state = checkpoints.restore(train)
    step = int(state.step)
    assert digest(layout, state) == known[step], f"step {step} differs"
    return step


def _torture(directory: Path, kills: int, seed: int) -> tuple[int, list[int]]:
    """Kill a run `kills` times, each going on where the last one's checkpoint is; (unfinished writes, steps found)."""
    rng, known, unfinished, found = np.random.default_rng(seed), {}, 0, []
    for kill in range(kills):
        known |= _run_and_kill(directory, rng.uniform(0, LATEST_KILL_S))
        unfinished += any("tmp" in path.name for path in directory.iterdir())
        found.append(_check(directory, (LAYOUT, OTHER_LAYOUT)[kill % 2], known))
    return unfinished, found


@pytest.mark.slow
def test_the_last_complete_checkpoint_survives_every_kill(tmp_path):
    unfinished, steps = _torture(tmp_path / "run", kills=20, seed=0)
    assert steps == sorted(steps)
    assert steps[-1] > 20 * (SAVES_BEFORE_KILL - 1)
    assert unfinished >= 5  # kills that met a write half done


def test_a_kill_leaves_a_complete_checkpoint(tmp_path):
    _, (step,) = _torture(tmp_path / "run", kills=1, seed=1)
    assert step >= SAVES_BEFORE_KILL - 1
