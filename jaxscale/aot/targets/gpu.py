"""GPUs described to XLA's compiler without one at hand: the text of its `GpuTargetConfigProto`.

Limits per compute capability are from NVIDIA's CUDA C++ Programming Guide 12.8, table "Technical Specifications per
Compute Capability"; L2 sizes from the A100 (2020) and H100 (2022) architecture whitepapers, and of Blackwell from the
DGX B200 documentation (126 MB). Cores, clock and memory are the chip's own, from the catalogue.
"""

from dataclasses import dataclass

from jaxscale.errors import CompileError
from jaxscale.types import Chip

_KIB, _MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What GPUs of one compute capability share."""

    name: str
    chips: tuple[str, ...]  # prefixes of chip names
    major: int
    shared_bytes_per_core: int
    shared_bytes_per_block: int  # the most one block may ask for
    float32_units_per_core: int
    l2_bytes: int
    accelerated: bool  # has architecture-specific features (sm_90a, sm_100a)


ARCHITECTURES = (
    Architecture(
        name="Ampere", chips=("a100",), major=8, shared_bytes_per_core=164 * _KIB, shared_bytes_per_block=163 * _KIB,
        float32_units_per_core=64, l2_bytes=40 * _MIB, accelerated=False,
    ),
    Architecture(
        name="Hopper", chips=("h100", "h200", "gh200"), major=9, shared_bytes_per_core=228 * _KIB,
        shared_bytes_per_block=227 * _KIB, float32_units_per_core=128, l2_bytes=50 * _MIB, accelerated=True,
    ),
    Architecture(
        name="Blackwell", chips=("b200", "gb200"), major=10, shared_bytes_per_core=228 * _KIB,
        shared_bytes_per_block=227 * _KIB, float32_units_per_core=128, l2_bytes=126 * _MIB, accelerated=True,
    ),
)  # fmt: skip

_TEMPLATE = """gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_per_core}
  shared_memory_per_block_optin: {shared_per_block}
  core_count: {cores}
  fpus_per_core: {units}
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock_ghz}
  device_memory_size: {memory}
  cuda_compute_capability {{
    major: {major}
    minor: 0{feature}
  }}
}}
platform_name: "CUDA"
device_description_str: "{name}"
"""


def target_config(chip: Chip) -> str:
    """The compiler's description of a GPU."""
    architecture = next((a for a in ARCHITECTURES if chip.name.startswith(a.chips)), None)
    if architecture is None:
        known = ", ".join(name for a in ARCHITECTURES for name in a.chips)
        raise CompileError(f"chip {chip.name!r} cannot be described to the GPU compiler; it can be for {known}")
    return _TEMPLATE.format(
        name=chip.name,
        cores=chip.num_cores,
        clock_ghz=chip.clock_hz / 1e9,
        memory=round(chip.hbm_bytes),
        bandwidth=round(chip.hbm_bytes_per_s),
        units=architecture.float32_units_per_core,
        shared_per_core=architecture.shared_bytes_per_core,
        shared_per_block=architecture.shared_bytes_per_block,
        l2=architecture.l2_bytes,
        major=architecture.major,
        feature="\n    feature_extension: ACCELERATED_FEATURES" if architecture.accelerated else "",
    )
