"""Everything that a step is made of, priced: layers, head, collectives; one microbatch through one layer each.

What depends on a few columns of a layout only is evaluated once per distinct value of those columns and looked up, so
that ten million layouts cost little more than the sums that join them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jaxscale.cost import compute, parallel, weights
from jaxscale.cost.compute import OpCost, Tokens
from jaxscale.cost.ends import head_working_bytes
from jaxscale.cost.executed import forward_flops, padding_flops
from jaxscale.cost.liveness import backward_lives, fused_bytes, peak_bytes, score_bytes
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.cost.remat import recompute_table, remat_plan, whole_layer_table
from jaxscale.cost.split import StageLayers, stage_layers
from jaxscale.types import AXES, LayoutBatch, remat_policy
from jaxscale.types.layout import SCHEDULES

LAYERED = SCHEDULES.index("layered")
DENSE_KEYS = 1 << 22  # up to here a table is faster than a sort
LAYER_COLUMNS = ("microbatch_size", "tensor", "context", "expert", "sequence_parallel", "context_method")
ACTIVATION_COLUMNS = (*AXES, "microbatch_size", "sequence_parallel", "context_method", "remat")
WEIGHT_COLUMNS = (
    *AXES, "params_shard", "grads_shard", "optimizer_shard", "sequence_parallel", "virtual_stages",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer of one kind, one microbatch: seconds by part, activations by policy, collectives by axis and phase."""

    forward_s: dict[str, Number]  # matmul, attention, elementwise
    backward_s: dict[str, Number]
    recompute_s: Number  # [n], of the row's own policy
    forward_flops: Number  # of one forward pass as the program runs it
    whole_flops: Number  # of forward pass, recompute and backward pass
    extra_flops: Number  # executed beyond the model's: recomputed, padded, repeated in kernels
    saved_bytes: Number
    offloaded_bytes: Number
    working_bytes: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """Collectives of one microbatch (or step) through one part of the model, priced on distinct rows."""

    each: list[parallel.Exchange]
    rows: np.ndarray  # [n], row of each layout among the distinct ones
    layers: Number  # how many such parts the fullest stage holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that a step is assembled from; arrays [n] over the layouts."""

    layers: dict[str, LayerCost]  # by layer kind
    slots: dict[str, Number]  # layers of each kind that the fullest stage holds
    split: StageLayers
    head: LayerCost
    embedding_s: Number
    exchanges: tuple[Exchanges, ...]
    num_microbatches: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerActivations:
    """Bytes of one layer for one microbatch under every remat policy, each [policies, n] or [policies, 1]."""

    saved: Number
    offloaded: Number
    working: Number  # recomputed tensors and gradients alive while the layer's backward runs


def layer_activations(
    p: Problem,
    kind: parallel.LayerKind,
    costs: Mapping[str, OpCost],
    tokens: Tokens,
    remats: tuple[str, ...],
    scores: Number = 0.0,
) -> LayerActivations:
    """Sum a layer's tensors by what each remat policy does with them; `scores` as `score_bytes`."""
    ops = p.inventory.layer(kind)
    stream = tokens.residual * p.inventory.numbers.d_model * p.compute_bytes
    largest: Number = 0.0
    for cost in costs.values():
        largest = p.xp.maximum(largest, p.xp.maximum(cost.output_bytes, cost.extra_bytes))
    whole_stream = tokens.full * p.inventory.numbers.d_model * p.compute_bytes
    lane_wide = p.stack.attention_kernel == "splash"
    tensors = fused_bytes(ops, costs, whole_stream, tokens.split, scores, lane_wide=lane_wide)
    saved, offloaded, working = [], [], []
    for policy in map(remat_policy, remats):
        plan = remat_plan(ops, policy)
        total = {
            "saved": sum((costs[name].output_bytes + costs[name].extra_bytes for name in plan.saved), 0.0 * largest),
            "host": sum((costs[name].output_bytes + costs[name].extra_bytes for name in plan.offloaded), 0.0 * largest),
            "again": sum(
                (costs[name].output_bytes + costs[name].extra_bytes for name in plan.recomputed), 0.0 * largest
            ),
        }
        on_host = policy.offload_layer_input
        saved.append(total["saved"] + (0.0 if on_host else stream))
        offloaded.append(total["host"] + (stream if on_host else 0.0))
        if p.stack.spmd:
            working.append(0.0 * largest + stream + peak_bytes(backward_lives(ops, policy), ops, tensors, p.xp))
        else:  # a framework that frees a layer's tensors at the end of its backward pass
            working.append(total["again"] + total["host"] + 2.0 * largest)
    xp = p.xp
    return LayerActivations(saved=xp.stack(saved), offloaded=xp.stack(offloaded), working=xp.stack(working))


