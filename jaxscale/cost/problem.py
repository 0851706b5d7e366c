"""Everything about a step but its layout, as numbers: the model, the workload, one device, its networks, the software.

Every field is a number or an array [n]: one layout, ten million layouts of one model, and a table of a thousand
different runs go through the same formulas. `xp` is the array namespace, numpy for ranking and jax.numpy where
gradients with respect to the stack's constants are wanted.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from jaxscale.cost.inventory import Inventory, inventory
from jaxscale.cost.network import Level, cluster_levels
from jaxscale.cost.numbers import Number
from jaxscale.types import Cluster, ModelShape, Stack, Workload, default_stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What one JAX device offers: a chip's figures over its devices."""

    kind: str  # tpu, gpu, cpu; rows of one batch share it
    peak_flops_per_s: Number  # at the matmul format of the workload
    attention_flops_per_s: Number  # fused attention stays in bf16 (or fp32)
    vector_flops_per_s: Number
    hbm_bytes_per_s: Number
    usable_hbm_bytes: Number
    host_bytes_per_s: Number
    num_cores: Number
    matmul_tile: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A step to be priced, for any layout."""

    inventory: Inventory
    seq_len: Number
    global_batch_size: Number
    compute_bytes: Number
    master_bytes: Number
    grad_bytes: Number
    reduce_bytes: Number
    state_bytes: Number  # optimizer state per parameter
    factored: bool
    optimizer_flops: Number
    capacity_factor: Number
    device: Device
    levels: tuple[Level, ...]
    num_chips: Number
    devices_per_chip: Number
    dollars_per_chip_hour: Number
    peak_flops_per_chip: Number  # the denominator of MFU
    stack: Any  # a Stack, or anything with its fields as numbers, arrays or tracers
    xp: ModuleType = np

    @property
    def tokens_per_step(self) -> Number:
        """Tokens that one optimizer step sees."""
        return self.seq_len * self.global_batch_size


def problem(shape: ModelShape, workload: Workload, cluster: Cluster, stack: Stack | None = None) -> Problem:
    """Read the numbers off the value types; without a `stack` jaxscale's own training step is meant."""
    chip, precision = cluster.chip, workload.precision
    per_device = 1.0 / chip.devices_per_chip
    attention_format = "fp32" if precision.matmul == "fp32" else "bf16"
    device = Device(
        kind=chip.kind,
        peak_flops_per_s=chip.peak(precision.matmul) * per_device,
        attention_flops_per_s=chip.peak(attention_format) * per_device,
        vector_flops_per_s=chip.vector_flops_per_s * per_device,
        hbm_bytes_per_s=chip.hbm_bytes_per_s * per_device,
        usable_hbm_bytes=chip.usable_hbm_bytes * per_device,
        host_bytes_per_s=chip.host_bytes_per_s * per_device,
        num_cores=float(chip.num_cores) * per_device,
        matmul_tile=float(chip.matmul_tile),
    )
    return Problem(
        inventory=inventory(shape),
        seq_len=float(workload.seq_len),
        global_batch_size=float(workload.global_batch_size),
        compute_bytes=float(precision.compute_bytes),
        master_bytes=float(precision.master_bytes),
        grad_bytes=float(precision.grad_bytes),
        reduce_bytes=float(precision.reduce_bytes),
        state_bytes=float(workload.optimizer.state_bytes),
        factored=workload.optimizer.factored,
        optimizer_flops=float(workload.optimizer.flops_per_param),
        capacity_factor=workload.capacity_factor or 1.0,
        device=device,
        levels=cluster_levels(cluster),
        num_chips=float(cluster.num_chips),
        devices_per_chip=float(chip.devices_per_chip),
        dollars_per_chip_hour=cluster.dollars_per_chip_hour,
        peak_flops_per_chip=chip.peak(precision.matmul),
        stack=stack or default_stack(chip.kind),
    )
