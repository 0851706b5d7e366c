"""Hugging Face checkpoints to parameters and back, by the tables of `families`.

Arrays are numpy throughout, so that a checkpoint larger than a device converts on the host.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxscale.errors import SpecError, nearest
from jaxscale.types import ModelShape
from jaxscale.zoo.checkpoint.families import FAMILIES, Entry, Family
from jaxscale.zoo.checkpoint.layouts import load, parse_layout, store
from jaxscale.zoo.checkpoint.tensor_files import TensorReader, write_tensors
from jaxscale.zoo.decoder import Params, layer_kinds, parameter_info, segments
from jaxscale.zoo.params import LAYERS_DIM, ParamInfo

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Place:
    """A stack of layers in the parameter tree and the rows that belong to one layer."""

    segment: int
    position: int
    row: int


def family_of(shape: ModelShape) -> Family:
    """The mapping table of a model's family."""
    if shape.family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise SpecError(
            f"model {shape.name!r}: family={shape.family!r} has no checkpoint mapping; known: {known}."
            f"{nearest(shape.family, FAMILIES)}"
        )
    return FAMILIES[shape.family]


def load_checkpoint(shape: ModelShape, folder: Path | str, *, vocab_multiple: int = 1) -> Params:
    """Read a folder of `safetensors` files into parameters, numpy arrays in the files' dtype.

    The vocabulary is padded with zeros to `vocab_multiple`. Layers past the model's (multi-token prediction) are left.
    """
    with TensorReader.open(Path(folder)) as reader:
        return params_from_tensors(shape, reader.names, reader.read, vocab_multiple=vocab_multiple)


def save_checkpoint(shape: ModelShape, params: Params, folder: Path | str, *, max_shard_bytes: int = 5 * 10**9) -> None:
    """Write parameters as Hugging Face names them, sharded with an index past `max_shard_bytes`."""
    write_tensors(Path(folder), tensors_from_params(shape, params), max_shard_bytes=max_shard_bytes)


def params_from_tensors(
    shape: ModelShape, names: frozenset[str], read: Callable[[str], np.ndarray], *, vocab_multiple: int = 1
) -> Params:
    """Build parameters from stored tensors; every parameter must be there and every tensor be used."""
    family = family_of(shape)
    infos = parameter_info(shape)
    cut = _missing_prefix(family, names)
    used: set[str] = set()

    def fill(entries: tuple[Entry, ...], prefix: str, tree: Tree) -> Tree:
        flat = _flatten(tree)
        filled: Tree = {}
        for entry in _present(entries, flat):
            stored = [(prefix + name).removeprefix(cut) for name in _stored_names(entry, shape)]
            used.update(stored)
            filled |= _read_entry(shape, entry, flat, stored, names, read)
        _require_complete(shape, flat, filled)
        return _unflatten(filled)

    top = fill(family.top, "", {"embedding": infos["embedding"], "head": infos["head"]})
    layers = [
        fill(family.layer, family.prefix.format(layer=i), _layer_tree(infos, place))
        for i, place in enumerate(_places(shape))
    ]
    _require_all_used(shape, family, names, used, cut)
    # A tied head under norms without parameters holds nothing, and is a part of the tree all the same.
    return _pad_vocab({"head": {}, **top, "segments": _stack(shape, layers)}, shape, vocab_multiple)


