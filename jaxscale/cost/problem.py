"""Everything about a step but its layout, as numbers: the model, the workload, one device, its networks, the software.

Every field is a number or an array [n]: one layout, ten million layouts of one model, and a table of a thousand
different runs go through the same formulas. `xp` is the array namespace, numpy for ranking and jax.numpy where
gradients with respect to the stack's constants are wanted.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from jaxscale.cost.inventory import Inventory, inventory
from jaxscale.cost.network import Level, cluster_levels
from jaxscale.cost.numbers import Number, stack_numbers
from jaxscale.types import Cluster, ModelShape, Stack, Workload, default_stack

_FLOAT32 = 4.0
STATIC_CONSTANTS = ("name", "attention_kernel", "spmd", "source")  # of a Stack: words and switches, not numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What one JAX device offers: a chip's figures over its devices."""

    kind: str  # tpu, gpu, cpu; rows of one batch share it
    peak_flops_per_s: Number  # at the matmul format of the workload, and the clock that the power limit allows
    attention_flops_per_s: Number  # the same in bf16 (or fp32), in which attention and logits stay
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
    capacity_factor: Number
    device: Device
    levels: tuple[Level, ...]
    num_chips: Number
    devices_per_chip: Number
    dollars_per_chip_hour: Number
    peak_flops_per_chip: Number  # the denominator of MFU
    stack: Any  # a Stack, or anything with its fields as numbers, arrays or tracers
    batched: bool = False  # rows are different runs, so that nothing can be shared between them
    xp: ModuleType = np

    @property
    def tokens_per_step(self) -> Number:
        """Tokens that one optimizer step sees."""
        return self.seq_len * self.global_batch_size


def problem(shape: ModelShape, workload: Workload, cluster: Cluster, stack: Stack | None = None) -> Problem:
    """Read the numbers off the value types; without a `stack` jaxscale's own training step is meant."""
    stack = stack or cluster.stack or default_stack(cluster.chip.kind)
    chip, precision = cluster.chip, workload.precision
    per_device = 1.0 / chip.devices_per_chip
    attention_format = "fp32" if precision.matmul == "fp32" else "bf16"
    device = Device(
        kind=chip.kind,
        peak_flops_per_s=chip.peak(precision.matmul) * per_device * chip.sustained,
        attention_flops_per_s=chip.peak(attention_format) * per_device * chip.sustained,
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
        state_bytes=_state_bytes(workload, stack),
        factored=workload.optimizer.factored,
        capacity_factor=workload.capacity_factor or 1.0,
        device=device,
        levels=cluster_levels(cluster),
        num_chips=float(cluster.num_chips),
        devices_per_chip=float(chip.devices_per_chip),
        dollars_per_chip_hour=cluster.dollars_per_chip_hour,
        peak_flops_per_chip=chip.peak(precision.matmul),
        stack=stack,
    )


def _state_bytes(workload: Workload, stack: Stack) -> float:
    """Bytes of optimizer state for each parameter: optax keeps it in the format of the master weights."""
    width = workload.precision.master_bytes / _FLOAT32 if stack.spmd else 1.0
    return workload.optimizer.state_bytes * width


def stack_problems(problems: Sequence[Problem]) -> Problem:
    """Stack problems of one structure (ops, network kinds, software) into one with arrays [n]."""
    first = problems[0]
    arrays = {
        f.name: np.array([getattr(p, f.name) for p in problems])
        for f in dataclasses.fields(Problem)
        if f.name not in ("inventory", "device", "levels", "stack", "factored", "batched", "xp")
    }
    levels = tuple(
        dataclasses.replace(
            level, **_stack([p.levels[i] for p in problems], ("size", "bytes_per_s", "latency_s", "wrap"))
        )
        for i, level in enumerate(first.levels)
    )
    numeric = [f.name for f in dataclasses.fields(Device) if f.name != "kind"]
    constants = [f.name for f in dataclasses.fields(Stack) if f.name not in STATIC_CONSTANTS]
    static = {name: getattr(first.stack, name) for name in STATIC_CONSTANTS}
    return Problem(
        inventory=inventory(stack_numbers([p.inventory.numbers for p in problems])),
        device=dataclasses.replace(first.device, **_stack([p.device for p in problems], numeric)),
        levels=levels,
        stack=SimpleNamespace(**static, **_stack([p.stack for p in problems], constants)),
        factored=first.factored,
        batched=True,
        **arrays,
    )


def _stack(rows: Sequence[Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: np.array([float(getattr(row, name)) for row in rows]) for name in names}


def structure_of(p: Problem) -> tuple:
    """What rows of one batch must share; group runs by it before `stack_problems`."""
    levels = tuple((level.name, level.torus) for level in p.levels)
    static = (p.stack.attention_kernel, p.stack.spmd)
    return (p.inventory.numbers.structure, p.device.kind, p.factored, levels, static)
