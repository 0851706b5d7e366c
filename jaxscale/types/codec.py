"""Frozen dataclasses to JSON values and back, by their field types: what passes between processes and to disk."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from jaxscale.errors import SpecError


def encode(value: Any) -> Any:
    """Turn a value into what `json.dumps` writes; sets are sorted, so that equal values give equal text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(encode(item) for item in value)
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def decode(kind: Any, data: Any) -> Any:
    """Build a value of type `kind` from what `encode` made of one.

    >>> decode(tuple[int, ...], [1, 2])
    (1, 2)
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if data is None else decode(next(a for a in arguments if a is not type(None)), data)
    if origin is Literal:
        return data
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), data)
    if origin is tuple:
        return _decode_tuple(arguments, data)
    if origin is frozenset:
        return frozenset(decode(arguments[0], item) for item in data)
    if origin in (dict, Mapping):
        return {key: decode(arguments[1], item) for key, item in data.items()}
    return float(data) if kind is float and isinstance(data, int) else data


def _decode_tuple(arguments: tuple, data: Any) -> tuple:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(decode(arguments[0], item) for item in data)
    return tuple(decode(kind, item) for kind, item in zip(arguments, data, strict=True))


def _decode_dataclass(kind: type, data: Any) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = set(data) - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise SpecError(f"{kind.__name__}: unknown fields {', '.join(sorted(unknown))}")
    return kind(**{name: decode(hints[name], item) for name, item in data.items()})