def recomputed(
    p: Problem, kind: parallel.LayerKind, costs: Mapping[str, OpCost], field: str, remats: tuple[str, ...]
) -> Number:
    """Sum one forward figure over what each remat policy computes a second time, [policies, n]."""
    ops = p.inventory.layer(kind)
    needed = sum(
        recompute_table(ops, op.name, remats)[:, None] * p.xp.atleast_1d(getattr(costs[op.name], field))[None, :]
        for op in ops
    )
    if not np.any(p.stack.whole_recompute):
        return needed
    every = sum(p.xp.atleast_1d(getattr(cost, field)) for cost in costs.values())[None, :]
    return needed + whole_layer_table(remats)[:, None] * p.stack.whole_recompute * (every - needed)


def distinct(layouts: LayoutBatch, columns: tuple[str, ...]) -> tuple[LayoutBatch, np.ndarray]:
    """Return the distinct rows over some columns, and for every layout which of them is its own, [n].

    >>> from jaxscale.types import Layout
    >>> batch = LayoutBatch.from_layouts([Layout(fsdp=2), Layout(fsdp=4), Layout(fsdp=2)])
    >>> rows, index = distinct(batch, ("fsdp",))
    >>> rows.fsdp.tolist(), index.tolist()
    ([2, 4], [0, 1, 0])
    """
    key, keys = np.zeros(len(layouts), dtype=np.int64), 1
    for name in columns:
        codes, count = _codes(getattr(layouts, name))
        if count > 1:
            key, keys = key * count + codes, keys * count
    if keys > DENSE_KEYS:
        _, first, index = np.unique(key, return_index=True, return_inverse=True)
        return layouts.take(first), index
    row_of_key = np.full(keys, -1, dtype=np.int64)
    row_of_key[key] = np.arange(len(layouts))  # the last row of each key stands for it
    first = row_of_key[row_of_key >= 0]
    row_of_key[row_of_key >= 0] = np.arange(len(first))
    return layouts.take(first), row_of_key[key]


def shared(p: Problem, layouts: LayoutBatch, columns: tuple[str, ...]) -> tuple[LayoutBatch, np.ndarray]:
    """As `distinct`, but rows that are different runs share nothing."""
    return (layouts, np.arange(len(layouts))) if p.batched else distinct(layouts, columns)


