"""Checkpoints: any layout restores what any other saved, bit for bit; what is damaged or foreign is refused."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.runtime import build_step
from jaxscale.runtime.canonical import checksums, convert_state
from jaxscale.runtime.checkpoint import CheckpointError, open_checkpoints
from jaxscale.types import parse_layout
from tests.runtime.parity import SHAPES, Case, initial, make_batch

CASE = Case(shape="gqa", layout="", global_batch=24)


def _train(layout: str, *, shape=SHAPES["gqa"], optimizer="adamw"):
    workload = dataclasses.replace(CASE, optimizer=optimizer).workload
    parsed = parse_layout(layout)
    return build_step(shape, workload, parsed, jax.devices()[: parsed.num_devices])


def _advance(train, state):
    batch = jax.device_put(make_batch(CASE.workload, 61, packed=False), train.batch_sharding)
    return train.step(state, batch)


def _canonical(train, state):
    """Every number of a state in the form that no layout changes, on the host."""
    saved = {"params": state.master, "optimizer": state.optimizer}
    return jax.tree.map(np.asarray, convert_state(train.program, jax.device_get(saved), to=True))


MOVES = [
    ("gqa", "fsdp=4,tensor=2,zero=1", "pipeline=3,fsdp=2,offload_optimizer=true"),
    ("gqa", "pipeline=2,schedule=interleaved,virtual_stages=2", "data=2,context=2,zero=2"),
]
SLOW_MOVES = [
    ("shared", "pipeline=2,expert=2,tensor=2", "data=2,fsdp=2,optimizer_shard=data"),
    ("moe", "expert=4,tensor=2,sp=true", "pipeline=2,context=2,zero=0"),
    ("moe", "data=2,fsdp=2,expert=2,optimizer_shard=data", "tensor=4"),
    ("shared", "pipeline=3,expert=2,zero=1", "context=2,fsdp=2,tensor=2,sp=true"),
    ("tied", "pipeline=2,tensor=4,zero=3", "fsdp=8,params_shard=none,grads_shard=fsdp,optimizer_shard=fsdp"),
    ("mla", "tensor=2,fsdp=4", "context=4,context_method=all_gather,pipeline=2"),
    ("shared", "fsdp=3,tensor=2", "pipeline=2,expert=2,zero=1"),
    ("mla", "fsdp=4", "data=3,fsdp=2,optimizer_shard=data"),
]


@pytest.mark.parametrize(
    ("shape", "saved", "restored"), [*MOVES, *(pytest.param(*move, marks=pytest.mark.slow) for move in SLOW_MOVES)]
)
def test_another_layout_restores_the_same_bits(tmp_path, shape, saved, restored):
    first, second = _train(saved, shape=SHAPES[shape]), _train(restored, shape=SHAPES[shape])
    state, _ = _advance(first, first.init(initial(SHAPES[shape])))
    with open_checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(first, state)
    with open_checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps == (1,)
        moved = checkpoints.restore(second)
    assert int(moved.step) == 1
    jax.tree.map(np.testing.assert_array_equal, _canonical(second, moved), _canonical(first, state))
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


def test_checkpoints_of_other_runs_are_refused(tmp_path):
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


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_bit(path):
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 4
    path.write_bytes(found)


@pytest.mark.parametrize(
    ("damage", "kind", "sentence"),
    [
        (_cut, "largest", "step 0 in .* is damaged or incomplete"),
        (_flip_bit, "largest", "step 0 in .* is damaged .* arrays are not what was written, such as"),
        (Path.unlink, "largest", "step 0 in .* is damaged or incomplete"),
        (Path.unlink, "0/state/manifest.ocdbt", "step 0 in .* is damaged or incomplete"),
        (_cut, "0/identity/metadata", "step 0 in .* was not written by jaxscale"),
    ],
)
def test_damaged_checkpoints_are_refused(saved_once, tmp_path, damage, kind, sentence):
    train, directory = saved_once
    shutil.copytree(directory, tmp_path / "copy")
    files = sorted((tmp_path / "copy").rglob("*"), key=lambda path: -path.stat().st_size * path.is_file())
    damage(files[0] if kind == "largest" else tmp_path / "copy" / kind)
    with open_checkpoints(tmp_path / "copy") as checkpoints, pytest.raises(CheckpointError, match=sentence):
        checkpoints.restore(train)


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    train, directory = _train("fsdp=2"), tmp_path_factory.mktemp("saved") / "run"
    with open_checkpoints(directory) as checkpoints:
        checkpoints.save(train, train.init())
    return train, directory


def test_directories_of_something_else_are_refused(tmp_path):
    (tmp_path / "file").write_text("notes")
    with pytest.raises(CheckpointError, match="file is no directory and cannot become one"):
        open_checkpoints(tmp_path / "file")
    with ocp.CheckpointManager(tmp_path / "orbax") as other:
        other.save(2, args=ocp.args.StandardSave({"weights": np.ones(3)}))
    with pytest.raises(CheckpointError, match="holds steps that were not written by jaxscale, such as 2"):
        open_checkpoints(tmp_path / "orbax")


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 11), st.integers(0, 31))
def test_a_checksum_sees_every_single_bit(seed, place, bit):
    x = np.random.default_rng(seed).integers(0, 2**32, (3, 4), dtype=np.uint32)
    changed = x.copy()
    changed.flat[place] ^= np.uint32(1 << bit)
    before, after = (int(checksums({"x": jnp.asarray(y).view(jnp.float32)})["x"]) for y in (x, changed))
    assert before != after


def test_a_write_that_did_not_finish_is_not_a_checkpoint(tmp_path):
    train = _train("fsdp=2")
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(train, train.init())
    (tmp_path / "1.orbax-checkpoint-tmp-0").mkdir()
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == (0,)
        assert int(checkpoints.restore(train).step) == 0
