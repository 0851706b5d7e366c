"""Cluster names -> `Cluster`, as people write them, or from a YAML file.

| text | meaning |
|---|---|
| `v5p-64` | a TPU slice named as Cloud TPU names it: 64 TensorCores = 32 chips, 2x4x4 |
| `v5p:512` | a TPU slice of so many chips, as close to a cube as there is |
| `v5p:4x4x8` | a TPU slice by its topology |
| `2xv5p-256` | two such slices joined by the data-centre network |
| `h100-sxm:64` | 64 GPUs in nodes of the usual size (8), joined by the usual fabric |
| `a100-sxm-80gb:8x16` | 8 GPUs a node, 16 nodes |
| `cpu:8` | 8 emulated devices |
| `path/to/cluster.yaml` | your own (see `tpu_configs/README.md`) |
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxscale.catalog.chips import CatalogChip, Link, catalog_chip, chip_from_mapping, chip_names, load_chip
from jaxscale.catalog.slices import (
    GENERATIONS,
    Generation,
    chips_per_host,
    format_topology,
    parse_slice,
    sizes_of,
    slice_name,
    topology_of,
    wraps,
)
from jaxscale.catalog.strict import build, parse_yaml, read_text, require_mapping
from jaxscale.errors import CatalogError, SpecError, nearest
from jaxscale.types import Cluster, Stack, Tier
from jaxscale.units import parse_quantity

MAX_CHIPS = 2**20
_MULTI_SLICE = re.compile(r"^(\d{1,4})x([a-z].*)$")
_GROUPED = re.compile(r"^(?P<chip>[a-z0-9][a-z0-9._-]*?)(?::(?P<size>\d{1,8})(?:x(?P<nodes>\d{1,8}))?)?$")
_TIER_UNITS = {"bytes_per_s": "bytes/s", "latency_s": "s"}
STACK_UNITS = {  # of the constants that are not plain numbers
    name: unit
    for name in Stack.__slots__
    for suffix, unit in (("_s", "s"), ("_bytes", "bytes"))
    if name.endswith(suffix)
}


def load_cluster(text: str, *, num_chips: int | None = None) -> Cluster:
    """Read a cluster from a name or a YAML file; `num_chips` makes it another size of the same kind.

    >>> load_cluster("v5p-64").num_chips, load_cluster("h100-sxm:64").tiers[1].name
    (32, 'ib')
    """
    if text.lower().endswith((".yaml", ".yml")):
        cluster = cluster_from_mapping(parse_yaml(read_text(text), where=text), where=text)
        return cluster if num_chips is None else _resized(cluster, num_chips)
    name = text.strip().lower()
    multi = _MULTI_SLICE.match(name)
    slices, single = (int(multi[1]), multi[2]) if multi else (1, name)
    tpu = parse_slice(single)
    if tpu is not None:
        if num_chips is not None:
            tpu = tpu[0], topology_of(tpu[0], _parts(num_chips, slices, name))
        return tpu_cluster(*tpu, num_slices=slices)
    if multi:
        raise CatalogError(f"cluster {text!r}: only TPU slices are joined with a leading count, such as 2xv5p-256")
    return _grouped_cluster(name, num_chips)


def cluster_names() -> tuple[str, ...]:
    """Names to start from: the common TPU slices, one node and eight of every GPU, and the emulated devices."""
    names = []
    for generation in GENERATIONS.values():
        sizes = [size for size in sizes_of(generation) if size & (size - 1) == 0]
        names += [slice_name(generation, sizes_of(generation)[size]) for size in sizes]
    for chip in chip_names():
        entry = catalog_chip(chip)
        if entry.chip.kind == "gpu":
            names += [f"{chip}:{entry.inner.size}", f"{chip}:{entry.inner.size * 8}"]
    return (*names, "cpu:8")


def tpu_cluster(generation: Generation, shape: tuple[int, ...], *, num_slices: int = 1) -> Cluster:
    """One TPU slice of a topology, or several joined by the data-centre network."""
    if not 1 <= num_slices <= 4096:
        raise CatalogError(f"cluster: {num_slices} slices must be between 1 and 4096")
    entry = catalog_chip(generation.chip)
    ici = Tier(
        name=entry.inner.name, kind="torus", shape=shape, wrap=wraps(generation, shape),
        bytes_per_s=entry.inner.bytes_per_s, latency_s=entry.inner.latency_s,
    )  # fmt: skip
    name = slice_name(generation, shape)
    return Cluster(
        name=name if num_slices == 1 else f"{num_slices}x{name}",
        chip=entry.chip,
        tiers=(ici,) if num_slices == 1 else (ici, _switch(entry.outer, num_slices)),
        chips_per_host=chips_per_host(generation, shape),
        dollars_per_chip_hour=entry.chip.dollars_per_hour,
        aot_topology=f"{generation.aot_prefix}:{format_topology(shape)}",
        num_slices=num_slices,
        note=_tpu_note(generation, shape, num_slices),
    )


def _tpu_note(generation: Generation, shape: tuple[int, ...], num_slices: int) -> str:
    chips, rings = math.prod(shape), wraps(generation, shape)
    cores = f"{chips * 2} TensorCores = " if generation.cores_per_name == 2 else ""
    hosts = chips // chips_per_host(generation, shape)
    closed = "all dims wrap" if all(rings) else "no wraparound"
    if any(rings) and not all(rings):
        closed = "its dims of full pod length wrap"
    topology = f"{format_topology(shape)} ({closed})"
    name = slice_name(generation, shape)
    one = f"{name} is {cores}{chips} chip{'s' * (chips > 1)}, {topology}, on {hosts} host{'s' * (hosts > 1)}"
    return one if num_slices == 1 else f"{num_slices} slices over the data-centre network; each {one}"


def _switch(link: Link, size: int) -> Tier:
    return Tier(name=link.name, kind="switch", shape=(size,), bytes_per_s=link.bytes_per_s, latency_s=link.latency_s)


def _grouped_cluster(name: str, num_chips: int | None) -> Cluster:
    """Chips in nodes behind switches: GPUs and emulated devices."""
    match = _GROUPED.match(name)
    entry = _known_chip(match["chip"] if match else name, name)
    if match is None or entry.chip.kind == "tpu":
        raise CatalogError(f"cluster {name!r}: a TPU slice is named by size or topology, such as {_tpu_example(entry)}")
    size = int(match["size"]) if match["size"] else (entry.inner.size or 8)
    nodes = int(match["nodes"]) if match["nodes"] else None
    if num_chips is not None:
        size, nodes = (_parts(num_chips, 1, name), None) if nodes is None else (size, _parts(num_chips, size, name))
    if not (size and size * (nodes or 1) <= MAX_CHIPS) or nodes == 0:
        raise CatalogError(f"cluster {name!r}: sizes must be between 1 and {MAX_CHIPS} chips")
    node = size if nodes else min(size, entry.inner.size or size)
    if nodes is None and size % node:
        down, up = size // node * node, -(-size // node) * node
        raise CatalogError(
            f"cluster {name!r}: {size} chips do not fill nodes of {node}; nearby sizes: {entry.chip.name}:{down}, "
            f"{entry.chip.name}:{up}, or name the node: {entry.chip.name}:{_node_hint(size, node)}"
        )
    return _nodes_of(entry, node, nodes or size // node, said=nodes is not None)


def _node_hint(size: int, node: int) -> str:
    fit = max(d for d in range(1, node + 1) if size % d == 0)
    return f"{fit}x{size // fit}"


def _known_chip(chip: str, name: str) -> CatalogChip:
    try:
        return catalog_chip(chip)
    except CatalogError:
        known = [*cluster_names(), *chip_names()]
        hint = nearest(name, known) or nearest(chip, chip_names())
        raise CatalogError(
            f"cluster {name!r} is unknown; write a TPU slice (v5p-64), chips (h100-sxm:64), emulated devices (cpu:8) "
            f"or the path of a .yaml file; `jaxscale clusters` lists them.{hint}"
        ) from None


def _tpu_example(entry: CatalogChip) -> str:
    generation = next(g for g in GENERATIONS.values() if g.chip == entry.chip.name)
    topology = sizes_of(generation)[64]
    return f"{slice_name(generation, topology)} or {generation.prefix}:{format_topology(topology)}"


def _nodes_of(entry: CatalogChip, node: int, nodes: int, *, said: bool) -> Cluster:
    chip = entry.chip
    short = f"{chip.name}:{node}x{nodes}" if said else f"{chip.name}:{node * nodes}"
    what = "emulated devices in one process" if chip.kind == "cpu" else f"chips a node over {entry.inner.name}"
    note = f"{short} is {node} {what}"
    if nodes > 1:
        note += f" x {nodes} nodes over {entry.outer.name} = {node * nodes} chips"
    tiers = (_switch(entry.inner, node),) if nodes == 1 else (_switch(entry.inner, node), _switch(entry.outer, nodes))
    if chip.kind == "cpu":
        tiers = tuple(dataclasses.replace(tier, kind="memory") for tier in tiers)
    return Cluster(
        name=short, chip=chip, tiers=tiers, note=note, dollars_per_chip_hour=chip.dollars_per_hour,
        chips_per_host=min(entry.chips_per_host or node, node),
    )  # fmt: skip


def _parts(num_chips: int, parts: int, name: str) -> int:
    """Chips of each of `parts` equal parts."""
    if isinstance(num_chips, bool) or not isinstance(num_chips, int) or not 1 <= num_chips <= MAX_CHIPS:
        raise CatalogError(f"cluster {name!r}: num_chips={num_chips!r} must be a whole number from 1 to {MAX_CHIPS}")
    if num_chips % parts:
        raise CatalogError(f"cluster {name!r}: num_chips={num_chips} is not a multiple of {parts}")
    return num_chips // parts


def _resized(cluster: Cluster, num_chips: int) -> Cluster:
    """Another size of a cluster from a file: its outermost switch grows or shrinks, the inner tiers stay."""
    *inner, outer = cluster.tiers
    if outer.kind != "switch":
        raise CatalogError(
            f"cluster {cluster.name!r}: num_chips={num_chips} cannot reshape a torus; write the topology in the file"
        )
    members = _parts(num_chips, math.prod(tier.size for tier in inner), cluster.name)
    tiers = (*inner, dataclasses.replace(outer, shape=(members,)))
    slices = members if cluster.num_slices > 1 else 1
    note = f"{cluster.note}; resized to {num_chips} chips".removeprefix("; ")
    return dataclasses.replace(cluster, name=f"{cluster.name}:{num_chips}", tiers=tiers, num_slices=slices, note=note)


def cluster_from_mapping(document: dict[str, Any], *, where: str) -> Cluster:
    """Build the cluster that a file describes; a `launch` section beside it is read by `load_launch`."""
    values = {k: v for k, v in document.items() if k != "launch"}
    for key in ("name", "chip", "tiers"):
        if key not in values:
            raise SpecError(f"{where}: {key} missing")
    raw_chip, raw_tiers = values.pop("chip"), values.pop("tiers")
    chip = load_chip(raw_chip) if isinstance(raw_chip, str) else chip_from_mapping(raw_chip, where=f"{where}: chip")
    if not isinstance(raw_tiers, list) or not raw_tiers:
        raise SpecError(f"{where}: tiers must be a list of networks, innermost first")
    tiers = tuple(_tier(tier, f"{where}: tiers[{i}]") for i, tier in enumerate(raw_tiers))
    raw_stack = values.pop("stack", None)
    stack = None if raw_stack is None else build(Stack, raw_stack, where=f"{where}: stack", units=STACK_UNITS)
    price = values.pop("dollars_per_chip_hour", None)
    dollars = (
        chip.dollars_per_hour
        if price is None
        else parse_quantity(price, "$/h", field=f"{where}: dollars_per_chip_hour")
    )
    cluster = build(Cluster, values, where=where, chip=chip, tiers=tiers, dollars_per_chip_hour=dollars, stack=stack)
    if cluster.num_slices > 1 and cluster.num_slices != tiers[-1].size:
        raise SpecError(f"{where}: num_slices={cluster.num_slices} must be the size of the last tier, {tiers[-1].size}")
    if not 1 <= cluster.num_chips <= MAX_CHIPS or cluster.num_chips % cluster.chips_per_host:
        raise SpecError(
            f"{where}: {cluster.num_chips} chips must be at most {MAX_CHIPS} and fill hosts of {cluster.chips_per_host}"
        )
    return cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """How to get a slice and run on it: the `launch` section of a cluster file."""

    accelerator_type: str  # of `gcloud compute tpus tpu-vm create`
    topology: str
    hosts: int  # TPU VMs, one JAX process each
    runtime_version: str
    machine_type: str = ""  # of a GKE node pool
    zone: str = ""  # one where the generation is offered
    environment: Mapping[str, str] = field(default_factory=dict)


def load_launch(path: str) -> LaunchSettings:
    """Read the `launch` section of a cluster file; hosts and topology must agree with the cluster beside it."""
    document = parse_yaml(read_text(path), where=path)
    cluster = cluster_from_mapping(document, where=path)
    if "launch" not in document:
        raise SpecError(f"{path}: section launch is missing")
    where = f"{path}: launch"
    values = require_mapping(document["launch"], where=where)
    environment = require_mapping(values.pop("environment", {}), where=f"{where}: environment")
    settings = build(LaunchSettings, values, where=where, environment={k: str(v) for k, v in environment.items()})
    hosts = cluster.num_chips // cluster.chips_per_host
    if settings.hosts != hosts:
        raise SpecError(f"{where}: hosts={settings.hosts}, but {cluster.num_chips} chips are {hosts} hosts")
    if settings.topology != format_topology(cluster.tiers[0].shape):
        raise SpecError(f"{where}: topology={settings.topology!r} is not that of tiers[0]")
    return settings


def _tier(raw: object, where: str) -> Tier:
    values = require_mapping(raw, where=where)
    shape, wrap = values.get("shape"), values.get("wrap")
    if isinstance(shape, str):  # 2x4x4
        if not re.fullmatch(r"\d{1,8}(x\d{1,8})*", shape):
            raise SpecError(f"{where}: shape={shape!r} must look like 2x4x4")
        values["shape"] = [int(dim) for dim in shape.split("x")]
    elif isinstance(shape, int):
        values["shape"] = [shape]
    if isinstance(wrap, bool):
        values["wrap"] = [wrap] * len(values.get("shape") or [])
    return build(Tier, values, where=where, units=_TIER_UNITS)
