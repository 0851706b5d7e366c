"""Which tensors of a layer are alive together while its backward pass runs: a timeline of the op graph.

The backward pass of a layer first computes again, in order, what its remat policy did not save; then it goes through
the ops from last to first. A value is alive from when it is made until the last op whose backward pass needs it; the
gradient of a value from its consumer's backward pass to its maker's. What is alive at each of these points is a table
of the graph and the policy alone; times the bytes of each tensor it gives the memory of every layout at once.

XLA fuses: norms and, without a tensor axis, the inputs of matmuls are never written; an element-wise op's gradients
take the place of what it read; a row-parallel matmul's output is added to the stream in one pass.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np

from jaxscale.cost.compute import OpCost
from jaxscale.cost.inventory import Op
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.cost.remat import RematPlan, remat_plan
from jaxscale.types import LayoutBatch, RematPolicy
from jaxscale.types.layout import CONTEXT_METHODS

LANES = 128.0
QUERY_BLOCK = 512.0  # queries that plain attention takes at a time
_Graph = tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...]  # name, kind, inputs and needs of every op


@dataclass(frozen=True, slots=True)
class Lives:
    """What is alive when: rows of points in time, columns of ops."""

    values: np.ndarray  # [points, ops] 1.0 where the op's output is alive
    gradients: np.ndarray  # [points, ops] the same of the gradient with respect to it


def backward_lives(ops: Iterable[Op], policy: RematPolicy) -> Lives:
    """The timeline of one layer's backward pass under one policy."""
    ops = tuple(ops)
    return _lives(tuple((op.name, op.kind, op.inputs, op.needs) for op in ops), remat_plan(ops, policy))


@lru_cache(maxsize=512)
def _lives(graph: _Graph, plan: RematPlan) -> Lives:
    column = {name: i for i, (name, *_) in enumerate(graph)}
    again = [i for i, (name, *_) in enumerate(graph) if name in plan.recomputed]
    steps = [("again", i) for i in again]
    for i in reversed(range(len(graph))):
        # An element-wise pass writes over what it reads: what is alive before it, or after it, not both.
        steps += [("before", i), ("after", i)] if graph[i][1] == "elementwise" else [("during", i)]
    values, gradients = (np.zeros((len(steps), len(graph))) for _ in range(2))
    begin = {i: steps.index(("again", i)) for i in again} | {column[name]: 0 for name in plan.offloaded}
    for i, first in begin.items():
        values[first : _last_use(graph, steps, i) + 1, i] = 1.0
    for i, (name, *_) in enumerate(graph):
        made = [at for at, (when, user) in enumerate(steps) if when in ("during", "after") and name in graph[user][2]]
        spent = max(at for at, (when, user) in enumerate(steps) if user == i and when in ("during", "before"))
        if made:
            gradients[min(made) : spent + 1, i] = 1.0
    return Lives(values, gradients)


def _last_use(graph: _Graph, steps: list[tuple[str, int]], value: int) -> int:
    """The last point at which a value is read: a consumer made again, or the backward pass of an op that needs it."""
    name = graph[value][0]
    last = 0
    for at, (when, user) in enumerate(steps):
        reads = graph[user][2] if when == "again" else graph[user][3] if when in ("during", "before") else ()
        if name in reads or (when == "again" and user == value):
            last = at
    return last


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBytes:
    """Bytes of every op's output and of its gradient on one device, where they are written to memory at all."""

    values: Mapping[str, Number]
    gradients: Mapping[str, Number]


def fused_bytes(
    ops: Iterable[Op],
    costs: Mapping[str, OpCost],
    whole_stream: Number,
    split: Number,
    scores: Number = 0.0,
    *,
    lane_wide: bool,
) -> TensorBytes:
    """What XLA writes.

    `whole_stream`: bytes of the residual stream of all of a rank's tokens; `split`: 1 where sequence parallelism keeps
    only a part of it between the halves of a layer, else 0; `scores`: what the attention core's backward pass writes of
    them; `lane_wide`: the attention kernel writes its log-sum-exp
    once for each lane of a vector register (splash attention, `NUM_LANES`).
    """
    values: dict[str, Number] = {}
    gradients: dict[str, Number] = {}
    for op in ops:
        cost = costs[op.name]
        own = cost.output_bytes
        beside = cost.extra_bytes * (LANES if op.kind == "attention" and lane_wide else 1.0)
        values[op.name], gradients[op.name] = own + beside, own + (scores if op.kind == "attention" else 0.0)
        if op.kind == "gather":
            values[op.name], gradients[op.name] = own * split, own
        elif op.kind == "elementwise" and op.shard == "whole":
            is_stream = op.name.endswith("residual")
            values[op.name], gradients[op.name] = (own if is_stream else 0.0 * own), 0.0 * own
        elif op.shard == "row":
            values[op.name], gradients[op.name] = 0.0 * own, whole_stream * split
    return TensorBytes(values=values, gradients=gradients)


def score_bytes(p: Problem, layouts: LayoutBatch) -> Number:
    """Scores that attention over gathered keys writes: a block of queries against all keys, in float32 and once more.

    Splash attention takes whole sequences only; over shards of one the step computes block by block without a kernel.
    """
    gathered = (layouts.context > 1) & (layouts.context_method == CONTEXT_METHODS.index("all_gather"))
    block = p.xp.minimum(QUERY_BLOCK, p.seq_len / layouts.context)
    heads = p.inventory.numbers.num_heads / layouts.tensor
    return gathered * layouts.microbatch_size * heads * block * p.seq_len * (4.0 + p.compute_bytes)


def peak_bytes(lives: Lives, ops: Iterable[Op], tensors: TensorBytes, xp: ModuleType = np) -> Number:
    """The most that is alive at one point, [n]."""
    columns = [op.name for op in ops]
    values = xp.stack(xp.broadcast_arrays(*(tensors.values[name] for name in columns)))
    gradients = xp.stack(xp.broadcast_arrays(*(tensors.gradients[name] for name in columns)))
    return (lives.values @ values + lives.gradients @ gradients).max(axis=0)
