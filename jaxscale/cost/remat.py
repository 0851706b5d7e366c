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
from jaxscale.types import RematPolicy, remat_policy

Graph = tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]  # name, inputs and needs of every op


@dataclass(frozen=True, slots=True)
class RematPlan:
    """Names of a layer's ops whose outputs are kept on the device, kept on the host, or computed a second time."""

    saved: frozenset[str]
    offloaded: frozenset[str]
    recomputed: frozenset[str]


def remat_plan(ops: Iterable[Op], policy: RematPolicy) -> RematPlan:
    """Walk one layer's graph under one policy."""
    return _walk(_graph(ops), policy.saved, policy.offloaded)


def _graph(ops: Iterable[Op]) -> Graph:
    return tuple((op.name, op.inputs, op.needs) for op in ops)


@lru_cache(maxsize=512)
def _walk(graph: Graph, saved: frozenset[str], offloaded: frozenset[str]) -> RematPlan:
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


def recompute_table(ops: tuple[Op, ...], name: str, remats: tuple[str, ...]) -> np.ndarray:
    """For every remat policy, 1.0 where it recomputes op `name`, [policies]."""
    return _recompute_tables(_graph(ops), remats)[name]


@lru_cache(maxsize=512)
def _recompute_tables(graph: Graph, remats: tuple[str, ...]) -> dict[str, np.ndarray]:
    policies = [remat_policy(name) for name in remats]
    plans = [_walk(graph, policy.saved, policy.offloaded) for policy in policies]
    return {name: np.array([float(name in plan.recomputed) for plan in plans]) for name, _, _ in graph}


@lru_cache(maxsize=512)
def whole_layer_table(remats: tuple[str, ...]) -> np.ndarray:
    """For every remat policy, 1.0 where it keeps nothing but a layer's input on the device, [policies]."""
    return np.array([float(not policy.saved and not policy.offloaded) for policy in map(remat_policy, remats)])
