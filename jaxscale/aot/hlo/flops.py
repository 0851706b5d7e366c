"""Multiply-adds of one instruction, times two: matrix products, convolutions and kernels. Element-wise work is none."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jaxscale.aot.hlo.text import Computation, Instruction

KernelFlops = Callable[[Instruction, Computation], float | None]

_CUBLAS = re.compile(r"__cublas\$(gemm|lt\$matmul)")
_COST_ESTIMATE = re.compile(r'"cost_estimate":(\{[^}]*\})')
_WINDOW = re.compile(r"\b(\w+)=([\dx_\-]+)")
PALLAS_TARGETS = ("tpu_custom_call", "mosaic_gpu", "__gpu$xla.gpu.triton", "triton_kernel_call")
_ATTENTION_TARGETS = ("__cudnn$fmha",)


def is_kernel(instruction: Instruction) -> bool:
    """Whether it is a custom call that computes what the HLO text does not show."""
    target = instruction.custom_call_target
    return instruction.opcode == "custom-call" and target.startswith((*PALLAS_TARGETS, *_ATTENTION_TARGETS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matmul:
    """`groups` matrix products [m, k] x [k, n]; means where a convolution's edges meet padding."""

    m: float
    k: float
    n: float
    groups: float = 1.0

    @property
    def flops(self) -> float:
        """Multiply-adds times two."""
        return 2.0 * self.groups * self.m * self.k * self.n


def read_matmul(instruction: Instruction, computation: Computation) -> Matmul | None:
    """The matrix product that a dot, convolution, grouped matmul or library call makes; None for all else."""
    if instruction.opcode == "dot":
        batch = instruction.integers("lhs_batch_dims")
        return _contraction(instruction, computation, instruction.integers("lhs_contracting_dims"), batch)
    if instruction.opcode == "convolution":
        return _convolution(instruction, computation)
    if instruction.opcode == "ragged-dot":
        return _ragged_dot(instruction, computation)
    if instruction.opcode == "custom-call" and _CUBLAS.match(instruction.custom_call_target):
        contracted, batch = (_configured_dims(instruction, key) for key in ("lhs_contracting", "lhs_batch"))
        return _contraction(instruction, computation, contracted, batch)
    return None


def kernel_flops(instruction: Instruction, computation: Computation, given: KernelFlops | None) -> float | None:
    """FLOPs of a kernel: the caller's figure, else its own printed cost estimate, else None: it is not known."""
    if given is not None and (figure := given(instruction, computation)) is not None:
        return figure
    match = _COST_ESTIMATE.search(instruction.attributes)
    return float(json.loads(match.group(1)).get("flops", 0.0)) if match else None


def _configured_dims(instruction: Instruction, key: str) -> tuple[int, ...]:
    """Dims that cuBLAS calls print in their backend_config."""
    match = re.search(rf'"{key}_dimensions":(\[[^\]]*\])', instruction.attributes)
    return tuple(int(dim) for dim in json.loads(match.group(1))) if match else ()


def _contraction(
    instruction: Instruction, computation: Computation, contracted: tuple[int, ...], batch: tuple[int, ...]
) -> Matmul | None:
    lhs = computation.operand(instruction, 0)
    if lhs is None or not instruction.outputs:
        return None
    dims = lhs.outputs[0].dims
    k = math.prod(dims[dim] for dim in contracted)
    groups = math.prod(dims[dim] for dim in batch)
    m = lhs.outputs[0].size / (k * groups)
    return Matmul(m=m, k=float(k), n=instruction.outputs[0].size / (m * groups), groups=float(groups))


def _ragged_dot(instruction: Instruction, computation: Computation) -> Matmul | None:
    """Rows of `lhs` [m, k] meet one of the groups of `rhs` [g, k, n] each."""
    lhs, out = computation.operand(instruction, 0), instruction.outputs[0]
    if lhs is None:
        return None
    return Matmul(m=out.size / out.dims[-1], k=float(lhs.outputs[0].dims[-1]), n=float(out.dims[-1]))


def _convolution(instruction: Instruction, computation: Computation) -> Matmul | None:
    """The matmul of the window positions that meet data, not padding or dilation holes.

    The TPU compiler writes every matmul as a convolution, and a batched one with the batch as a spatial dim whose
    window meets one position only; counting all positions would multiply the FLOPs by the batch.
    """
    kernel = computation.operand(instruction, 1)
    source = computation.operand(instruction, 0)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if kernel is None or source is None or labels is None:
        return None
    source_labels, kernel_labels, out_labels = labels.groups()
    lhs, rhs, made = source.outputs[0], kernel.outputs[0], instruction.outputs[0]
    out, kernel_dims, source_dims = made.dims, rhs.dims, lhs.dims
    window = dict(_WINDOW.findall((re.search(r"window=\{([^}]*)\}", instruction.attributes) or [""])[0]))
    spatial = sorted(label for label in kernel_labels if label.isdigit())
    # out's batch and the kernel's `i` are already divided by batch_group_count and feature_group_count
    products = float(out[out_labels.index("b")] * out[out_labels.index("f")] * kernel_dims[kernel_labels.index("i")])
    for position, label in enumerate(spatial):
        products *= _positions_met(
            source_dims[source_labels.index(label)],
            kernel_dims[kernel_labels.index(label)],
            out[out_labels.index(label)],
            *_window_values(window, position, len(spatial)),
        )
    return _matmul_of_sizes(products, lhs.size, rhs.size, made.size)


def _matmul_of_sizes(products: float, lhs: int, rhs: int, out: int) -> Matmul | None:
    """The matmul of so many multiply-adds whose operands and output have these elements.

    A spatial dim may be heads of the weight, rows of the stream or a batch: which of m, k, n and groups it belongs to
    follows from the sizes of what it multiplies, `groups m k`, `groups k n` and `groups m n`.
    """
    if not products:
        return None
    m, k, n = products / rhs, products / out, products / lhs
    return Matmul(m=m, k=k, n=n, groups=products / (m * k * n))


def _window_values(window: dict[str, str], position: int, rank: int) -> tuple[int, int, int, int]:
    """Stride, low padding, input dilation and kernel dilation of one spatial dim."""

    def value(key: str, default: str) -> str:
        return window[key].split("x")[position] if key in window else default

    low = value("pad", "0_0").split("_")[0]
    return int(value("stride", "1")), int(low), int(value("lhs_dilate", "1")), int(value("rhs_dilate", "1"))


@lru_cache(maxsize=4096)
def _positions_met(
    source: int, kernel: int, out: int, stride: int, low_pad: int, source_dilation: int, kernel_dilation: int
) -> int:
    """Pairs (output, kernel position) of one spatial dim whose input is an element of the source."""
    if stride == source_dilation == kernel_dilation == 1:
        return sum(max(0, min(source, o - low_pad + kernel) - max(0, o - low_pad)) for o in range(out))
    last = (source - 1) * source_dilation
    offsets = np.arange(kernel) * kernel_dilation - low_pad
    met = 0
    for o in range(out):
        positions = o * stride + offsets
        met += np.count_nonzero((positions >= 0) & (positions <= last) & (positions % source_dilation == 0))
    return met
