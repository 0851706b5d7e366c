"""Chip names -> `Chip`, and the two networks that join chips of a kind. Every figure must name its source."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxscale.catalog.strict import build, convert, parse_yaml, read_text, reject_unknown, require_mapping
from jaxscale.errors import CatalogError, SpecError, nearest
from jaxscale.types import Chip
from jaxscale.units import parse_quantity

CHIP_UNITS = {
    "vector_flops_per_s": "FLOP/s",
    "hbm_bytes": "bytes",
    "usable_hbm_bytes": "bytes",
    "hbm_bytes_per_s": "bytes/s",
    "host_bytes_per_s": "bytes/s",
    "clock_hz": "Hz",
    "power_w": "W",
    "dollars_per_hour": "$/h",
}
LINK_UNITS = {"bytes_per_s": "bytes/s", "latency_s": "s"}
_NETWORKS = ("inner", "outer")
_WORDS = ("kind", "name", "size")  # of an entry, beside figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network as one chip sees it; `size` chips form one group, 0 where the group is named by its topology."""

    name: str
    bytes_per_s: float  # one link one way (torus), or one chip's share one way (switch)
    latency_s: float
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogChip:
    """A chip, its networks within (`inner`) and between (`outer`) slices or nodes, and the source of every figure."""

    chip: Chip
    inner: Link
    outer: Link
    chips_per_host: int  # 0: as the slice or node says
    sources: Mapping[str, str]


def chip_names() -> tuple[str, ...]:
    """Names of the catalogue's chips."""
    return tuple(_document()["chips"])


def load_chip(name: str) -> Chip:
    """Look a chip up by name; TPU names may leave `tpu-` out.

    >>> load_chip("v5p").peak("bf16")
    459000000000000.0
    """
    return catalog_chip(name).chip


def catalog_chip(name: str) -> CatalogChip:
    """Look a chip up with its networks and the source of every figure."""
    document = _document()
    chips = document["chips"]
    key = name.strip().lower()
    key = document["aliases"].get(key, key)
    key = key if key in chips else f"tpu-{key}"
    if key not in chips:
        raise CatalogError(f"chip {name!r} is unknown; known: {', '.join(chips)}.{nearest(name, chips)}")
    return _entry(key)


@functools.cache
def _entry(key: str) -> CatalogChip:
    document = _document()
    return read_chip(key, document["chips"][key], document["sources"])


@functools.cache
def _document() -> dict[str, Any]:
    path = Path(__file__).with_name("chips.yaml")
    document = parse_yaml(read_text(path), where=path.name)
    reject_unknown(document, ("sources", "aliases", "chips"), where=path.name)
    return document


def read_chip(name: str, entry: object, sources: Mapping[str, str]) -> CatalogChip:
    """Read one chip of the catalogue: figures are [quantity, source] pairs, and `sources` maps keys to sources."""
    where = f"chip {name!r}"
    used: dict[str, str] = {}
    values = _split_sources(require_mapping(entry, where=where), sources, used, where=where)
    networks = {key: build(Link, values.pop(key, {}), where=f"{where}: {key}", units=LINK_UNITS) for key in _NETWORKS}
    per_host = convert(values.pop("chips_per_host", 0), int, where=f"{where}: chips_per_host")
    chip = chip_from_mapping({"name": name, "source": _describe_sources(used), **values}, where=where)
    return CatalogChip(chip=chip, chips_per_host=per_host, sources=used, **networks)


def _split_sources(
    values: Mapping[str, Any], sources: Mapping[str, str], used: dict[str, str], *, where: str, prefix: str = ""
) -> dict[str, Any]:
    """Replace every [quantity, source] pair by its quantity, noting the source under the figure's name in `used`."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        field = f"{prefix}{key}"
        if isinstance(value, Mapping):
            plain[key] = _split_sources(value, sources, used, where=where, prefix=f"{field}.")
        elif key in _WORDS:
            plain[key] = value
        elif isinstance(value, list) and len(value) == 2 and value[1] in sources:
            plain[key], used[field] = value[0], sources[value[1]]
        else:
            raise SpecError(f"{where}: {field} must be [quantity, source] with a listed source, got {value!r}")
    return plain


def _describe_sources(used: Mapping[str, str]) -> str:
    """One sentence: each source once, after the figures that rest on it."""
    by_source: dict[str, list[str]] = {}
    for field, source in used.items():
        by_source.setdefault(source, []).append(field)
    return "; ".join(f"{', '.join(fields)}: {source}" for source, fields in by_source.items())


def chip_from_mapping(mapping: object, *, where: str) -> Chip:
    """Build a chip that a user described: quantities are text with units, `peak_flops_per_s` maps format to rate."""
    values = require_mapping(mapping, where=where)
    peaks = require_mapping(values.pop("peak_flops_per_s", {}), where=f"{where}: peak_flops_per_s")
    rates = {k: parse_quantity(v, "FLOP/s", field=f"{where}: peak_flops_per_s: {k}") for k, v in peaks.items()}
    return build(Chip, values, where=where, units=CHIP_UNITS, peak_flops_per_s=rates)
