"""Array types as HLO prints them: `bf16[4,128,512]{2,1,0:T(8,128)(2,1)S(1)}` and tuples of such."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

# Bits of one element. Types that hold no array data (token, opaque) have none.
_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "f4e2m1fn": 4, "f8e3m4": 8, "f8e4m3": 8, "f8e4m3b11fnuz": 8, "f8e4m3fn": 8,
    "f8e4m3fnuz": 8, "f8e5m2": 8, "f8e5m2fnuz": 8, "f8e8m0fnu": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64,
    "c64": 64, "c128": 128,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=\s]*)\](?:\{([^}]*)\})?")
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")

DEVICE_MEMORY = 0  # HBM; other numbers are on-chip memories (TPU: 1 is VMEM) or the host
HOST_MEMORY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayType:
    """One array: element type, dims and the memory it lives in (0 is the device's main memory)."""

    dtype: str
    dims: tuple[int, ...]
    memory_space: int = DEVICE_MEMORY

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """Bytes of the elements, without tiling or padding."""
        return -(-self.size * _BITS.get(self.dtype, 0) // 8)


@lru_cache(maxsize=65536)
def parse_type(text: str) -> tuple[ArrayType, ...]:
    """Read the arrays of a type, a tuple's in order and flattened.

    >>> [array.dims for array in parse_type("(f32[8,128]{1,0}, s32[])")]
    [(8, 128), ()]
    """
    return tuple(
        ArrayType(dtype=dtype, dims=_dims(dims), memory_space=_memory_space(layout))
        for dtype, dims, layout in _ARRAY.findall(text)
    )


def _dims(text: str) -> tuple[int, ...]:
    """Sizes of an array's dims; a bounded dynamic size `<=n` counts as n."""
    return tuple(int(size.strip().removeprefix("<=")) for size in text.split(",") if size.strip())


def _memory_space(layout: str) -> int:
    match = _MEMORY_SPACE.search(layout)
    return int(match.group(1)) if match else DEVICE_MEMORY
