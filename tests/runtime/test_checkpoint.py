"""Checkpoints: any layout restores what any other saved, bit for bit; what is damaged or foreign is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxscale.runtime import build_step
from jaxscale.runtime.checkpoint import CheckpointError, open_checkpoints
from jaxscale.types import Layout, parse_layout
from tests.runtime.parity import SHAPES, Case, initial, make_batch

CASE = Case(shape="gqa", layout="")


def _train(layout: str, *, shape=SHAPES["gqa"], optimizer="adamw"):
    workload = dataclasses.replace(CASE, optimizer=optimizer).workload
    parsed = parse_layout(layout) if layout else Layout()
    return build_step(shape, workload, parsed, jax.devices()[: parsed.num_devices])


def _advance(train, state):
    batch = jax.device_put(make_batch(CASE.workload, 61, packed=False), train.batch_sharding)
    return train.step(state, batch)


def _canonical(train, state, tmp_path, name):
    """The state as a second checkpoint under the plainest layout reads it."""
    with open_checkpoints(tmp_path / name) as checkpoints:
        checkpoints.save(train, state)
    with open_checkpoints(tmp_path / name) as checkpoints:
        plain = checkpoints.restore(_train(""))
    return jax.tree.map(np.asarray, {"params": plain.master, "optimizer": plain.optimizer})


@pytest.mark.parametrize(
    ("saved", "restored"),
    [
        ("fsdp=4,tensor=2,zero=1", "pipeline=3,fsdp=2,offload_optimizer=true"),
        ("pipeline=2,schedule=interleaved,virtual_stages=2", "data=2,context=2,zero=2"),
    ],
)
def test_another_layout_restores_the_same_bits(tmp_path, saved, restored):
    first, second = _train(saved), _train(restored)
    state, _ = _advance(first, first.init(initial(SHAPES["gqa"])))
    with open_checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(first, state)
    with open_checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps == (1,)
        moved = checkpoints.restore(second)
    assert int(moved.step) == 1
    jax.tree.map(
        np.testing.assert_array_equal,
        _canonical(second, moved, tmp_path, "second"),
        _canonical(first, state, tmp_path, "first"),
    )
    assert jax.tree.map(lambda x: x.sharding, moved) == second.shardings
    _, metrics = _advance(second, moved)
    assert np.isfinite(float(metrics["loss"]))


def test_factored_state_moves_too(tmp_path):
    first, second = _train("fsdp=2,tensor=2", optimizer="adafactor"), _train("pipeline=2", optimizer="adafactor")
    state, _ = _advance(first, first.init(initial(SHAPES["gqa"])))
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(first, state)
    with open_checkpoints(tmp_path) as checkpoints:
        _, continued = _advance(second, checkpoints.restore(second))
    _, uninterrupted = _advance(first, state)
    np.testing.assert_allclose(float(continued["loss"]), float(uninterrupted["loss"]), rtol=1e-5)


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    train = _train("fsdp=2")
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
            checkpoints.restore(train)
        checkpoints.save(train, train.init())
    wider = dataclasses.replace(SHAPES["gqa"], d_ff=128)
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=r"shape\.d_ff is 64, this run has 128"):
            checkpoints.restore(_train("fsdp=2", shape=wider))
        with pytest.raises(CheckpointError, match="optimizer is 'adamw', this run has 'lion'"):
            checkpoints.restore(_train("fsdp=2", optimizer="lion"))
        with pytest.raises(CheckpointError, match=r"step=7 is not in .*; there are 0"):
            checkpoints.restore(train, step=7)
    files = sorted((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)
    files[0].write_bytes(files[0].read_bytes()[: files[0].stat().st_size // 2])
    with (
        open_checkpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match=r"step 0 in .* is damaged or incomplete"),
    ):
        checkpoints.restore(train)


def test_a_write_that_did_not_finish_is_not_a_checkpoint(tmp_path):
    train = _train("fsdp=2")
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(train, train.init())
    (tmp_path / "1.orbax-checkpoint-tmp-0").mkdir()
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == (0,)
        assert int(checkpoints.restore(train).step) == 0
