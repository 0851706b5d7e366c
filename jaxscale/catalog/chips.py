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
_CHIP_COUNTS = ("matmul_tile", "num_cores", "devices_per_chip")
_NETWORK_KEYS = ("inner", "outer", "chips_per_host")
_ALIASES = {"tpu-v7x": "tpu7x", "v7x": "tpu7x", "v5litepod": "tpu-v5e", "h200-sxm": "h200", "b200-sxm": "b200"}


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
    return tuple(_document()[1])


def load_chip(name: str) -> Chip:
    """Look a chip up by name; TPU names may leave `tpu-` out.

    >>> load_chip("v5p").peak("bf16")
    459000000000000.0
    """
    return catalog_chip(name).chip


@functools.cache
def catalog_chip(name: str) -> CatalogChip:
    """Look a chip up with its networks and the source of every figure."""
    sources, chips = _document()
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    key = key if key in chips else f"tpu-{key}"
    if key not in chips:
        raise CatalogError(f"chip {name!r} is unknown; known: {', '.join(chips)}.{nearest(name, chips)}")
    return _catalog_chip(key, chips[key], sources)


@functools.cache
def _document() -> tuple[dict[str, str], dict[str, Any]]:
    path = Path(__file__).with_name("chips.yaml")
    document = parse_yaml(read_text(path), where=path.name)
    reject_unknown(document, ("sources", "chips"), where=path.name)
    return document["sources"], document["chips"]


def _catalog_chip(name: str, entry: object, sources: Mapping[str, str]) -> CatalogChip:
    where = f"chip {name!r}"
    values = require_mapping(entry, where=where)
    reject_unknown(values, ("kind", "peak_flops_per_s", *CHIP_UNITS, *_CHIP_COUNTS, *_NETWORK_KEYS), where=where)
    used: dict[str, str] = {}

    def figure(field: str, pair: object) -> object:
        """The quantity of a [quantity, source] pair; the source is noted under the figure's name."""
        if not (isinstance(pair, list) and len(pair) == 2 and pair[1] in sources):
            raise SpecError(
                f"{where}: {field} must be [quantity, source] with a source listed in `sources`, got {pair!r}"
            )
        used[field] = sources[pair[1]]
        return pair[0]

    def link(field: str) -> Link:
        raw = require_mapping(values[field], where=f"{where}: {field}")
        plain = {k: figure(f"{field}.{k}", v) if k in LINK_UNITS else v for k, v in raw.items()}
        return build(Link, plain, where=f"{where}: {field}", units=LINK_UNITS)

    fields: dict[str, Any] = {
        k: parse_quantity(figure(k, values[k]), unit, field=f"{where}: {k}")
        for k, unit in CHIP_UNITS.items()
        if k in values
    }
    fields |= {k: convert(figure(k, values[k]), int, where=f"{where}: {k}") for k in _CHIP_COUNTS if k in values}
    fields["peak_flops_per_s"] = {
        k: parse_quantity(figure(f"peak {k}", v), "FLOP/s", field=f"{where}: peak {k}")
        for k, v in require_mapping(values["peak_flops_per_s"], where=f"{where}: peak_flops_per_s").items()
    }
    per_host = (
        convert(figure("chips_per_host", values["chips_per_host"]), int, where=where)
        if "chips_per_host" in values
        else 0
    )
    inner, outer = link("inner"), link("outer")
    chip = Chip(name=name, kind=values["kind"], source=_describe_sources(used), **fields)
    return CatalogChip(chip=chip, inner=inner, outer=outer, chips_per_host=per_host, sources=used)


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
