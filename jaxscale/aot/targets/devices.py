"""The devices of a target, inside the compiling process: the only module that starts a compiler plugin."""

from collections.abc import Sequence
from typing import Any

from jaxscale.aot.targets import Target, unknown_topology
from jaxscale.errors import CompileError


def describe_devices(target: Target) -> Sequence[Any]:
    """Return described TPU or GPU devices, or emulated CPU ones. The process's environment must be the target's."""
    import jax

    if target.backend == "cpu":
        jax.config.update("jax_num_cpu_devices", target.num_devices)
        return jax.devices()
    if target.backend == "gpu":
        return _gpu_devices(target)
    return _tpu_devices(target)


def _tpu_devices(target: Target) -> Sequence[Any]:
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if target.num_slices > 1:
        options["num_slices"] = target.num_slices
    if target.one_device_a_chip:
        options["chip_config_name"] = "megacore"
    try:
        described = topologies.get_topology_desc(topology_name=target.topology, platform="tpu", **options)
    except RuntimeError as error:
        raise unknown_topology(target.topology, str(error).splitlines()[0]) from error
    if len(described.devices) != target.num_devices:
        raise CompileError(
            f"aot_topology={target.topology!r} is {len(described.devices)} devices to the TPU compiler, "
            f"but the cluster has {target.num_devices}"
        )
    return described.devices


def _gpu_devices(target: Target) -> Sequence[Any]:
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        "gpu", platform="cuda", target_config=target.gpu_config, topology=target.topology
    )
    return described.devices