def _codes(column: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the distinct values of a column of small non-negative integers, ascending."""
    if column.max() > DENSE_KEYS:
        values, codes = np.unique(column, return_inverse=True)
        return codes, len(values)
    present = np.bincount(column) > 0
    values = int(present.sum())
    return (column if values in (1, len(present)) else (np.cumsum(present) - 1)[column]), values


def price_parts(p: Problem, layouts: LayoutBatch) -> Parts:
    """Price everything that a step is made of."""
    s = p.inventory.numbers
    rows, index = shared(p, layouts, LAYER_COLUMNS)
    split = stage_layers(p, layouts)
    slots = _by_kind(p, split.fullest)
    layers = {kind: _layer(p, kind, rows, index, layouts) for kind in slots}
    head_costs = compute.op_costs(p, p.inventory.head, rows)
    tokens = compute.local_tokens(p, rows)
    lookup = 2.0 * tokens.full * s.d_model * p.compute_bytes
    embedding_s = lookup / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)
    return Parts(
        layers=layers,
        slots=slots,
        split=split,
        head=_head(p, head_costs, rows, index),
        embedding_s=at_rows(embedding_s, index),
        exchanges=(*_activation_exchanges(p, slots, layouts), *_weight_exchanges(p, layouts)),
        num_microbatches=p.global_batch_size / (layouts.batch_shards * layouts.microbatch_size),
    )


def layer_slots(p: Problem, layouts: LayoutBatch) -> dict[parallel.LayerKind, Number]:
    """Layers of each kind that the fullest stage holds, padding of uneven stages included."""
    return _by_kind(p, stage_layers(p, layouts).fullest)


def _by_kind(p: Problem, layers: Number) -> dict[parallel.LayerKind, Number]:
    s = p.inventory.numbers
    kinds: dict[parallel.LayerKind, Number] = {}
    if s.structure.dense_layers:
        kinds["dense"] = layers * (s.num_dense_layers / s.num_layers)
    if s.structure.moe_layers:
        kinds["moe"] = layers * (s.num_moe_layers / s.num_layers)
    return kinds


def at_rows(value: Number, index: np.ndarray) -> Number:
    """Look up rows; a value that is one number for all rows stays one."""
    return value[index] if getattr(value, "ndim", 0) else value


def _layer(
    p: Problem, kind: parallel.LayerKind, rows: LayoutBatch, index: np.ndarray, layouts: LayoutBatch
) -> LayerCost:
    costs = compute.op_costs(p, p.inventory.layer(kind), rows)
    acts = layer_activations(p, kind, costs, compute.local_tokens(p, rows), layouts.remats, score_bytes(p, rows))
    policy = layouts.remat
    again = recomputed(p, kind, costs, "model_flops", layouts.remats)
    extra = again + padding_flops(p, p.inventory.layer(kind), costs, rows, layouts.remats)
    return LayerCost(
        forward_s={k: at_rows(v, index) for k, v in compute.by_kind(costs, "forward_s").items()},
        backward_s={k: at_rows(v, index) for k, v in compute.by_kind(costs, "backward_s").items()},
        recompute_s=recomputed(p, kind, costs, "forward_s", layouts.remats)[policy, index],
        forward_flops=at_rows(forward_flops(p, p.inventory.layer(kind), costs, rows), index),
        whole_flops=(3.0 * sum(p.xp.atleast_1d(cost.model_flops) for cost in costs.values()) + extra)[policy, index],
        extra_flops=extra[policy, index],
        saved_bytes=acts.saved[policy, index],
        offloaded_bytes=acts.offloaded[policy, index],
        working_bytes=acts.working[policy, index],
    )


def _head(p: Problem, costs: dict[str, compute.OpCost], rows: LayoutBatch, index: np.ndarray) -> LayerCost:
    working = head_working_bytes(p, compute.local_tokens(p, rows), rows)
    forward = forward_flops(p, p.inventory.head, costs, rows)
    return LayerCost(
        forward_s={k: at_rows(v, index) for k, v in compute.by_kind(costs, "forward_s").items()},
        backward_s={k: at_rows(v, index) for k, v in compute.by_kind(costs, "backward_s").items()},
        forward_flops=at_rows(forward, index), whole_flops=at_rows(3.0 * forward, index),
        recompute_s=0.0, extra_flops=0.0, saved_bytes=0.0, offloaded_bytes=0.0, working_bytes=working[index],
    )  # fmt: skip


def _activation_exchanges(
    p: Problem, slots: Mapping[parallel.LayerKind, Number], layouts: LayoutBatch
) -> Iterator[Exchanges]:
    """Collectives that move activations: of the layers of each kind, of embedding and head, of the pipeline."""
    rows, index = shared(p, layouts, ACTIVATION_COLUMNS)
    net, tokens = parallel.network(p, rows), compute.local_tokens(p, rows)
    for kind, layers in slots.items():
        each = list(parallel.layer_exchanges(net, kind, 1.0, tokens.full))
        yield Exchanges(each=each, rows=index, layers=layers)
    yield Exchanges(each=list(parallel.vocabulary_exchanges(net, tokens.full)), rows=index, layers=1.0)
    yield Exchanges(each=list(parallel.pipeline_exchanges(net, tokens.residual, 1.0)), rows=index, layers=1.0)


def _weight_exchanges(p: Problem, layouts: LayoutBatch) -> Iterator[Exchanges]:
    """Collectives that move weights and gradients: of the layers of each kind, of the ends, and of the step."""
    rows, index = shared(p, layouts, WEIGHT_COLUMNS)
    net, slots = parallel.network(p, rows), layer_slots(p, layouts)
    step = list(parallel.scalar_exchanges(net))
    sets = [
        (weights.layer_weights(p, kind, rows), slots[kind], layers) for kind, layers in layer_slots(p, rows).items()
    ]
    sets.append((weights.moved_vocabulary(p, rows), 1.0, 1.0))
    share = gathers_per_microbatch(p, layouts)
    for groups, copies, layers in sets:
        each = [e for group in groups for e in parallel.weight_exchanges(net, group)]
        yield Exchanges(each=each, rows=index, layers=copies * share)
        for group in groups:
            step += parallel.step_exchanges(net, group, layers)
            step += parallel.small_exchanges(net, group, layers)
    yield Exchanges(each=step, rows=index, layers=1.0)


def gathers_per_microbatch(p: Problem, layouts: LayoutBatch) -> Number:
    """How often a microbatch has weights gathered and gradients reduced: once, or its share of once a step (layered).

    Lamy-Poirier 2021 (arXiv 2106.02679), section 3.
    """
    shards = layouts.batch_shards * layouts.microbatch_size
    return np.where(layouts.schedule == LAYERED, shards / p.global_batch_size, 1.0)
