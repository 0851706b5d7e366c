"""Checkpoints: saved under one layout, restored under any other of the same model and optimizer, bit for bit.

A checkpoint holds the canonical form of the state, written by orbax in the background, each process its own shards,
and is renamed into place when complete: a run killed at any moment leaves the last complete one. Beside it lies what
the state is of, so that a checkpoint of another model is refused before its arrays are read, and a checksum of every
array, so that one which changed on disk is refused after: the stored arrays have none of their own.
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
from jaxscale.runtime.canonical import checksums, convert_state, fit_sharding
from jaxscale.runtime.optimizer import make_optimizer
from jaxscale.runtime.program.program import make_program
from jaxscale.runtime.state import TrainState, state_specs
from jaxscale.runtime.step import TrainStep
from jaxscale.types._check import as_dict

_FORMAT = 2
_STATE, _IDENTITY = "state", "identity"
_CHECKSUMS = "checksums"


class CheckpointError(JaxscaleError):
    """A checkpoint that is missing, damaged, or of something else."""


@dataclass(frozen=True, slots=True)
class Checkpointer:
    """Checkpoints of one run, in one directory. Use as a context manager, which waits for the last write."""

    directory: Path
    manager: ocp.CheckpointManager
    converters: dict[int, "_Converter"]  # by id of the step, which the converter keeps alive

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the last write, in every process."""
        self.manager.wait_until_finished()
        self.manager.close()

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of which there is a complete checkpoint, ascending."""
        return tuple(sorted(self.manager.all_steps()))

    def save(self, train: TrainStep, state: TrainState) -> None:
        """Start to write the state; returns as soon as it is copied off the devices' donated buffers."""
        canonical, sums = self._converter(train).to_canonical(state)
        identity = _identity(train) | {_CHECKSUMS: sums}
        self.manager.save(
            int(state.step),
            args=ocp.args.Composite(
                **{_STATE: ocp.args.StandardSave(canonical), _IDENTITY: ocp.args.JsonSave(identity)}
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
        identity = self._read_identity(chosen)
        self._check_identity(train, chosen, identity)
        converter = self._converter(train)
        wanted = ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(converter.structs)})
        try:
            found = self.manager.restore(chosen, args=wanted)[_STATE]
        except Exception as error:  # orbax and tensorstore raise many types for a damaged file
            raise self._damaged(chosen, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from error
        changed = [name for name, sum_ in converter.sums(found).items() if sum_ != identity[_CHECKSUMS].get(name)]
        if changed:
            raise self._damaged(chosen, f"{len(changed)} arrays are not what was written, such as {changed[0]}")
        return converter.from_canonical(found)

    def _converter(self, train: TrainStep) -> "_Converter":
        if id(train) not in self.converters:
            self.converters[id(train)] = _Converter.of(train)
        return self.converters[id(train)]

    def _damaged(self, step: int, what: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint: step {step} in {self.directory} is damaged or incomplete ({what}); restore an earlier step"
        )

    def _read_identity(self, step: int) -> dict[str, Any]:
        try:
            found = self.manager.restore(step, args=ocp.args.Composite(**{_IDENTITY: ocp.args.JsonRestore()}))
            return dict(found[_IDENTITY])
        except Exception as error:
            raise CheckpointError(f"checkpoint: step {step} in {self.directory} was not written by jaxscale") from error

    def _check_identity(self, train: TrainStep, step: int, held: dict[str, Any]) -> None:
        wanted = _identity(train)
        for field in wanted:
            if held.get(field) != wanted[field]:
                raise CheckpointError(
                    f"checkpoint: step {step} in {self.directory} is of another run: {_difference(field, held, wanted)}"
                )
        if not isinstance(held.get(_CHECKSUMS), dict):
            raise self._damaged(step, "its checksums are missing")


def open_checkpoints(directory: str | Path, *, keep: int = 3) -> Checkpointer:
    """Open or create a directory of checkpoints, of which the last `keep` are kept.

    A directory whose numbered folders nobody here wrote is refused: older ones would be deleted as new ones come.
    """
    path = Path(directory).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"checkpoint: {path} is no directory and cannot become one: {error.strerror}") from error
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    manager = ocp.CheckpointManager(path, options=options)
    numbers = sorted(manager.all_steps())
    if numbers and not any((path / str(number) / _IDENTITY).is_dir() for number in numbers):
        manager.close()
        raise CheckpointError(
            f"checkpoint: {path} holds steps that were not written by jaxscale, such as {numbers[0]}; "
            "name a directory of its own"
        )
    return Checkpointer(path, manager, {})


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
    """The state, by the names under which a checkpoint holds it."""
    return {"step": state.step, "params": state.master, "optimizer": state.optimizer}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Converter:
    """A layout's state to the canonical form and back, each compiled once."""

    train: TrainStep
    structs: dict[str, Any]  # of the canonical state, with shardings
    pack: Any
    unpack: Any
    sum_up: Any

    @classmethod
    def of(cls, train: TrainStep) -> "_Converter":
        structs = _canonical_structs(train)
        return cls(
            train=train,
            structs=structs,
            pack=jax.jit(
                functools.partial(convert_state, train.program, to=True),
                out_shardings=jax.tree.map(lambda struct: struct.sharding, structs),
            ),
            unpack=jax.jit(
                functools.partial(convert_state, train.program, to=False),
                out_shardings=jax.tree.map(lambda spec: NamedSharding(train.mesh, spec), _saved(train.specs)),
            ),
            sum_up=jax.jit(checksums, out_shardings=NamedSharding(train.mesh, PartitionSpec())),
        )

    def to_canonical(self, state: TrainState) -> tuple[dict[str, Any], dict[str, int]]:
        """The state in canonical form, as new arrays, and its checksums."""
        on_device = jax.tree.map(lambda x: jax.device_put(x, x.sharding.with_memory_kind("device")), _saved(state))
        canonical = self.pack(on_device)
        return canonical, self.sums(canonical)

    def sums(self, canonical: dict[str, Any]) -> dict[str, int]:
        """Checksum of every array by its path."""
        leaves = jax.tree.leaves_with_path(self.sum_up(canonical))
        return {jax.tree_util.keystr(path, simple=True, separator="/"): int(sum_) for path, sum_ in leaves}

    def from_canonical(self, saved: dict[str, Any]) -> TrainState:
        """The state of the layout."""
        held = self.unpack(saved)
        state = TrainState(step=held["step"], master=held["params"], optimizer=held["optimizer"])
        return jax.tree.map(jax.device_put, state, self.train.shardings)


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