def tensors_from_params(shape: ModelShape, params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Stored tensors of a model by Hugging Face name, one at a time; vocabulary padding is cut off."""
    family = family_of(shape)
    top = {"embedding": dict(params["embedding"]), "head": dict(params["head"])}
    top["embedding"]["table"] = top["embedding"]["table"][: shape.vocab_size]
    if "kernel" in top["head"]:
        top["head"]["kernel"] = top["head"]["kernel"][:, : shape.vocab_size]
    yield from _write_entries(shape, family.top, "", top)
    for i, place in enumerate(_places(shape)):
        stack = params["segments"][place.segment][place.position]
        tree = jax.tree.map(lambda leaf, row=place.row: np.asarray(leaf[row]), stack)
        yield from _write_entries(shape, family.layer, family.prefix.format(layer=i), tree)


def _write_entries(
    shape: ModelShape, entries: tuple[Entry, ...], prefix: str, tree: Tree
) -> Iterator[tuple[str, np.ndarray]]:
    flat = _flatten(tree)
    for entry in _present(entries, flat):
        arrays = [np.asarray(flat[path]) for path, _ in entry.ours]
        whole = np.ascontiguousarray(store(parse_layout(entry.layout), [own for _, own in entry.ours], arrays))
        if "{expert}" not in entry.name:
            yield prefix + entry.name, whole
            continue
        for name, one in zip(_stored_names(entry, shape), whole, strict=True):
            yield prefix + name, one


def _read_entry(
    shape: ModelShape,
    entry: Entry,
    flat: dict[str, ParamInfo],
    stored: list[str],
    names: frozenset[str],
    read: Callable[[str], np.ndarray],
) -> dict[str, np.ndarray]:
    missing = [name for name in stored if name not in names]
    if missing:
        raise SpecError(f"model {shape.name!r}: tensor {missing[0]!r} is missing.{nearest(missing[0], names)}")
    whole = np.stack([read(name) for name in stored]) if "{expert}" in entry.name else read(stored[0])
    paths, owns = zip(*entry.ours, strict=True)
    try:
        arrays = load(parse_layout(entry.layout), owns, [_layer_shape(flat[path]) for path in paths], whole)
    except ValueError as error:
        raise SpecError(f"model {shape.name!r}: tensor {stored[0]!r} does not fit: {error}") from error
    return dict(zip(paths, arrays, strict=True))


def _present(entries: tuple[Entry, ...], flat: dict[str, Any]) -> list[Entry]:
    """Entries whose parameters this model, or this layer, has."""
    return [entry for entry in entries if all(path in flat for path, _ in entry.ours)]


def _layer_shape(info: ParamInfo) -> tuple[int, ...]:
    return info.shape[1:] if info.dims[0] == LAYERS_DIM else info.shape


def _stored_names(entry: Entry, shape: ModelShape) -> list[str]:
    if "{expert}" not in entry.name:
        return [entry.name]
    assert shape.moe is not None, "expert tensors belong to mixtures of experts"
    return [entry.name.format(expert=i) for i in range(shape.moe.num_experts)]


def _places(shape: ModelShape) -> list[_Place]:
    return [
        _Place(i, j, row)
        for i, segment in enumerate(segments(layer_kinds(shape)))
        for row in range(segment.repeats)
        for j in range(len(segment.kinds))
    ]


def _layer_tree(params: Params, place: _Place) -> Tree:
    return params["segments"][place.segment][place.position]


def _stack(shape: ModelShape, layers: list[Tree]) -> tuple[tuple[Tree, ...], ...]:
    """Layers in order -> stacks by segment and kind."""
    stacks: list[tuple[Tree, ...]] = []
    first = 0
    for segment in segments(layer_kinds(shape)):
        period = len(segment.kinds)
        own = layers[first : first + segment.num_layers]
        stacks.append(tuple(jax.tree.map(lambda *rows: np.stack(rows), *own[j::period]) for j in range(period)))
        first += segment.num_layers
    return tuple(stacks)


def _pad_vocab(params: Params, shape: ModelShape, multiple: int) -> Params:
    extra = -shape.vocab_size % multiple
    if extra:
        params["embedding"]["table"] = np.pad(params["embedding"]["table"], ((0, extra), (0, 0)))
        if "kernel" in params["head"]:
            params["head"]["kernel"] = np.pad(params["head"]["kernel"], ((0, 0), (0, extra)))
    return params


def _missing_prefix(family: Family, names: frozenset[str]) -> str:
    prefix = family.optional_prefix
    return prefix if prefix and not any(name.startswith(prefix) for name in names) else ""


def _require_complete(shape: ModelShape, flat: Tree, filled: Tree) -> None:
    lacking = sorted(set(flat) - set(filled))
    if lacking:
        raise SpecError(
            f"model {shape.name!r}: family {shape.family!r} stores no tensor for {', '.join(lacking)}; "
            "check the shape's family, biases and norms"
        )


def _require_all_used(shape: ModelShape, family: Family, names: frozenset[str], used: set[str], cut: str) -> None:
    """A tensor that nothing reads means that the shape is not the checkpoint's."""
    tied = {entry.name for entry in family.top if entry.ours[0][0] == "head/kernel"} if shape.tied_embeddings else set()
    before = family.prefix.removeprefix(cut).partition("{layer}")[0]

    def expected(name: str) -> bool:
        number = name.removeprefix(before).partition(".")[0]
        past_the_end = name.startswith(before) and number.isdigit() and int(number) >= shape.num_layers
        return name in tied or name.endswith(family.ignored) or past_the_end

    unread = sorted(name for name in names - used if not expected(name))
    if unread:
        raise SpecError(
            f"model {shape.name!r}: {len(unread)} stored tensors have no parameter, such as {unread[0]!r}; "
            "check the shape's family, biases and norms"
        )


def _flatten(tree: Tree) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{path}": leaf for path, leaf in _flatten(value).items()}
        else:
            flat[key] = value
    return flat


def _unflatten(flat: dict[str, Any]) -> Tree:
    tree: Tree = {}
    for path, leaf in flat.items():
        *steps, last = path.split("/")
        node = tree
        for step in steps:
            node = node.setdefault(step, {})
        node[last] = leaf
    return tree
