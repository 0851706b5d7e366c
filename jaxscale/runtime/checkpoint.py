"""Checkpoints: saved under one layout, restored under any other of the same model and optimizer, bit for bit.

A checkpoint holds the canonical form of the state, written by orbax in the background, each process its own shards,
and is renamed into place when complete: a run killed at any moment leaves the last complete one. Beside it lies what
the state is of, so that a checkpoint of another model is refused before its arrays are read.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from jaxscale.errors import JaxscaleError
from jaxscale.runtime.canonical import convert_state, fit_sharding
from jaxscale.runtime.optimizer import make_optimizer
from jaxscale.runtime.program.program import make_program
from jaxscale.runtime.state import TrainState, state_specs, working_copy
from jaxscale.runtime.step import TrainStep, map_shards
from jaxscale.types._check import as_dict

_FORMAT = 1
_STATE, _IDENTITY = "state", "identity"


class CheckpointError(JaxscaleError):
    """A checkpoint that is missing, damaged, or of something else."""


@dataclass(frozen=True, slots=True)
class Checkpointer:
    """Checkpoints of one run, in one directory. Use as a context manager, which waits for the last write."""

    directory: Path
    manager: ocp.CheckpointManager

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.wait_until_finished()
        self.manager.close()

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of which there is a complete checkpoint, ascending."""
        return tuple(sorted(self.manager.all_steps()))

    def save(self, train: TrainStep, state: TrainState) -> None:
        """Start to write the state; returns as soon as it is copied off the devices' donated buffers."""
        canonical = _canonical(train, state)
        self.manager.save(
            int(state.step),
            args=ocp.args.Composite(
                **{_STATE: ocp.args.StandardSave(canonical), _IDENTITY: ocp.args.JsonSave(_identity(train))}
            ),
        )

    def restore(self, train: TrainStep, *, step: int | None = None) -> TrainState:
        """The state of a step (the latest by default), sharded as `train`'s layout needs it."""
        if not self.steps:
            raise CheckpointError(f"checkpoint: {self.directory} holds no complete checkpoint")
        chosen = self.steps[-1] if step is None else step
        if chosen not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise CheckpointError(f"checkpoint: step={chosen} is not in {self.directory}; there are {known}")
        self._check_identity(train, chosen)
        target = _canonical_structs(train)
        try:
            found = self.manager.restore(chosen, args=ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(target)}))
        except Exception as error:  # orbax and tensorstore raise many types for a damaged file
            raise CheckpointError(
                f"checkpoint: step {chosen} in {self.directory} is damaged or incomplete "
                f"({type(error).__name__}: {str(error).splitlines()[0][:200]}); restore an earlier step"
            ) from error
        return _from_canonical(train, found[_STATE])

    def _check_identity(self, train: TrainStep, step: int) -> None:
        try:
            found = self.manager.restore(step, args=ocp.args.Composite(**{_IDENTITY: ocp.args.JsonRestore()}))
            held = found[_IDENTITY]
        except Exception as error:
            raise CheckpointError(f"checkpoint: step {step} in {self.directory} was not written by jaxscale") from error
        wanted = _identity(train)
        for field in wanted:
            if held.get(field) != wanted[field]:
                raise CheckpointError(
                    f"checkpoint: step {step} in {self.directory} is of another run: {_difference(field, held, wanted)}"
                )


def open_checkpoints(directory: str | Path, *, keep: int = 3) -> Checkpointer:
    """Open or create a directory of checkpoints, of which the last `keep` are kept."""
    path = Path(directory).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return Checkpointer(path, ocp.CheckpointManager(path, options=options))


def _identity(train: TrainStep) -> dict[str, Any]:
    """What a state is of. As JSON reads it back: tuples are lists."""
    workload = train.program.workload
    fields = {
        "format": _FORMAT,
        "shape": as_dict(train.program.shape),
        "optimizer": workload.optimizer.name,
        "master_bytes": workload.precision.master_bytes,
    }
    return json.loads(json.dumps(fields))


def _difference(field: str, held: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first thing in which two identities differ, in words."""
    old, new = held.get(field), wanted[field]
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        return f"{field}.{key} is {old.get(key)!r}, this run has {new.get(key)!r}"
    return f"{field} is {old!r}, this run has {new!r}"


def _saved(state: TrainState) -> dict[str, Any]:
    """The part of the state from which all of it follows."""
    return {"step": state.step, "params": state.master, "optimizer": state.optimizer}


def _canonical_structs(train: TrainStep) -> dict[str, Any]:
    """The canonical state as `ShapeDtypeStruct`s, sharded over the layout's mesh but for its stages."""
    stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _saved(train.abstract_state()))
    shapes = jax.eval_shape(functools.partial(convert_state, train.program, to=True), stacked)
    program = train.program
    unstaged = make_program(
        program.shape,
        program.workload,
        dataclasses.replace(program.layout, pipeline=1, virtual_stages=1),
        options=program.options,
        execution=program.execution,
    )
    specs = _saved(state_specs(unstaged, make_optimizer(unstaged)))

    def struct(shape: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=fit_sharding(shape.shape, train.mesh, spec))

    return jax.tree.map(struct, shapes, specs)


def _canonical(train: TrainStep, state: TrainState) -> dict[str, Any]:
    """The state in canonical form, as new arrays."""
    on_device = jax.tree.map(lambda x: jax.device_put(x, x.sharding.with_memory_kind("device")), _saved(state))
    shardings = jax.tree.map(lambda struct: struct.sharding, _canonical_structs(train))
    return jax.jit(functools.partial(convert_state, train.program, to=True), out_shardings=shardings)(on_device)


def _from_canonical(train: TrainStep, saved: dict[str, Any]) -> TrainState:
    """The state of a layout; its working copy of the weights follows from the master copy."""
    stacked = jax.tree.map(lambda spec: NamedSharding(train.mesh, spec), _saved(train.specs))
    convert = functools.partial(convert_state, train.program, to=False)
    held = jax.jit(convert, out_shardings=stacked)(saved)
    working = jax.jit(
        map_shards(
            functools.partial(working_copy, train.program), train.mesh, (train.specs.master,), train.specs.working
        )
    )(held["params"])
    state = TrainState(step=held["step"], master=held["params"], working=working, optimizer=held["optimizer"])
    return jax.tree.map(jax.device_put, state, train.shardings)
