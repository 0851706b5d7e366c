"""FLOPs that jaxscale's own step executes beyond the model's and its remat policy's: padded, repeated inside kernels.

All are counted by MFU's convention: attention over every pair of tokens, unless the program itself leaves pairs out.
"""

from collections.abc import Mapping

import numpy as np

from jaxscale.cost.compute import OpCost
from jaxscale.cost.inventory import Op
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.cost.remat import recompute_table
from jaxscale.types import LayoutBatch

# Matmuls that a kernel's backward pass repeats: over the width of queries and keys, and over the width of values.
# Flash attention makes the scores again (arXiv 2307.08691, algorithm 2); splash attention makes them, and the scores'
# gradients, in each of two kernels, for dQ and for dK and dV.
REPEATED_MATMULS = {
    "naive": (0.0, 0.0),
    "flash1": (1.0, 0.0),
    "flash2": (1.0, 0.0),
    "flash3": (1.0, 0.0),
    "splash": (2.0, 1.0),
}
FORWARD_AND_BACKWARD = 3.0


def padding_flops(
    p: Problem, ops: tuple[Op, ...], costs: Mapping[str, OpCost], layouts: LayoutBatch, remats: tuple[str, ...]
) -> Number:
    """FLOPs of one layer and microbatch that are padding or repeated inside kernels, by remat policy, [policies, n]."""
    total: Number = np.zeros((len(remats), 1))
    for op in ops if p.stack.spmd else ():
        if op.kind not in ("matmul", "attention"):
            continue
        cost = costs[op.name]
        passes = FORWARD_AND_BACKWARD + recompute_table(ops, op.name, remats)[:, None]
        padding = passes * p.xp.atleast_1d(_forward_flops(p, cost, layouts) - cost.model_flops)[None, :]
        total = total + padding
        if op.kind == "attention":
            total = total + p.xp.atleast_1d(_repeated_flops(p, cost, layouts))[None, :]
    return total


def forward_flops(p: Problem, ops: tuple[Op, ...], costs: Mapping[str, OpCost], layouts: LayoutBatch) -> Number:
    """FLOPs of one forward pass of a layer or of the head, of one microbatch, as the program holds them."""
    counted = [costs[op.name] for op in ops if op.kind in ("matmul", "attention")]
    return sum(_forward_flops(p, cost, layouts) for cost in counted)


def _forward_flops(p: Problem, cost: OpCost, layouts: LayoutBatch) -> Number:
    """What one forward pass of an op executes."""
    if cost.kind == "attention":
        return cost.model_flops * _pairs_share(p, layouts)
    return cost.forward_flops


def _pairs_share(p: Problem, layouts: LayoutBatch) -> Number:
    """Share of the pairs of tokens that are computed at all: a ring leaves out the half that the causal mask hides."""
    ring = (layouts.context > 1) & (layouts.context_method == 0)
    return p.xp.where(ring, 0.5 * (1.0 + 1.0 / layouts.context), 1.0)


def _repeated_flops(p: Problem, cost: OpCost, layouts: LayoutBatch) -> Number:
    """What the attention kernel's backward pass computes a second time."""
    s = p.inventory.numbers
    keys, values = REPEATED_MATMULS[p.stack.attention_kernel]
    # Over a sequence in shards the scores are made again once, by blocks, whatever the kernel of whole sequences.
    keys, values = p.xp.where(layouts.context > 1, 1.0, keys), p.xp.where(layouts.context > 1, 0.0, values)
    width = (keys * s.qk_head_dim + values * s.v_head_dim) / (s.qk_head_dim + s.v_head_dim)
    return cost.model_flops * width * _pairs_share(p, layouts)
