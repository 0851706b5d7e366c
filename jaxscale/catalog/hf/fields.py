"""Read fields of an untrusted Hugging Face `config.json`: missing, misspelt and absurd values name the field."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxscale.catalog.strict import describe
from jaxscale.errors import SpecError, nearest

# Far above any model that exists: a larger number is a typo or an attack, and would only fail later and worse.
LIMITS = {
    "layers": 10_000,
    "width": 2**22,
    "heads": 2**14,
    "vocabulary": 2**25,
    "experts": 2**16,
    "tokens": 2**31,
}
_REQUIRED = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A `config.json` as a mapping, and the text that begins every error about it."""

    values: Mapping[str, Any]
    where: str

    def raw(self, *names: str, default: Any = _REQUIRED) -> Any:
        """The first of `names` that is present and not null; else the default; else an error."""
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        if default is not _REQUIRED:
            return default
        known = [key for key in self.values if isinstance(key, str)]
        raise SpecError(f"{self.where}: {names[0]} is missing.{nearest(names[0], known)}")

    def count(self, *names: str, limit: str, minimum: int = 1, default: Any = _REQUIRED) -> int:
        """A whole number from `minimum` to the limit of its kind."""
        value = self.raw(*names, default=default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= LIMITS[limit]:
            allowed = f"a whole number from {minimum} to {LIMITS[limit]}"
            raise SpecError(f"{self.where}: {self._present(names)}={value!r} must be {allowed}")
        return value

    def number(self, *names: str, default: Any = _REQUIRED, minimum: float = 0.0, maximum: float = 1e12) -> float:
        """A finite number between the bounds, which are allowed."""
        value = self.raw(*names, default=default)
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not minimum <= value <= maximum:
            raise SpecError(
                f"{self.where}: {self._present(names)}={value!r} must be a number from {minimum:g} to {maximum:g}"
            )
        return float(value)

    def is_null(self, name: str) -> bool:
        """Whether a field is present and null, which switches a feature off where its absence means the default."""
        return name in self.values and self.values[name] is None

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.raw(name, default=default)
        if not isinstance(value, bool):
            raise SpecError(f"{self.where}: {name}={value!r} must be true or false")
        return value

    def choice(self, *names: str, allowed: Mapping[str, str], default: Any = _REQUIRED) -> str:
        """A word of the config, translated into jaxscale's."""
        value = self.raw(*names, default=default)
        if not isinstance(value, str) or value not in allowed:
            hint = nearest(str(value), allowed, count=1)
            raise SpecError(
                f"{self.where}: {self._present(names)}={value!r} is not supported; known: {', '.join(allowed)}.{hint}"
            )
        return allowed[value]

    def nested(self, name: str) -> "Fields | None":
        """A mapping inside the config, or None where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise SpecError(f"{self.where}: {name} must be a mapping, got {describe(value)}")
        return Fields(values=value, where=f"{self.where}: {name}")

    def refuse(self, name: str, harmless: Iterable[Any], why: str) -> None:
        """Raise where a field asks for something that jaxscale cannot express, rather than ignore it."""
        value = self.values.get(name)
        if value is not None and value not in tuple(harmless):
            raise SpecError(f"{self.where}: {name}={value!r} is not supported: {why}")

    def _present(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if self.values.get(name) is not None), names[0])
