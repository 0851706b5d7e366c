"""Which devices talk to each other: replica groups in every form that HLO prints, and the mesh axes they span.

Device numbers in the text are positions in the program's device assignment, that is in the flattened mesh.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_LISTS = re.compile(r"replica_groups=(\{(?:\{[\d,]*\},?)*\})")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=@?(?:mesh)?[<\[]([^>\]]*=[^>\]]*)[>\]][^{]*\{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_PAIR = re.compile(r"\{(\d+),(\d+)\}")
_SUB_AXIS = re.compile(r"[\"']?([\w.\-]+)[\"']?(?::\((\d+)\)(\d+))?")

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshAxes:
    """Names and sizes of a device mesh's axes, outermost first, as the device array has them."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def num_devices(self) -> int:
        """Devices of the mesh."""
        return int(np.prod(self.sizes))


def replica_groups(attributes: str, num_devices: int) -> Groups:
    """Read the groups of a collective; an empty list means that all devices are one group.

    >>> replica_groups("replica_groups=[2,4]<=[2,2,2]T(1,0,2)", 8)
    ((0, 1, 4, 5), (2, 3, 6, 7))
    >>> replica_groups("replica_groups=mesh['data'=2,'tensor'=2] {'data'}, use_global_device_ids=true", 4)
    ((0, 2), (1, 3))
    """
    if match := _LISTS.search(attributes):
        groups = re.findall(r"\{([\d,]+)\}", match.group(1)[1:-1])
        if groups:
            return tuple(_integers(group) for group in groups)
    elif match := _IOTA.search(attributes):
        return _iota_groups(*match.groups())
    elif match := _MESH.search(attributes):
        return _mesh_groups(*match.groups())
    return (tuple(range(num_devices)),)


def permute_pairs(attributes: str) -> tuple[tuple[int, int], ...]:
    """Read who sends to whom in a collective-permute."""
    match = _PAIRS.search(attributes)
    return tuple((int(a), int(b)) for a, b in _PAIR.findall(match.group(1))) if match else ()


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


@lru_cache(maxsize=4096)
def _iota_groups(shape: str, reshape: str, transpose: str | None) -> Groups:
    """`[g,n]<=[a,b,..]T(p)`: count to a*b*.., reshape, transpose, reshape to g groups of n."""
    dims = _integers(reshape)
    devices = np.arange(np.prod(dims)).reshape(dims)
    if transpose:
        devices = devices.transpose(_integers(transpose))
    return _as_groups(devices.reshape(_integers(shape)[0], -1))


@lru_cache(maxsize=4096)
def _mesh_groups(mesh: str, axes: str) -> Groups:
    """Groups by the names of axes: `@mesh<"a"=2,"b"=4> {"b"}`, or in newer text `mesh['a'=2,'b'=4] {'b'}`.

    Part of an axis is `{"b":(2)2}`: the 2 after the first factor 2.
    """
    sizes = {name.strip().strip("\"'"): int(size) for name, size in (p.split("=") for p in mesh.split(","))}
    wanted: dict[str, list[tuple[int, int]]] = {}
    for name, pre, size in _SUB_AXIS.findall(axes):
        wanted.setdefault(name, []).append((int(pre or 1), int(size or sizes[name])))
    dims: list[int] = []
    grouped: list[int] = []
    for name, full in sizes.items():
        for size, is_grouped in _axis_factors(full, wanted.get(name, [])):
            if is_grouped:
                grouped.append(len(dims))
            dims.append(size)
    rest = [i for i in range(len(dims)) if i not in grouped]
    devices = np.arange(np.prod(dims)).reshape(dims).transpose([*rest, *grouped])
    return _as_groups(devices.reshape(-1, int(np.prod([dims[i] for i in grouped]))))


def _axis_factors(full: int, parts: list[tuple[int, int]]) -> list[tuple[int, bool]]:
    """Split an axis into factors, each grouped over or not; a part is (product of the factors before it, size)."""
    factors, done = [], 1
    for before, size in sorted(parts):
        factors += [(before // done, False), (size, True)]
        done = before * size
    return [*factors, (full // done, False)]


def _as_groups(devices: np.ndarray) -> Groups:
    return tuple(tuple(int(device) for device in row) for row in devices)


def group_axes(groups: Iterable[Sequence[int]], mesh: MeshAxes) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ; those of one device along no axis.

    >>> mesh = MeshAxes(names=("fsdp", "tensor"), sizes=(2, 4))
    >>> group_axes([(0, 1, 2, 3), (4, 5, 6, 7)], mesh), group_axes([(0, 4), (1, 5)], mesh)
    (('tensor',), ('fsdp',))
    """
    spanned: set[str] = set()
    for group in groups:
        coordinates = np.stack(np.unravel_index(np.asarray(group), mesh.sizes), axis=1)  # [devices, axes]
        differs = (coordinates != coordinates[0]).any(axis=0)
        spanned.update(itertools.compress(mesh.names, differs))
    return tuple(name for name in mesh.names if name in spanned)
