"""Which compiler a cluster is compiled with, and the devices it is told of.

TPU slices are described to libtpu, GPU clusters to JAX's CUDA plugin; neither needs the hardware. Emulated clusters
are the CPU backend's devices, and so is a TPU slice where libtpu cannot be had; the answer then says what holds.
"""

import importlib.util
from dataclasses import dataclass
from typing import Literal

from jaxscale.aot.targets.gpu import target_config
from jaxscale.errors import CompileError, nearest
from jaxscale.types import Cluster

MAX_EMULATED_DEVICES = 512  # the CPU backend makes a thread pool for each

# Topology names that libtpu 0.0.52 accepts, as tried; a 3D generation knows every cuboid of cubes besides.
KNOWN_TOPOLOGIES: dict[str, tuple[str, ...]] = {
    "v2": ("2x2",),
    "v3": ("2x2",),
    "v4": ("2x2x1", "4x4x4", "4x4x8"),
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x16x16", "16x16x24", "16x20x28"),
    "v6e": ("1x1", "2x2", "2x4", "16x16"),
    "tpu7x": ("2x2x1", "4x4x4", "4x4x8", "8x8x16"),
}
_CPU_NOTE = (
    "the CPU backend compiled it: arguments, FLOPs, and the kind, axes and count of collectives hold for a real "
    "device; temporaries, the peak, what overlaps, and the bytes of bf16 collectives (sent as float32) do not"
)

_GPU_NOTE = "the GPU compiler knows no memory limit: the verdict compares its peak with the chip's memory"
_NO_CUDNN_NOTE = "cuDNN is not installed (`pip install nvidia-cudnn-cu12`), so attention is XLA's own, not cuDNN's"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A compiler and the devices described to it."""

    backend: Literal["tpu", "gpu", "cpu"]
    num_devices: int
    topology: str = ""  # TPU: name of one slice; GPU: slices x hosts x chips
    num_slices: int = 1
    one_device_a_chip: bool = False  # TPU v2 to v4: the two cores of a chip as one device
    gpu_config: str = ""  # GPU: the chip as the compiler describes it
    attention: str = ""  # kernel of the zoo's registry; empty: the runtime's choice for the platform
    note: str = ""  # what of the answer does not hold for the cluster

    @property
    def environment(self) -> dict[str, str]:
        """What the compiling process needs in its environment."""
        shared = {"JAX_PLATFORMS": "cpu"}
        if self.backend == "tpu":
            return shared | {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        if self.backend == "gpu":
            return shared | {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
        return shared


def target_of(cluster: Cluster) -> Target:
    """Choose the compiler for a cluster."""
    kind = cluster.chip.kind
    if kind == "tpu" and importlib.util.find_spec("libtpu"):
        return Target(
            backend="tpu",
            num_devices=cluster.num_devices,
            topology=cluster.aot_topology,
            num_slices=cluster.num_slices,
            one_device_a_chip=cluster.chip.devices_per_chip == 1
            and cluster.aot_topology.startswith(("v2", "v3", "v4")),
        )
    if kind == "gpu" and cuda_plugin():
        nodes = cluster.num_chips // cluster.chips_per_host
        return Target(
            backend="gpu",
            num_devices=cluster.num_devices,
            topology=f"1x{nodes}x{cluster.chips_per_host}",
            gpu_config=target_config(cluster.chip),
            attention="" if has_cudnn() else "xla",
            note=_GPU_NOTE if has_cudnn() else f"{_GPU_NOTE}; {_NO_CUDNN_NOTE}",
        )
    return _emulated(cluster)


def cuda_plugin() -> str | None:
    """Name of the installed CUDA plugin module, if any."""
    for name in ("xla_cuda13", "xla_cuda12"):
        try:
            if importlib.util.find_spec(f"jax_plugins.{name}"):
                return name
        except ModuleNotFoundError:
            return None
    return None


def has_cudnn() -> bool:
    """Whether the library that fused attention on GPU is compiled against can be had."""
    try:
        return importlib.util.find_spec("nvidia.cudnn") is not None
    except ModuleNotFoundError:
        return False


def _emulated(cluster: Cluster) -> Target:
    missing = {
        "tpu": "libtpu is not installed (`pip install libtpu`, Linux on x86-64), so ",
        "gpu": "JAX's CUDA plugin is not installed (`pip install jax-cuda12-plugin jax-cuda12-pjrt`), so ",
        "cpu": "",
    }[cluster.chip.kind]
    if cluster.num_devices > MAX_EMULATED_DEVICES:
        raise CompileError(
            f"cluster {cluster.name!r}: {missing}only the CPU backend could compile for it, which takes up to "
            f"{MAX_EMULATED_DEVICES} devices; it has {cluster.num_devices}"
        )
    return Target(backend="cpu", num_devices=cluster.num_devices, note=missing + _CPU_NOTE)


def unknown_topology(topology: str, reason: str) -> CompileError:
    """The error for a slice that the TPU compiler refuses, with those it is known to take."""
    generation = topology.partition(":")[0]
    known = KNOWN_TOPOLOGIES.get(generation, ())
    names = [f"{generation}:{shape}" for shape in known] or sorted(KNOWN_TOPOLOGIES)
    hint = nearest(topology, names, count=1)
    return CompileError(
        f"aot_topology={topology!r}: the TPU compiler does not know it ({reason}); it knows {', '.join(names)}.{hint}"
    )
