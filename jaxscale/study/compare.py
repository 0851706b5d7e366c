"""Two measurements side by side: every field that differs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxscale.types.codec import encode
from jaxscale.types.measurement import Measurement

_OF_EVERY_RUN = ("identifier", "started_at", "warmup_times_s", "step_times_s")  # differ between any two


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field, by its path in the record, and its two values; None where one has no such field."""

    field: str
    first: Any
    second: Any


def differences(first: Measurement, second: Measurement) -> list[Difference]:
    """Fields in which two measurements differ: what was asked first, then what came out, then the surroundings."""
    left, right = dict(_leaves(encode(first))), dict(_leaves(encode(second)))
    fields = [*left, *(field for field in right if field not in left)]
    found = [
        Difference(field=field, first=left.get(field), second=right.get(field))
        for field in fields
        if left.get(field) != right.get(field) and field.partition(".")[0] not in _OF_EVERY_RUN
    ]
    return sorted(found, key=lambda difference: _rank(difference.field))


def _rank(field: str) -> int:
    return {"request": 0, "surroundings": 2}.get(field.partition(".")[0], 1)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a record with dotted paths; lists are leaves."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{path}.{key}" if path else key)
