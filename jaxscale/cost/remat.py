"""What a remat policy saves and what it recomputes: a walk over the graph of a layer's ops.

The backward pass of every op needs some tensors (`Op.needs`). A needed tensor that the policy saves costs memory; one
that it does not save is recomputed, and then the inputs of the op that makes it are needed in turn. The walk stops at
saved tensors and at the layer's input, which is always kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jaxscale.cost.inventory import LAYER_INPUT, Op
from jaxscale.types import REMAT_POLICIES, RematPolicy


@dataclass(frozen=True, slots=True)
class RematPlan:
    """Names of a layer's ops whose outputs are kept on the device, kept on the host, or computed a second time."""

    saved: frozenset[str]
    offloaded: frozenset[str]
    recomputed: frozenset[str]


def remat_plan(ops: Iterable[Op], policy: RematPolicy) -> RematPlan:
    """Walk one layer's graph under one policy."""
    graph = tuple((op.name, op.inputs, op.needs) for op in ops)
    return _walk(graph, policy.saved, policy.offloaded)


@lru_cache(maxsize=512)
def _walk(
    graph: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...], saved: frozenset[str], offloaded: frozenset[str]
) -> RematPlan:
    inputs_of = {name: inputs for name, inputs, _ in graph}
    pending = [tensor for _, _, needs in graph for tensor in needs]
    kept: set[str] = set()
    recomputed: set[str] = set()
    while pending:
        tensor = pending.pop()
        if tensor == LAYER_INPUT or tensor in kept or tensor in recomputed:
            continue
        if tensor in saved or tensor in offloaded:
            kept.add(tensor)
            continue
        recomputed.add(tensor)
        pending.extend(inputs_of[tensor])
    return RematPlan(
        saved=frozenset(kept - offloaded), offloaded=frozenset(kept & offloaded), recomputed=frozenset(recomputed)
    )


def recompute_table(ops: tuple[Op, ...], name: str) -> np.ndarray:
    """For every remat policy, 1.0 where it recomputes op `name`, [policies]."""
    return np.array([float(name in remat_plan(ops, policy).recomputed) for policy in REMAT_POLICIES.values()])
