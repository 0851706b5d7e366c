"""Strict YAML: duplicate keys, unknown keys, bare numbers for quantities and values of the wrong type are errors.

PyYAML reads `1e12` as a string, `no` as False and the last of two equal keys; each of these has cost somebody a run.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from jaxscale.errors import CatalogError, SpecError, nearest
from jaxscale.units import parse_quantity

T = TypeVar("T")

MAX_FILE_BYTES = 8 * 2**20
_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_BaseLoader):
    """The safe loader, which refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value == "<<":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "keys must be plain words", key_node.start_mark)
            if key_node.value in seen:
                problem = f"key {key_node.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_text(path: str | Path) -> str:
    """Read a small text file; every way this can fail is a `CatalogError` with the path in it."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise CatalogError(f"{path}: {size} bytes is too large for a description (limit {MAX_FILE_BYTES})")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CatalogError(f"{path}: cannot be read: {reason}") from error


def is_folder(text: str) -> bool:
    """Whether text names an existing folder; any text may be asked about, even one too long for a path."""
    try:
        return bool(text.strip()) and Path(text).is_dir()
    except OSError:
        return False


def parse_yaml(text: str, *, where: str) -> dict[str, Any]:
    """Parse a YAML document that must be a mapping; `where` begins every error."""
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # a subclass of the safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        problem = getattr(error, "problem", None) or error or "nested too deeply"
        raise SpecError(f"{where}{line}: not valid YAML: {problem}") from error
    return require_mapping(document, where=where)


def require_mapping(value: object, *, where: str) -> dict[str, Any]:
    """Return `value` if it is a mapping with text keys."""
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} must be a mapping of names to values, got {describe(value)}")
    wrong = [key for key in value if not isinstance(key, str)]
    if wrong:
        raise SpecError(f"{where}: key {wrong[0]!r} must be a word; write it in quotes")
    return dict(value)


def reject_unknown(mapping: Mapping[str, Any], known: Iterable[str], *, where: str) -> None:
    """Raise for the first key that is not in `known`, naming the nearest one."""
    known = tuple(known)
    for key in mapping:
        if key not in known:
            raise SpecError(f"{where}: {key!r} is unknown; known: {', '.join(sorted(known))}.{nearest(key, known)}")


def build(cls: type[T], mapping: object, *, where: str, units: Mapping[str, str] | None = None, **extra: Any) -> T:
    """Build a frozen value type from a mapping, checking keys and types.

    `units` maps field names to dimensions of `parse_quantity`; those fields must be text with a unit. `extra` are
    fields that the caller has already made.
    """
    values = require_mapping(mapping, where=where)
    fields = _fields(cls)
    reject_unknown(values, [name for name in fields if name not in extra], where=where)
    units = units or {}
    made = {
        name: parse_quantity(value, units[name], field=f"{where}: {name}")
        if name in units
        else convert(value, fields[name], where=f"{where}: {name}")
        for name, value in values.items()
    }
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in made
        and f.name not in extra
    ]
    if missing:
        raise SpecError(f"{where}: {', '.join(missing)} missing")
    return cls(**made, **extra)


@functools.cache
def _fields(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def convert(value: object, hint: Any, *, where: str) -> Any:
    """Convert a YAML value to the annotated type of a field, without guessing: "yes" is not True, 1.5 is not an int."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return convert(value, next(arg for arg in args if arg is not type(None)), where=where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where=where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SpecError(f"{where} must be a list, got {describe(value)}")
        return tuple(convert(item, args[0], where=f"{where}[{i}]") for i, item in enumerate(value))
    if hint is bool:
        return _exact(value, bool, "true or false", where=where)
    if hint is int:
        return _whole(value, where=where)
    if hint is float:
        return _number(value, where=where)
    return _exact(value, str, "text", where=where)  # str and Literals of text; the type itself checks the choice


def _exact(value: object, kind: type, wanted: str, *, where: str) -> Any:
    if not isinstance(value, kind):
        raise SpecError(f"{where}={value!r} must be {wanted}, got {describe(value)}")
    return value


def _number(value: object, *, where: str) -> float:
    """A number; text such as "1e-5" counts, because PyYAML reads it so where YAML 1.2 has a number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise SpecError(f"{where}={value!r} must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{where}={value!r} must be a number, got {describe(value)}")
    try:
        return float(value)
    except OverflowError:
        raise SpecError(f"{where} is too large a number") from None


def _whole(value: object, *, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"{where}={value!r} must be a whole number, got {describe(value)}")
    return value


def describe(value: object) -> str:
    """Name the type of a YAML or JSON value in the words of those who write such files."""
    names = {bool: "true/false", int: "a number", float: "a number", str: "text", type(None): "nothing"}
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return names.get(type(value), type(value).__name__)
