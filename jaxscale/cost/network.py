"""Where mesh axes lie on the network, and how long a collective takes there.

A cluster's tiers are flattened into levels, innermost first: every torus dim is one level, every switch is one. Mesh
axes are laid on the levels in the layout's axis order, each with a stride (product of the degrees inside it), so an
axis that is larger than a level spills into the next: an axis of 16 over nodes of 8 has 8 members inside and 2 across.

Time = latency + wire bytes / bus bandwidth (ring algorithms; Thakur et al. 2005, NCCL's bus bandwidth):

| collective | wire bytes per device, payload S, n members |
|---|---|
| all-gather, reduce-scatter | S (n-1)/n |
| all-reduce | 2 S (n-1)/n |
| all-to-all, local S | S (n-1)/n |
| collective-permute, local S | S |

Emulated devices share one memory: there a collective passes over its payload, whatever the group's size
(`SHARED_MEMORY_PASSES`), and its members wait for each other once.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from jaxscale.cost.numbers import Number
from jaxscale.types import SHARED_MEMORY_PASSES, Cluster

# A package of two dies joins them faster than its links to other packages (TPU7x: 6 times one ICI link,
# cloud.google.com/tpu/docs/tpu7x, 2025).
DIE_TO_DIE_LINKS = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One flattened level of the network. `bytes_per_s` is one link (torus) or one device's share (switch), one way."""

    name: str
    torus: bool
    size: Number
    bytes_per_s: Number
    latency_s: Number
    wrap: Number = 0.0  # torus: 1 where the dim closes into a ring
    scaling: Number = 0.0  # bandwidth falls as members ** -scaling (congestion between nodes)
    memory: bool = False  # devices of one process copy from each other's memory


def cluster_levels(cluster: Cluster) -> tuple[Level, ...]:
    """Flatten a cluster's tiers, innermost first; devices of one chip are the first level where there are several."""
    per_chip = cluster.chip.devices_per_chip
    levels: list[Level] = []
    if per_chip > 1:
        link = cluster.tiers[0].bytes_per_s * DIE_TO_DIE_LINKS
        levels.append(
            Level(name="die", torus=False, size=float(per_chip), bytes_per_s=link, latency_s=cluster.tiers[0].latency_s)
        )
    for tier in cluster.tiers:
        wraps = tier.wrap or (False,) * len(tier.shape)
        levels.extend(
            Level(
                name=tier.name,
                torus=tier.kind == "torus",
                size=float(size),
                bytes_per_s=tier.bytes_per_s / (1 if tier.kind == "torus" else per_chip),
                latency_s=tier.latency_s,
                wrap=float(wrap),
                memory=tier.kind == "memory",
            )
            for size, wrap in zip(tier.shape, wraps, strict=True)
        )
    return tuple(levels)


def derate(levels: Sequence[Level], inner: Number, outer: Number, outer_scaling: Number) -> tuple[Level, ...]:
    """Levels at the bandwidth that large collectives reach: share `inner` inside a node or slice, `outer` between."""
    derated = []
    for position, level in enumerate(levels):
        inside = position == 0 or level.torus or level.name == levels[0].name
        share, scaling = (inner, 0.0) if inside else (outer, outer_scaling)
        derated.append(dataclasses.replace(level, bytes_per_s=level.bytes_per_s * share, scaling=scaling))
    return tuple(derated)


def place(
    degrees: Mapping[str, Number], order: Sequence[str], levels: Sequence[Level], xp: ModuleType
) -> dict[str, list[Number]]:
    """Return for each axis how many of its members lie along each level."""
    members: dict[str, list[Number]] = {}
    low: Number = 1.0
    for axis in order:
        high = low * degrees[axis]
        inside: Number = 1.0
        split = []
        for position, level in enumerate(levels):
            outside = inside * level.size if position < len(levels) - 1 else float("inf")
            split.append(xp.maximum(1.0, xp.minimum(high, outside) / xp.maximum(low, inside)))
            inside = outside
        members[axis] = split
        low = high
    return members


def group_members(members: Mapping[str, list[Number]], axes: Sequence[str], num_levels: int) -> list[Number]:
    """Members of a group of axes along each level."""
    totals: list[Number] = [1.0] * num_levels
    for axis in axes:
        totals = [total * part for total, part in zip(totals, members[axis], strict=True)]
    return totals


