"""Read fields of an untrusted Hugging Face `config.json`: missing, misspelt and absurd values name the field."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxscale.catalog.strict import describe
from jaxscale.errors import SpecError, nearest
from jaxscale.types import RopeShape

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


_ROPE_TYPES = {name: name for name in ("linear", "dynamic", "yarn", "llama3", "longrope")} | {
    "default": "none",
    "su": "longrope",
}


def rope_shape(
    config: Fields, *, default_theta: float = 10_000.0, fraction: float = 1.0, interleaved: bool = False
) -> RopeShape:
    """Rotary embedding from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (transformers 4).

    Either may be split by kind of layer (`full_attention`, `sliding_attention`), as Gemma 3 does.
    """
    stretch = config.nested("rope_parameters") or config.nested("rope_scaling") or Fields(values={}, where=config.where)
    local = stretch.nested("sliding_attention")
    stretch = stretch.nested("full_attention") or stretch
    theta = config.number("rope_theta", "rotary_emb_base", default=default_theta, minimum=1.0)
    theta = stretch.number("rope_theta", default=theta, minimum=1.0)
    share = config.number("partial_rotary_factor", "rotary_pct", default=fraction, minimum=1e-3, maximum=1.0)
    share = stretch.number("partial_rotary_factor", default=share, minimum=1e-3, maximum=1.0)
    local_theta = config.number("rope_local_base_freq", default=0.0)
    if local is not None:
        local_theta = local.number("rope_theta", default=local_theta)
    return RopeShape(
        theta=theta,
        local_theta=0.0 if local_theta == theta else local_theta,
        fraction=share,
        interleaved=interleaved,
        **_scaling(config, stretch),
    )


def _scaling(config: Fields, stretch: Fields) -> dict[str, Any]:
    """How positions are stretched: the fields of `RopeShape` that depend on the kind of scaling."""
    kind = stretch.choice("rope_type", "type", allowed=_ROPE_TYPES, default="default")
    if kind == "none":
        return {}
    if kind == "yarn" and config.values.get("model_type") == "phi3":
        kind = "longrope"  # as transformers reads old Phi-3 files
    if kind == "linear":
        return {"scaling": kind, "factor": stretch.number("factor", minimum=1.0)}
    longest = config.count("max_position_embeddings", limit="tokens", default=2048)
    original = _original_length(config, stretch, longest)
    made: dict[str, Any] = {"scaling": kind, "original_max_seq_len": original}
    if kind == "longrope":
        factor = stretch.number("factor", default=max(1.0, longest / original), minimum=1.0)
        factors = {f"{name}_factors": _factors(stretch, f"{name}_factor") for name in ("short", "long")}
        return made | factors | {"factor": factor, "attention_factor": stretch.number("attention_factor", default=0.0)}
    made["factor"] = stretch.number("factor", minimum=1.0)
    if kind == "llama3":
        made |= {name: stretch.number(name, minimum=1e-3) for name in ("low_freq_factor", "high_freq_factor")}
    if kind == "yarn":
        defaults = {"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.0, "mscale_all_dim": 0.0, "attention_factor": 0.0}
        made |= {name: stretch.number(name, default=value) for name, value in defaults.items()}
        made["truncate"] = stretch.flag("truncate", default=True)
    return made


def _original_length(config: Fields, stretch: Fields, longest: int) -> int:
    """The context that the model was first trained on; Phi-3 states it outside the scaling section."""
    name = "original_max_position_embeddings"
    holder = stretch if stretch.values.get(name) is not None else config
    return holder.count(name, limit="tokens", default=longest)


def _factors(stretch: Fields, name: str) -> tuple[float, ...]:
    values = stretch.raw(name)
    if not isinstance(values, list) or not values or len(values) > LIMITS["width"]:
        raise SpecError(f"{stretch.where}: {name} must be a list of numbers, got {describe(values)}")
    return tuple(
        Fields(values={f"{name}[{i}]": value}, where=stretch.where).number(f"{name}[{i}]", minimum=1e-6)
        for i, value in enumerate(values)
    )
