"""TPU slices: what a Cloud TPU name means, which topologies exist, and which of their dims close into a ring.

Cloud TPU counts TensorCores, two a chip, in the names of v2, v3, v4 and v5p, and chips in those of v5e and v6e, which
have one core a chip. For TPU7x the tools that name slices (xpk, MaxText, 2025) count TensorCores: tpu7x-128 is 64
chips. Shapes are from Google Cloud's page of each generation (2025-10); the choice among equally large shapes is the
one closest to a cube, which is also the one Cloud gives by default.

Wraparound links of the 3D generations run through optical switches, which join whole 4x4x4 cubes only: a shape with
a dim that is not a multiple of 4 has none. In v5e and v6e a dim wraps when it spans the pod's 16 chips ("How To
Scale Your Model", part 2); in v2 and v3 likewise the pod's 16 and 32.
"""

import functools
import math
import re
from dataclasses import dataclass

from jaxscale.errors import CatalogError, nearest

CUBE = 4
_SUB_CUBES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_ONE_CHIP = (1, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A TPU generation as slices are made of it."""

    chip: str
    prefix: str  # of names: v5p-64
    aot_prefix: str  # of the compiler's topology names: v5p:2x4x4
    cores_per_name: int  # what one unit of the name's number is: 2 = TensorCores, 1 = chips
    pod: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]  # of a 2D generation all; of a 3D one those smaller than a cube


GENERATIONS: dict[str, Generation] = {
    g.prefix: g
    for g in (
        Generation(
            chip="tpu-v2", prefix="v2", aot_prefix="v2", cores_per_name=2, pod=(16, 16),
            shapes=((2, 2), (4, 4), (8, 8), (8, 16), (16, 16)),
        ),
        Generation(
            chip="tpu-v3", prefix="v3", aot_prefix="v3", cores_per_name=2, pod=(32, 32),
            shapes=((2, 2), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)),
        ),
        Generation(chip="tpu-v4", prefix="v4", aot_prefix="v4", cores_per_name=2, pod=(16, 16, 16), shapes=_SUB_CUBES),
        Generation(
            chip="tpu-v5e", prefix="v5e", aot_prefix="v5e", cores_per_name=1, pod=(16, 16),
            shapes=((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)),
        ),
        Generation(
            chip="tpu-v5p", prefix="v5p", aot_prefix="v5p", cores_per_name=2, pod=(16, 20, 28),
            shapes=(_ONE_CHIP, *_SUB_CUBES),
        ),
        Generation(
            chip="tpu-v6e", prefix="v6e", aot_prefix="v6e", cores_per_name=1, pod=(16, 16),
            shapes=((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)),
        ),
        Generation(
            chip="tpu7x", prefix="tpu7x", aot_prefix="tpu7x", cores_per_name=2, pod=(16, 16, 36),
            shapes=(_ONE_CHIP, *_SUB_CUBES),
        ),
    )
}  # fmt: skip
_PREFIX_ALIASES = {"v5litepod": "v5e", "v7x": "tpu7x", "trillium": "v6e", "ironwood": "tpu7x"}
_NAME = re.compile(r"^(?:tpu-)?(?P<prefix>[a-z0-9]+?)(?:-(?P<number>\d{1,7})|:(?P<shape>\d+(?:x\d+)*))$")


def parse_slice(text: str) -> tuple[Generation, tuple[int, ...]] | None:
    """Read `v5p-64`, `v5p:32` (chips) or `v5p:2x4x4` as a generation and a topology; None if it names no generation."""
    match = _NAME.match(text)
    prefix = _PREFIX_ALIASES.get(match["prefix"], match["prefix"]) if match else ""
    if match is None or prefix not in GENERATIONS:
        return None
    generation = GENERATIONS[prefix]
    if match["shape"]:
        dims = tuple(map(int, match["shape"].split("x")))
        return generation, topology_of(generation, dims[0]) if len(dims) == 1 else check_topology(generation, dims)
    return generation, topology_of(generation, int(match["number"]), counted_in=generation.cores_per_name)


def topology_of(generation: Generation, number: int, *, counted_in: int = 1) -> tuple[int, ...]:
    """Return the topology of a slice of `number` chips (or of TensorCores, `counted_in` to a chip)."""
    sizes = sizes_of(generation)
    chips = number // counted_in if number % counted_in == 0 else 0
    if chips in sizes:
        return sizes[chips]
    below = [size for size in sizes if size * counted_in < number][-2:]
    above = [size for size in sizes if size * counted_in > number][:2]
    sign = "-" if counted_in == generation.cores_per_name else ":"
    names = ", ".join(f"{generation.prefix}{sign}{size * counted_in}" for size in (*below, *above))
    unit = "TensorCores (2 a chip)" if counted_in == 2 else "chips"
    raise CatalogError(f"cluster: no {generation.prefix} slice has {number} {unit}; nearby sizes: {names}")


def check_topology(generation: Generation, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` with its dims in the order of the catalogue, or raise if no such slice can be cut."""
    known = {tuple(sorted(s)): s for s in _shapes(generation)}
    ordered = known.get(tuple(sorted(shape)))
    if ordered is None:
        text = format_topology(shape)
        small = ", ".join(format_topology(s) for s in generation.shapes)
        rule = f"{small}, or every dim a multiple of {CUBE}" if len(generation.pod) == 3 else small
        hint = nearest(text, [format_topology(s) for s in known.values()])
        raise CatalogError(f"cluster '{generation.prefix}:{text}': no such slice; known topologies: {rule}.{hint}")
    return ordered


@functools.cache
def sizes_of(generation: Generation) -> dict[int, tuple[int, ...]]:
    """Every slice size in chips, ascending, with the shape closest to a cube."""
    best: dict[int, tuple[int, ...]] = {}
    for shape in sorted(_shapes(generation), key=lambda s: (math.prod(s), max(s), sum(s))):
        best.setdefault(math.prod(shape), shape)
    return best


def _shapes(generation: Generation) -> tuple[tuple[int, ...], ...]:
    """Every topology that can be cut. Cubes are rewired by the optical switches, so any product of whole cubes goes."""
    if len(generation.pod) == 2:
        return generation.shapes
    cubes = math.prod(generation.pod) // CUBE**3
    made = [
        (CUBE * a, CUBE * b, CUBE * c)
        for a in range(1, cubes + 1)
        for b in range(a, cubes // a + 1)
        for c in range(b, cubes // (a * b) + 1)
    ]
    return (*generation.shapes, *made)


def wraps(generation: Generation, shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Whether each dim of a slice closes into a ring."""
    if len(generation.pod) == 3:
        return (all(dim % CUBE == 0 for dim in shape),) * 3
    return tuple(dim == full for dim, full in zip(shape, generation.pod, strict=True))


def chips_per_host(generation: Generation, shape: tuple[int, ...]) -> int:
    """Chips of one TPU VM: 4, but 8 in the one-host v5e and v6e slice of 8 and 1 in that of 1."""
    chips = math.prod(shape)
    if chips < 4 or (generation.prefix in ("v5e", "v6e") and chips == 8):
        return chips
    return 4


def format_topology(shape: tuple[int, ...]) -> str:
    """Write a topology as Cloud TPU does.

    >>> format_topology((2, 4, 4))
    '2x4x4'
    """
    return "x".join(map(str, shape))


def slice_name(generation: Generation, shape: tuple[int, ...]) -> str:
    """The short name of a slice, with its topology where the short name would mean another one."""
    chips = math.prod(shape)
    if sizes_of(generation).get(chips) == shape:
        return f"{generation.prefix}-{chips * generation.cores_per_name}"
    return f"{generation.prefix}:{format_topology(shape)}"
