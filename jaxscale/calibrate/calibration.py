"""A fitted stack on one generation of chips: values, intervals, held-out error and provenance; and its YAML file."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jaxscale.calibrate.constants import CONSTANTS, Constant, constant_named
from jaxscale.calibrate.habits import HABITS
from jaxscale.calibrate.run import Software
from jaxscale.calibrate.spread import (
    OTHER_KIND_SIGMA,
    Ranges,
    doublings_outside,
    place,
    prior_sigma,
    widened,
)
from jaxscale.errors import SpecError, nearest
from jaxscale.types import STACKS, ModelShape, Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One constant: its value, the ends of its 80% interval, and its standard deviation on the fitted scale."""

    value: float
    low: float
    high: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Constants of one software stack on one generation of chips. Constants not in `fitted` are at their priors."""

    stack: str
    chip: str
    fitted: Mapping[str, Fitted]
    sigma_log: float  # of log(measured / predicted) step time, from errors on rows left out of the fit
    sigma_log_experts: float | None = None  # the same of mixtures of experts, where enough of both were measured
    ranges: Ranges = field(default_factory=dict)  # of the measured runs: chips, tokens a sequence, size of the layers
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def value(self, constant: Constant) -> float:
        """A constant's value."""
        fitted = self.fitted.get(constant.name)
        return fitted.value if fitted else constant.centre

    def stack_for(self, software: Software) -> Stack:
        """The constants of the kernels that `software` uses, as a `Stack`."""
        values: dict[str, Any] = {c.field: self.value(c) for c in CONSTANTS if c.applies(software)}
        base = STACKS.get(self.stack) or Stack(name=self.stack, spmd=False)
        return dataclasses.replace(
            base, attention_kernel=software.attention_kernel,  # type: ignore[arg-type]
            sigma_log=self.sigma_log, source=self.describe(), **values,
            score_recompute=float(software.score_recompute), **HABITS.get(self.stack, {}),
        )  # fmt: skip

    def sigma_at(self, *, num_chips: float, seq_len: float, shape: ModelShape | None = None) -> float:
        """`sigma_log` of one prediction: by kind of model, and wider outside of what was measured."""
        sigma = self.sigma_log
        if shape is not None and shape.moe is not None:
            sigma = self.sigma_log_experts or math.hypot(sigma, OTHER_KIND_SIGMA)
        doublings = doublings_outside(self.ranges, place(num_chips, seq_len, shape))
        return widened(sigma, doublings=doublings, ceiling=prior_sigma(self.stack))

    def to_json(self) -> dict:
        """Plain values, for `--json`."""
        fitted = {name: dataclasses.asdict(entry) for name, entry in self.fitted.items()}
        return {
            "stack": self.stack, "chip": self.chip, "sigma_log": self.sigma_log,
            "sigma_log_experts": self.sigma_log_experts, "ranges": {k: list(v) for k, v in self.ranges.items()},
            "provenance": dict(self.provenance), "constants": fitted,
        }  # fmt: skip

    def describe(self) -> str:
        """One line about where the constants come from."""
        rows = self.provenance.get("rows", {})
        if not rows:
            return f"{self.stack} on {self.chip}: priors, no measured run"
        origin = f"{sum(rows.values())} runs of {', '.join(rows)}"
        return f"{self.stack} on {self.chip}: {origin}" + (
            f"; {self.provenance['note']}" if "note" in self.provenance else ""
        )


def prior(stack: str, chip: str) -> Calibration:
    """What is believed of a stack before any measurement."""
    return Calibration(stack=stack, chip=chip, fitted={}, sigma_log=prior_sigma(stack))


def to_text(calibration: Calibration) -> str:
    """A calibration as the YAML that `load_calibration` reads."""
    import yaml

    document: dict[str, Any] = {
        "stack": calibration.stack,
        "chip": calibration.chip,
        "sigma_log": round(calibration.sigma_log, 4),
    }
    if calibration.sigma_log_experts is not None:
        document["sigma_log_experts"] = round(calibration.sigma_log_experts, 4)
    document |= {
        "ranges": {name: [low, high] for name, (low, high) in calibration.ranges.items()},
        "provenance": dict(calibration.provenance),
        "constants": {c.name: _entry(calibration.fitted[c.name]) for c in CONSTANTS if c.name in calibration.fitted},
    }
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)


def _entry(fitted: Fitted) -> dict[str, float]:
    return {key: float(f"{getattr(fitted, key):.5g}") for key in ("value", "low", "high", "spread")}


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration file; raise SpecError naming the field at fault."""
    import yaml

    try:
        document = yaml.load(Path(path).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path}: cannot be read as a calibration: {error}") from None
    if not isinstance(document, dict):
        raise SpecError(f"{path}: a calibration is a mapping with stack, chip, sigma_log and constants")
    return _parse(document, str(path))


def _parse(document: Mapping[str, Any], owner: str) -> Calibration:
    missing = [key for key in ("stack", "chip", "sigma_log", "constants") if key not in document]
    if missing:
        raise SpecError(
            f"{owner}: {', '.join(missing)} missing; a calibration has stack, chip, sigma_log and constants"
        )
    fitted = {}
    for name, entry in document["constants"].items():
        if constant_named(name) is None:
            known = [constant.name for constant in CONSTANTS]
            raise SpecError(f"{owner}: constants.{name} is not known.{nearest(name, known)}")
        try:
            fitted[name] = Fitted(**{key: float(entry[key]) for key in ("value", "low", "high", "spread")})
        except (KeyError, TypeError, ValueError):
            raise SpecError(f"{owner}: constants.{name} needs value, low, high and spread as numbers") from None
    experts = document.get("sigma_log_experts")
    return Calibration(
        stack=str(document["stack"]), chip=str(document["chip"]), fitted=fitted,
        sigma_log=float(document["sigma_log"]), sigma_log_experts=None if experts is None else float(experts),
        ranges=_ranges(document.get("ranges") or {}, owner), provenance=document.get("provenance") or {},
    )  # fmt: skip


def _ranges(written: Any, owner: str) -> dict[str, tuple[float, float]]:
    try:
        found = {str(name): (float(low), float(high)) for name, (low, high) in written.items()}
    except (AttributeError, TypeError, ValueError):
        raise SpecError(f"{owner}: ranges must name a smallest and a largest value each, such as [8, 64]") from None
    for name, (low, high) in found.items():
        if not 0 < low <= high < math.inf:
            raise SpecError(
                f"{owner}: ranges.{name}={[low, high]} must be two finite numbers above zero, the smaller first"
            )
    return found


def _folder() -> Path:
    return Path(str(resources.files("jaxscale.calibrate") / "stacks"))


@lru_cache(maxsize=64)
def shipped(stack: str, chip: str) -> Calibration | None:
    """The package's calibration of a stack on a generation of chips, if there is one."""
    path = _folder() / f"{stack}-{chip}.yaml"
    return load_calibration(path) if path.is_file() else None


@lru_cache(maxsize=1)
def pooled() -> Calibration:
    """The package's constants of all measured stacks on GPUs together (`jaxscale.calibrate.pooled`)."""
    return load_calibration(str(resources.files("jaxscale.calibrate") / "pooled.yaml"))


@lru_cache(maxsize=1)
def shipped_names() -> tuple[tuple[str, str], ...]:
    """(stack, chip generation) of every calibration of the package."""
    stems = sorted(path.stem for path in _folder().glob("*.yaml"))
    return tuple((stem.rpartition("-")[0], stem.rpartition("-")[2]) for stem in stems)
