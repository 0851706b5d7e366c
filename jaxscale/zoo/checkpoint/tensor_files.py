"""Reading and writing folders of `safetensors` files, one file or many with an index."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxscale.errors import SpecError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class TensorReader:
    """The tensors of a folder by name, read when asked for."""

    files: dict[str, Any]  # tensor name -> open file

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator["TensorReader"]:
        """Open every file of a folder."""
        with ExitStack() as stack:
            files: dict[str, Any] = {}
            for path in _paths(folder):
                try:
                    handle = stack.enter_context(safe_open(path, framework="numpy"))
                except (SafetensorError, OSError) as error:
                    raise SpecError(f"{path}: cannot be read as safetensors: {error}") from error
                files |= dict.fromkeys(handle.keys(), handle)
            yield cls(files)

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self.files)

    def read(self, name: str) -> np.ndarray:
        """One tensor; bfloat16 stays bfloat16."""
        try:
            return self.files[name].get_tensor(name)
        except AttributeError as error:  # the library names a dtype that numpy lacks
            raise SpecError(
                f"tensor {name!r} is stored in an 8-bit format; convert the checkpoint to bfloat16"
            ) from error


def _paths(folder: Path) -> list[Path]:
    """The files of a checkpoint: those its index names, else its single file."""
    index = folder / INDEX
    if index.exists():
        named = json.loads(index.read_text())["weight_map"].values()
        paths = [folder / name for name in sorted(set(named))]
    else:
        paths = [folder / SINGLE]
    for path in paths:
        if not path.exists():
            raise SpecError(f"{path} is missing; a checkpoint is {SINGLE}, or {INDEX} and the files it names")
    return paths


def write_tensors(folder: Path, tensors: Iterable[tuple[str, np.ndarray]], *, max_shard_bytes: int) -> None:
    """Write tensors in order, starting a new file before one would pass `max_shard_bytes`; an index if there are many.

    Files are numbered while they are written and get their final names, which say how many there are, at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shard: dict[str, np.ndarray] = {}
    shards: list[list[str]] = []
    total_bytes = shard_bytes = 0

    def flush() -> None:
        save_file(shard, folder / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, array in tensors:
        if shard and shard_bytes + array.nbytes > max_shard_bytes:
            flush()
            shard_bytes = 0
        shard[name] = np.ascontiguousarray(array)
        shard_bytes += array.nbytes
        total_bytes += array.nbytes
    flush()
    _name_shards(folder, shards, total_bytes)


def _name_shards(folder: Path, shards: list[list[str]], total_bytes: int) -> None:
    if len(shards) == 1:
        (folder / "part-0.safetensors").replace(folder / SINGLE)
        return
    weight_map = {}
    for i, names in enumerate(shards):
        final = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part-{i}.safetensors").replace(folder / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))
