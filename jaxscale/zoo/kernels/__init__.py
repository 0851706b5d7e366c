"""Attention, grouped matmuls and 8-bit matmuls, and the registry that picks them by platform."""

from jaxscale.zoo.kernels.plain import (
    AttentionInputs,
    AttentionKernel,
    AttentionSpec,
    apply_sinks,
    block_backward,
    block_forward,
    merge_blocks,
    row_delta,
)
from jaxscale.zoo.kernels.registry import (
    Execution,
    attention_kernel,
    execution_for,
    for_any_positions,
    grouped_matmul,
    matmul,
)

__all__ = [
    "AttentionInputs",
    "AttentionKernel",
    "AttentionSpec",
    "Execution",
    "apply_sinks",
    "attention_kernel",
    "block_backward",
    "block_forward",
    "execution_for",
    "for_any_positions",
    "grouped_matmul",
    "matmul",
    "merge_blocks",
    "row_delta",
]
