"""How weights are split over the chips that serve a model, and what each pass then moves between chips.

Partitionings of Pope et al. 2022, "Efficiently Scaling Transformer Inference" (arXiv 2211.05102, section 3.2).
Notation: n chips = x * y, b sequences, t new tokens of each, D d_model, and the inner widths of a block: S_in columns
that read the residual stream (gate and up, or q, k, v), S_out rows that write it; w = D (S_in + S_out) weights.

| partitioning | what a chip holds | elements one chip moves for one block |
|---|---|---|
| 1d weight-stationary | S / n | 2 b t D |
| 2d weight-stationary | D / x, S / y | 2 b t D / x over y, and b t (S_in + S_out) / y over x |
| weight-gathered | as 2d; gathers weights over N of n | w N / n + 2 b t D / N |

With S_in = S_out = F = 4 D and balanced x the second is the paper's 8 b t D / sqrt(n), the third its
4 D sqrt(b t F / n). On a torus a collective over some of the axes has only those axes' links: the x of a 2d
partitioning is one or more whole axes, and each of its collectives gets its share of the chip's bandwidth.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jaxscale.cost.inventory import count_parameters
from jaxscale.cost.numbers import shape_numbers
from jaxscale.types import ModelShape

Partition = Literal["1d", "2d", "weight_gathered"]
ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """The network that joins the chips of one replica; `torus_axes` is 0 behind a switch."""

    num_chips: int
    bytes_per_s: float  # out of one chip, over all its links, as reached
    torus_axes: int
    hop_s: float

    def split(self) -> Iterator[tuple[float, float, float, float]]:
        """Ways to cut the chips in x * y: (x, share of bandwidth over x, the same over y, hops of one pair)."""
        n = self.num_chips
        if not self.torus_axes:
            for x in (2.0**i for i in range(n.bit_length()) if 2**i <= n):
                yield x, 1.0, 1.0, x + n / x - 2.0
            return
        edge = n ** (1.0 / self.torus_axes)
        for axes in range(1, self.torus_axes):
            share = axes / self.torus_axes
            yield edge**axes, share, 1.0 - share, self.torus_axes * (edge - 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One group of matmuls between two collectives: attention, MLP, or both of a parallel block."""

    inner_in: float  # columns that read the residual stream
    inner_out: float  # rows that write it
    count: float  # in the model


def blocks_of(shape: ModelShape) -> tuple[Block, ...]:
    """The blocks of a model; experts count with the ones that a token meets."""
    numbers = shape_numbers(shape)
    width = shape.num_heads * numbers.v_head_dim
    q_k_v = shape.num_heads * numbers.qk_head_dim + shape.num_kv_heads * (numbers.qk_head_dim + numbers.v_head_dim)
    d_ff = shape.d_ff
    if shape.moe is not None:
        d_ff = shape.moe.experts_per_token * shape.moe.expert_d_ff + shape.moe.shared_expert_d_ff
    up = d_ff * (2 if shape.gated_mlp else 1)
    if shape.parallel_block:
        return (Block(inner_in=q_k_v + up, inner_out=width + d_ff, count=shape.num_layers),)
    attention = Block(inner_in=q_k_v, inner_out=width, count=shape.num_layers)
    return attention, Block(inner_in=up, inner_out=d_ff, count=shape.num_layers)


def network_s(shape: ModelShape, fabric: Fabric, partition: Partition, tokens: float, weight_bytes: float) -> float:
    """Seconds that all collectives of a pass over `tokens` (b t) take, nothing overlapped."""
    if fabric.num_chips == 1:
        return 0.0
    if partition == "weight_gathered":
        return _gathered_s(shape, fabric, tokens, weight_bytes)
    blocks = blocks_of(shape)
    if partition == "1d":
        return sum(block.count for block in blocks) * _one_dim_s(shape.d_model, fabric, tokens)
    return sum(block.count * _two_dims_s(block, shape.d_model, fabric, tokens) for block in blocks)


def _one_dim_s(d_model: int, fabric: Fabric, tokens: float) -> float:
    """One all-gather and one reduce-scatter of the residual stream over all chips, the same for every block."""
    moved_bytes = 2.0 * tokens * d_model * ACTIVATION_BYTES
    return moved_bytes / fabric.bytes_per_s + 2.0 * (fabric.num_chips - 1) * fabric.hop_s


def _two_dims_s(block: Block, d_model: int, fabric: Fabric, tokens: float) -> float:
    """The residual stream over y, twice, and the inner widths over x, in and out; the fastest cut."""
    times = []
    for x, share_x, share_y, hops in fabric.split():
        y = fabric.num_chips / x
        over_y = 2.0 * tokens * d_model / x / share_y if y > 1.0 else 0.0
        over_x = tokens * (block.inner_in + block.inner_out) / y / share_x if x > 1.0 else 0.0
        moved_bytes = (over_x + over_y) * ACTIVATION_BYTES
        times.append(moved_bytes / fabric.bytes_per_s + 2.0 * hops * fabric.hop_s)
    return min(times)


def _gathered_s(shape: ModelShape, fabric: Fabric, tokens: float, weight_bytes: float) -> float:
    """Weights gathered over the N chips that make the sum of both least: 2 sqrt(weights * activations / n)."""
    count = count_parameters(shape)
    layers = (count.total - count.embedding) * weight_bytes
    stream = sum(block.count for block in blocks_of(shape)) * 2.0 * tokens * shape.d_model * ACTIVATION_BYTES
    n = fabric.num_chips
    over = min(max(math.sqrt(stream * n / layers), 1.0), float(n))
    moved_bytes = layers * over / n + stream / over
    return moved_bytes / fabric.bytes_per_s + shape.num_layers * 4.0 * (math.sqrt(n) - 1.0) * fabric.hop_s
