"""Invariant checks that the value types share; each names the field, the value and what is allowed."""

import dataclasses
import math
from collections.abc import Iterable

from jaxscale.errors import JaxscaleError, SpecError, nearest

LARGEST_INT = 2**53  # every count must survive a float64 exactly


def require_positive_int(
    owner: str, error: type[JaxscaleError] = SpecError, *, minimum: int = 1, **values: int
) -> None:
    """Require each keyword's value to be an integer of at least `minimum`."""
    for field, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise error(f"{owner}: {field}={value!r} must be a whole number")
        if not minimum <= value <= LARGEST_INT:
            raise error(f"{owner}: {field}={value} must be between {minimum} and 2**53")


def require_positive(
    owner: str, error: type[JaxscaleError] = SpecError, *, allow_zero: bool = False, **values: float
) -> None:
    """Require each keyword's value to be a finite number above zero (or not below it)."""
    for field, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise error(f"{owner}: {field}={value!r} must be a finite number")
        if value < 0 or (value == 0 and not allow_zero):
            raise error(f"{owner}: {field}={value} must be {'zero or more' if allow_zero else 'above zero'}")


def require_choice(
    owner: str, error: type[JaxscaleError] = SpecError, *, allowed: Iterable[str], **values: str
) -> None:
    """Require each keyword's value to be one of `allowed`."""
    allowed = tuple(allowed)
    for field, value in values.items():
        if value not in allowed:
            hint = nearest(str(value), allowed, count=1)
            raise error(f"{owner}: {field}={value!r} is not one of {', '.join(allowed)}.{hint}")


def divisors(value: int) -> tuple[int, ...]:
    """Return the divisors of `value`, ascending.

    >>> divisors(12)
    (1, 2, 3, 4, 6, 12)
    """
    small = [d for d in range(1, math.isqrt(value) + 1) if value % d == 0]
    return tuple(sorted({*small, *(value // d for d in small)}))


def as_dict(value: object) -> dict:
    """Return a frozen value type as plain nested dicts, ready for JSON or YAML."""
    return dataclasses.asdict(value)  # type: ignore[call-overload]
