"""The kernel registry: which program runs attention, dense matmuls and grouped matmuls on which platform."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxscale.errors import SpecError, nearest
from jaxscale.types import ModelShape
from jaxscale.zoo.kernels.flash import LANES, cudnn_attention, splash_attention
from jaxscale.zoo.kernels.fp8 import fp8_matmul
from jaxscale.zoo.kernels.plain import AttentionKernel, plain_attention

Array = jax.Array
Entry = TypeVar("Entry")

GroupedMatmul = Callable[[Array, Array, Array], Array]  # rows [m, D], weights [E, D, F], sizes [E] -> [m, F]
Matmul = Callable[[str, Array, Array], Array]  # einsum equation, activations, weights

GMM_ROWS = 512  # rows of a megablox tile; the row count is padded to a multiple
CUDNN_MAX_HEAD_DIM = 256


def ragged_dot(rows: Array, weights: Array, sizes: Array) -> Array:
    """XLA's own grouped matmul."""
    return jax.lax.ragged_dot(rows, weights, sizes)


def megablox(rows: Array, weights: Array, sizes: Array, *, interpret: bool = False) -> Array:
    """The Pallas grouped matmul for TPU (MegaBlocks, arXiv 2211.15841); `interpret` runs it without one."""
    from jax.experimental.pallas.ops.tpu.megablox import gmm

    m = rows.shape[0]
    tile = min(GMM_ROWS, -(-m // 8) * 8)
    padded = jnp.pad(rows, ((0, -m % tile), (0, 0)))
    tiling = (tile, min(rows.shape[1], GMM_ROWS), min(weights.shape[2], GMM_ROWS))
    return gmm(padded, weights, sizes, rows.dtype, tiling, None, None, False, interpret)[:m]


def native_matmul(equation: str, x: Array, weight: Array) -> Array:
    """Matmul in the operands' own dtype."""
    return jnp.einsum(equation, x, weight)


ATTENTION_KERNELS: dict[str, AttentionKernel] = {
    "xla": plain_attention,
    "cudnn": cudnn_attention,
    "splash": splash_attention,
}
GROUPED_MATMULS: dict[str, GroupedMatmul] = {"ragged_dot": ragged_dot, "megablox": megablox}
MATMULS: dict[str, Matmul] = {"native": native_matmul, "fp8": fp8_matmul}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a model runs, as opposed to what it is: kernels and the mixture of experts' dispatch.

    `capacity_factor` is the size of an expert's buffer over its mean load; tokens beyond it are dropped. 0 = dropless.
    """

    attention: str = "xla"
    grouped_matmul: str = "ragged_dot"
    matmul: str = "native"
    capacity_factor: float = 0.0


def execution_for(
    shape: ModelShape,
    platform: str,
    *,
    seq_len: int,
    compute_bytes: int = 2,
    matmul_format: str = "bf16",
    capacity_factor: float = 0.0,
) -> Execution:
    """The fastest kernels that can run a model on a platform, "cpu", "gpu" or "tpu"; plain XLA where none can.

    `seq_len` is the tokens an attention call sees; `compute_bytes` the width of an activation; `matmul_format` is
    `Precision.matmul`: "fp8" rounds the operands of dense matmuls, any other is the activations' own dtype.
    """
    if platform not in ("cpu", "gpu", "tpu"):
        raise SpecError(f"platform={platform!r} is not one of cpu, gpu, tpu")
    width = shape.mla.qk_head_dim if shape.mla else shape.head_dim
    plain = shape.positions == "alibi" or platform == "cpu"
    attention = "xla"
    if platform == "tpu" and not plain and seq_len % LANES == 0:
        attention = "splash"
    special = plain or shape.attention_softcap or shape.attention_sinks
    if platform == "gpu" and not special and compute_bytes == 2 and width <= CUDNN_MAX_HEAD_DIM and width % 8 == 0:
        attention = "cudnn"
    grouped = "megablox" if platform == "tpu" else "ragged_dot"
    return Execution(
        attention=attention,
        grouped_matmul=grouped,
        matmul="fp8" if matmul_format == "fp8" else "native",
        capacity_factor=capacity_factor,
    )


def _entry(field: str, name: str, table: Mapping[str, Entry]) -> Entry:
    if name not in table:
        raise SpecError(f"{field}={name!r} is not one of {', '.join(table)}.{nearest(name, table, count=1)}")
    return table[name]


def attention_kernel(name: str) -> AttentionKernel:
    """Look an attention kernel up by name."""
    return _entry("attention", name, ATTENTION_KERNELS)


def for_any_positions(kernel: AttentionKernel) -> AttentionKernel:
    """`kernel`, or plain attention in the place of one that masks by the index of a token only."""
    return plain_attention if kernel is splash_attention else kernel


def grouped_matmul(name: str) -> GroupedMatmul:
    """Look a grouped matmul up by name."""
    return _entry("grouped_matmul", name, GROUPED_MATMULS)


def matmul(execution: Execution) -> Matmul:
    """The matmul of dense weights."""
    return _entry("matmul", execution.matmul, MATMULS)