WIRE_FACTOR = {
    "all-gather": 1.0, "reduce-scatter": 1.0, "all-reduce": 2.0, "all-to-all": 1.0, "collective-permute": 1.0,
}  # fmt: skip


def wire_bytes(kind: str, bytes_each: Number, size: Number) -> Number:
    """Bytes that one device sends in one collective of `size` members; zero where there is one member."""
    share = (size > 1) * 1.0 if kind == "collective-permute" else (size - 1.0) / size
    return WIRE_FACTOR[kind] * bytes_each * share


def _bus_bytes_per_s(members: Sequence[Number], levels: Sequence[Level], xp: ModuleType) -> Number:
    """Bandwidth at which a ring over the group moves: torus dims work at once, switches limit each other.

    Members that share a node bring one network port each, so an outer switch is as wide as there are members inside.
    """
    torus: Number = 0.0
    limit: Number = float("inf")
    inner: Number = 1.0
    for count, level in zip(members, levels, strict=True):
        used = count > 1
        if level.torus:
            ring = xp.where((level.wrap > 0) & (count >= level.size), 2.0, 1.0)
            torus = torus + xp.where(used, ring * level.bytes_per_s, 0.0)
        else:
            speed = level.bytes_per_s * inner * count ** (-level.scaling)
            limit = xp.minimum(limit, xp.where(used, speed, float("inf")))
        inner = inner * count
    return xp.minimum(limit, xp.where(torus > 0, torus, float("inf")))


def _exchange_s(bytes_each: Number, members: Sequence[Number], levels: Sequence[Level], xp: ModuleType) -> Number:
    """All-to-all: a torus dim of m carries S m/8 over a ring's link (m/4 on a line), a switch what leaves inside."""
    size: Number = 1.0
    for count in members:
        size = size * count
    worst: Number = 0.0
    inner: Number = 1.0
    for count, level in zip(members, levels, strict=True):
        if level.torus:
            ring = xp.where((level.wrap > 0) & (count >= level.size), 8.0, 4.0)
            time_s = bytes_each * xp.where(count > 1, count / ring, 0.0) / level.bytes_per_s
        else:
            time_s = bytes_each * xp.where(count > 1, 1.0 - inner / size, 0.0) / level.bytes_per_s
        worst = xp.maximum(worst, time_s)
        inner = inner * count
    return worst


def collective_s(
    kind: str,
    bytes_each: Number,
    members: Sequence[Number],
    levels: Sequence[Level],
    *,
    latency_s: Number,
    xp: ModuleType,
) -> Number:
    """Seconds of one collective of payload `bytes_each`; zero where the group has one member.

    The levels' bandwidths are those that large messages reach (`derate`); `latency_s` is the cost of a start.
    """
    if levels[0].memory:
        return _shared_memory_s(kind, bytes_each, math.prod(members), levels[0], latency_s=latency_s, xp=xp)
    size: Number = 1.0
    hops_s: Number = 0.0
    for count, level in zip(members, levels, strict=True):
        size = size * count
        steps = xp.where(count > 1, 1.0, 0.0) if kind == "collective-permute" else count - 1.0
        hops_s = hops_s + steps * level.latency_s
    if kind == "all-to-all":
        moving_s = _exchange_s(bytes_each, members, levels, xp)
    elif kind == "collective-permute":
        slowest: Number = float("inf")
        for count, level in zip(members, levels, strict=True):
            slowest = xp.minimum(slowest, xp.where(count > 1, level.bytes_per_s, float("inf")))
        moving_s = bytes_each / slowest
    else:
        bus = _bus_bytes_per_s(members, levels, xp)
        moving_s = wire_bytes(kind, bytes_each, size) / bus
    rounds = WIRE_FACTOR[kind]
    return xp.where(size > 1, moving_s + latency_s + rounds * hops_s, 0.0)


def _shared_memory_s(
    kind: str, bytes_each: Number, size: Number, level: Level, *, latency_s: Number, xp: ModuleType
) -> Number:
    """Emulated devices: everybody is waited for, and passes over the payload; a permute waits for all devices."""
    met = level.size if kind == "collective-permute" else size
    copy_s = SHARED_MEMORY_PASSES[kind] * bytes_each / level.bytes_per_s
    return xp.where(size > 1, latency_s + met * level.latency_s + copy_s, 0.0)
