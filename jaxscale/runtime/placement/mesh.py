"""Devices to a mesh: the layout's innermost axes on the nearest devices."""

import logging
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

from jaxscale.errors import LayoutError
from jaxscale.types import AXES, Layout

_LOG = logging.getLogger(__name__)


def build_mesh(layout: Layout, devices: Sequence[jax.Device]) -> Mesh:
    """Arrange real or described devices as `layout.axis_order` says, innermost axis on neighbouring devices.

    On TPU the physical torus decides which devices are neighbours; elsewhere the order of `devices` does.
    """
    if layout.num_devices != len(devices):
        raise LayoutError(f"layout: {layout} needs {layout.num_devices} devices, got {len(devices)}")
    names = tuple(reversed(layout.axis_order))  # outermost first
    sizes = tuple(getattr(layout, name) for name in names)
    placed = _on_torus(sizes, devices) if devices[0].platform == "tpu" else np.asarray(devices).reshape(sizes)
    outermost_first = Mesh(placed, names)
    order = [names.index(axis) for axis in AXES]
    return Mesh(outermost_first.devices.transpose(order), AXES)


def _on_torus(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """Devices as an array of shape `sizes`, by their coordinates where the torus can be cut that way."""
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    try:
        if num_slices > 1:
            across, inside = split_over_slices(sizes, num_slices)
            return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    except (ValueError, NotImplementedError, AssertionError) as error:  # how JAX says that no cut of the torus fits
        _LOG.info("mesh %s placed in device order, not along the torus: %s", sizes, error)
        return np.asarray(devices).reshape(sizes)


def split_over_slices(sizes: tuple[int, ...], num_slices: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split axis sizes, outermost first, into the part across slices and the part inside one.

    >>> split_over_slices((2, 8, 4), 4)
    ((2, 2, 1), (1, 4, 4))
    """
    left, across = num_slices, []
    for size in sizes:
        part = math.gcd(size, left)
        across.append(part)
        left //= part
    if left > 1:
        raise ValueError(f"axis sizes {sizes} cannot be split over {num_slices} slices")
    return tuple(across), tuple(size // part for size, part in zip(sizes, across, strict=True))
