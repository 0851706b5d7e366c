"""What a user allows a search to try: bounds and lists of values for any field of a layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxscale.errors import LayoutError, nearest
from jaxscale.types._check import LARGEST_INT
from jaxscale.types.layout import BATCH_FIELDS, BOOLS, CHOICES, SCHEDULES, SHORT_NAMES, ZERO_STAGES, field_code

SHARD_FIELDS = ("params_shard", "grads_shard", "optimizer_shard")
_ZERO_BUBBLE = SCHEDULES.index("zero_bubble")
_COMPARISON = re.compile(r"^\s*([a-z_]+)\s*(<=|>=|=)\s*([^<>=]+?)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Which values of one field may be tried, as they stand in a `LayoutBatch`."""

    minimum: int = 0
    maximum: int = LARGEST_INT
    values: tuple[int, ...] | None = None

    def allows(self, codes: np.ndarray) -> np.ndarray:
        """Tell for each value whether it is within the limit, bool [n]."""
        within = (codes >= self.minimum) & (codes <= self.maximum)
        return within if self.values is None else within & np.isin(codes, self.values)

    def intersect(self, other: "Limit") -> "Limit":
        """Return the limit that asks for both."""
        if self.values is not None and other.values is not None:
            values = tuple(v for v in self.values if v in other.values)
        else:
            values = self.values if other.values is None else other.values
        return Limit(minimum=max(self.minimum, other.minimum), maximum=min(self.maximum, other.maximum), values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits by field of `Layout`; a field that is not named is free.

    A choice that a layout does not make (the schedule without a pipeline, the context method without a context axis,
    sequence parallelism without a tensor axis) is not held against it.
    """

    fields: Mapping[str, Limit] = field(default_factory=dict)
    text: str = ""  # as the user wrote them

    def allowed(self, name: str, codes: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of `codes` that the limit on field `name` allows."""
        if name not in self.fields:
            return codes
        keep = self.fields[name].allows(np.asarray(codes, dtype=np.int64))
        return tuple(code for code, kept in zip(codes, keep, strict=True) if kept)

    def without(self, *names: str) -> "Limits":
        """Return the limits with some fields set free."""
        return Limits(fields={name: limit for name, limit in self.fields.items() if name not in names}, text=self.text)

    def narrowed(self, other: "Limits") -> "Limits":
        """Return these limits, and `other`'s on the fields that these leave free."""
        return Limits(fields={**other.fields, **self.fields}, text=self.text)

    @property
    def names_sharding(self) -> bool:
        """Whether they speak of fields that tell apart layouts which are otherwise the same."""
        return any(name in self.fields for name in ("data", "fsdp", *SHARD_FIELDS))


NO_LIMITS = Limits()


def parse_limits(*texts: str) -> Limits:
    """Read limits written as comparisons, comma-separated: `<=`, `>=` or `=`; `|` stands between the values of a list.

    Short names are those of `parse_layout`; `zero=0..3` is short for the three shard options.

    >>> parse_limits("tensor<=8,remat=full|dots").fields["tensor"].maximum
    8
    """
    fields: dict[str, Limit] = {}
    for part in filter(None, (piece.strip() for text in texts for piece in text.split(","))):
        for name, limit in _parse_one(part).items():
            fields[name] = fields[name].intersect(limit) if name in fields else limit
    return Limits(fields=fields, text=",".join(texts))


def _parse_one(part: str) -> dict[str, Limit]:
    match = _COMPARISON.match(part)
    if match is None:
        raise LayoutError(f"limit: {part!r} is not written like tensor<=8, fsdp>=4, pipeline=1 or remat=full|dots")
    name, comparison, raw = match.groups()
    name = SHORT_NAMES.get(name, name)
    if name == "zero":
        return _zero_limits(raw, comparison)
    if name not in BATCH_FIELDS:
        raise LayoutError(
            f"limit: {name!r} is unknown; known: {', '.join(BATCH_FIELDS)}, zero.{nearest(name, BATCH_FIELDS)}"
        )
    if comparison == "=":
        values = tuple(_code(name, value) for value in raw.split("|"))
        if name == "schedule" and values == (_ZERO_BUBBLE,):
            raise LayoutError(
                "limit: schedule=zero_bubble is for runtimes with a process for each stage, such as torchtitan; in one "
                "XLA program it costs more than it saves (experiments/zero_bubble); allowed: "
                + ", ".join(schedule for schedule in SCHEDULES if schedule != "zero_bubble")
            )
        return {name: Limit(values=values)}
    if name in BOOLS or name in CHOICES:
        raise LayoutError(f"limit: {part!r}: {name} has no order; use = with one value or several joined by |")
    bound = _code(name, raw)
    return {name: Limit(minimum=bound) if comparison == ">=" else Limit(maximum=bound)}


def _zero_limits(raw: str, comparison: str) -> dict[str, Limit]:
    if comparison != "=" or raw not in ZERO_STAGES:
        raise LayoutError(f"limit: zero{comparison}{raw} must be one of zero={', zero='.join(ZERO_STAGES)}")
    shards = dict(zip(SHARD_FIELDS, ZERO_STAGES[raw], strict=True))
    return {name: Limit(values=(field_code(name, shard),)) for name, shard in shards.items()}


def _code(name: str, raw: str) -> int:
    """Read one value of a field, as the number that stands for it in a batch."""
    raw = raw.strip()
    if name in CHOICES:
        if raw not in CHOICES[name]:
            raise LayoutError(
                f"limit: {name}={raw!r} is not one of {', '.join(CHOICES[name])}.{nearest(raw, CHOICES[name], count=1)}"
            )
        return field_code(name, raw)
    if name in BOOLS:
        if raw.lower() not in ("true", "false", "1", "0"):
            raise LayoutError(f"limit: {name}={raw!r} must be true or false")
        return int(raw.lower() in ("true", "1"))
    if not (raw.isdecimal() and len(raw) < 20) or not 1 <= int(raw) <= LARGEST_INT:
        raise LayoutError(f"limit: {name}={raw!r} must be a whole number above zero")
    return int(raw)
