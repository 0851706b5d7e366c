"""What it is trained on: a chip, the networks that join chips, and a cluster of them."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from jaxscale.errors import SpecError
from jaxscale.types._check import require_choice, require_positive, require_positive_int
from jaxscale.types.stack import Stack

ChipKind = Literal["tpu", "gpu", "cpu"]
TierKind = Literal["torus", "switch", "memory"]

# Passes over its payload that a collective takes where devices share one memory, as XLA's CPU client has it: a gather
# reads and writes all of it on every device, a scatter reads all and writes a share, a permute only hands on.
SHARED_MEMORY_PASSES = {
    "all-gather": 2.0, "all-reduce": 2.0, "all-to-all": 2.0, "reduce-scatter": 1.0, "collective-permute": 1.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One priced accelerator. Peaks are dense (no sparsity) vendor figures; `source` says where each comes from.

    `peak_flops_per_s` maps a matmul format (bf16, fp8, fp32, int8) to FLOP/s of the whole chip. A chip may be several
    devices to JAX (`devices_per_chip`): a TPU7x chip is two. Memory and peaks are of the whole chip.
    """

    name: str
    kind: ChipKind
    peak_flops_per_s: dict[str, float]
    vector_flops_per_s: float  # element-wise units, float32
    hbm_bytes: float
    usable_hbm_bytes: float  # what a program can allocate: HBM less what runtime and firmware reserve
    hbm_bytes_per_s: float
    host_bytes_per_s: float  # one way, chip to host memory
    matmul_tile: int = 128  # granularity at which the matrix unit is filled
    num_cores: int = 1  # SMs or TensorCores
    clock_hz: float = 0.0
    devices_per_chip: int = 1
    power_w: float = 0.0
    sustained: float = 1.0  # clock that dense matmuls hold under the power limit, relative to the family's main chip
    dollars_per_hour: float = 0.0  # public on-demand price, for comparison only; 0 = unknown
    source: str = ""

    def __post_init__(self) -> None:
        owner = f"chip {self.name!r}"
        require_choice(owner, allowed=get_args(ChipKind), kind=self.kind)
        require_positive(
            owner,
            vector_flops_per_s=self.vector_flops_per_s,
            hbm_bytes=self.hbm_bytes,
            usable_hbm_bytes=self.usable_hbm_bytes,
            hbm_bytes_per_s=self.hbm_bytes_per_s,
            host_bytes_per_s=self.host_bytes_per_s,
            sustained=self.sustained,
        )
        require_positive(owner, allow_zero=True, power_w=self.power_w, dollars_per_hour=self.dollars_per_hour)
        require_positive_int(owner, devices_per_chip=self.devices_per_chip, matmul_tile=self.matmul_tile)
        if not self.peak_flops_per_s:
            raise SpecError(f"{owner}: peak_flops_per_s is empty")
        require_positive(owner, **{f"peak_flops_per_s_{k}": v for k, v in self.peak_flops_per_s.items()})

    def peak(self, matmul: str) -> float:
        """Peak FLOP/s at a matmul format; a chip without fp8 units runs fp8 models at its bf16 rate."""
        if matmul in self.peak_flops_per_s:
            return self.peak_flops_per_s[matmul]
        if matmul == "fp8":
            return self.peak_flops_per_s["bf16"]
        known = ", ".join(self.peak_flops_per_s)
        raise SpecError(f"chip {self.name!r} has no peak for {matmul}; known: {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One level of network, innermost first in a cluster.

    torus: `shape` are the chips along each dim, `wrap` whether the dim closes into a ring; `bytes_per_s` is one link,
    one direction. switch: `shape` has one entry, the members it joins; `bytes_per_s` is one chip's share, one
    direction. `latency_s` is one hop. memory: emulated devices in one process; `bytes_per_s` is one device's passes
    while all of them copy, `latency_s` is lost for every device that is waited for.
    """

    name: str  # ici, dcn, nvlink, ib, pcie, host
    kind: TierKind
    shape: tuple[int, ...]
    bytes_per_s: float
    latency_s: float
    wrap: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        owner = f"tier {self.name!r}"
        require_choice(owner, allowed=get_args(TierKind), kind=self.kind)
        require_positive(owner, bytes_per_s=self.bytes_per_s)
        require_positive(owner, allow_zero=True, latency_s=self.latency_s)
        for size in self.shape:
            require_positive_int(owner, shape=size)
        if self.kind != "torus" and len(self.shape) != 1:
            raise SpecError(f"{owner}: a {self.kind} has one size, got shape={self.shape}")
        if self.kind == "torus" and len(self.wrap) != len(self.shape):
            raise SpecError(f"{owner}: wrap={self.wrap} needs one value for each dim of shape={self.shape}")

    @property
    def size(self) -> int:
        """Members of one group at this tier."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Chips and the networks that join them: `num_chips` is the product of the tiers' sizes.

    `aot_topology` is the name that the TPU compiler knows the slice by (empty elsewhere); `note` tells in words
    what a short name meant ("v5p-64 is 64 TensorCores = 32 chips, 2x4x4"). `stack` holds the constants of jaxscale's
    own training step as `jaxscale probe` fitted them here; without it they are those that ship for the chip.
    """

    name: str
    chip: Chip
    tiers: tuple[Tier, ...]
    chips_per_host: int = 1
    dollars_per_chip_hour: float = 0.0
    aot_topology: str = ""
    num_slices: int = 1
    note: str = ""
    stack: Stack | None = None

    def __post_init__(self) -> None:
        owner = f"cluster {self.name!r}"
        if not self.tiers:
            raise SpecError(f"{owner}: at least one network tier is needed")
        require_positive_int(owner, chips_per_host=self.chips_per_host, num_slices=self.num_slices)
        require_positive(owner, allow_zero=True, dollars_per_chip_hour=self.dollars_per_chip_hour)

    @property
    def num_chips(self) -> int:
        """Chips in the whole cluster."""
        return math.prod(tier.size for tier in self.tiers)

    @property
    def num_devices(self) -> int:
        """What `len(jax.devices())` would print."""
        return self.num_chips * self.chip.devices_per_chip
