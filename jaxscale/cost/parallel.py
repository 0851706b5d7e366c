"""Every collective of a step: what each parallelism moves, over which axes, how often, and behind what it can hide.

This list is what the compiled program must contain; `jaxscale.aot` checks it against the compiler's output. The rules
are those of the runtime, where every collective is written out (see `jaxscale.runtime`):

| axis | forward of a layer | backward of a layer | once a step |
|---|---|---|---|
| tensor | all-reduce after each row-parallel matmul (SP: all-gather before, reduce-scatter after) | the same | |
| context | K and V around the ring, or all-gathered | K, V and their gradients | |
| expert | all-to-all to the experts and back | the same | |
| fsdp, parameters split | all-gather of weights | all-gather, reduce-scatter of gradients | |
| fsdp, otherwise | | reduce-scatter (ZeRO-2) | reduce-scatter + all-gather (ZeRO-1), all-reduce (ZeRO-0) |
| data | | | all-reduce of what a rank accumulated |
| pipeline | residual stream to the next stage | its gradient to the one before | |

A step's collectives of one kind over one group of axes are one `Exchange`: `count` calls of `bytes_each` per device.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxscale.cost.inventory import Op
from jaxscale.cost.network import Level, collective_s, derate, group_members, place, wire_bytes
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.cost.remat import recompute_table, whole_layer_table
from jaxscale.cost.weights import Weights
from jaxscale.types import AXES, LayoutBatch

Phase = Literal["forward", "backward", "recompute", "step"]
LayerKind = Literal["dense", "moe"]
Axis = Literal["tensor", "context", "expert", "fsdp", "data", "pipeline"]

FLOAT32 = 4.0
CHIPS_SCATTERED = 4  # a slice of so many is not summed whole
DEVICES_GATHERED_BY_SUM = 64  # all of a slice, from here on


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Collectives of one kind, group and purpose; `count` is per microbatch, or per step where phase is step."""

    name: str
    kind: str
    axis: Axis  # the parallelism that causes it, and so what it can hide behind
    axes: tuple[str, ...]  # the mesh axes it spans
    phase: Phase
    bytes_each: Number
    count: Number
    seconds: Number  # of all `count` calls
    wire_bytes: Number  # sent by one device in all `count` calls
    as_all_reduce: Number = 0.0  # 1 where the compiler sums whole arrays instead (`summed_whole`, `gathered_by_sum`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Places a batch of layouts on a problem's levels once and prices any collective on them."""

    p: Problem
    layouts: LayoutBatch
    levels: tuple[Level, ...]
    members: dict[str, list[Number]]

    def exchange(
        self, name: str, kind: str, axis: Axis, axes: tuple[str, ...], phase: Phase, bytes_each: Number, count: Number
    ) -> Exchange:
        """Price `count` collectives; where the group has one member they cost nothing and count zero."""
        p = self.p
        members = group_members(self.members, axes, len(p.levels))
        size: Number = 1.0
        for a in axes:
            size = size * getattr(self.layouts, a)
        count = count * (size > 1)
        each_s: Number = 0.0
        latency_s = p.stack.collective_latency_s
        if np.any(count):
            each_s = collective_s(kind, bytes_each, members, self.levels, latency_s=latency_s, xp=p.xp)
        wire = wire_bytes(kind, bytes_each, size)
        rule = {"reduce-scatter": summed_whole, "all-gather": gathered_by_sum}.get(kind)
        summed = rule(p, size) if rule else 0.0
        if np.any(summed):
            whole_s = collective_s("all-reduce", bytes_each, members, self.levels, latency_s=latency_s, xp=p.xp)
            each_s = p.xp.where(summed, whole_s, each_s)
            wire = p.xp.where(summed, 2.0 * wire, wire)
        return Exchange(
            name=name, kind=kind, axis=axis, axes=axes, phase=phase, bytes_each=bytes_each, count=count,
            seconds=each_s * count, wire_bytes=wire * count,
            as_all_reduce=summed,
        )  # fmt: skip


def summed_whole(p: Problem, size: Number) -> Number:
    """Where the TPU compiler turns a reduce-scatter over `size` devices into an all-reduce and a slice.

    libtpu 0.0.52 does so for a group of every device of a slice of more than four chips, unless the slice is a
    rectangle of two unlike sides (v5e, v6e); groups of a part of the slice are scattered, and so is everything on
    chips of two devices (TPU7x). Seen by compiling for v4, v5p, v5e, v6e and TPU7x slices.
    """
    if p.device.kind != "tpu" or not p.stack.spmd:
        return size < 0
    sides = [level.size for level in p.levels if level.torus]
    square = sides[0] == sides[1] if len(sides) == 2 else True
    whole = (size == p.num_chips) & (p.devices_per_chip == 1)
    return whole & square & (p.num_chips > CHIPS_SCATTERED)


def gathered_by_sum(p: Problem, size: Number) -> Number:
    """Where the TPU compiler gathers by an all-reduce of shards in their places, twice the bytes.

    libtpu 0.0.52 does so over all devices of a torus of three dims, if they are 64 or more (v5p, TPU7x), of whatever
    width their shards are; over 32 (v4, v5p), over 64 of 128, and on flat tori (v5e) it does not.
    """
    if p.device.kind != "tpu" or not p.stack.spmd or sum(level.torus for level in p.levels) < 3:
        return size < 0
    return (size == p.num_chips * p.devices_per_chip) & (size >= DEVICES_GATHERED_BY_SUM)


def network(p: Problem, layouts: LayoutBatch) -> Network:
    """Lay the axes of every layout on the levels of the cluster."""
    degrees = {axis: getattr(layouts, axis).astype(float) for axis in AXES}
    levels = derate(p.levels, p.stack.collective_efficiency, p.stack.outer_efficiency, p.stack.outer_scaling)
    return Network(p=p, layouts=layouts, levels=levels, members=place(degrees, layouts.axis_order, p.levels, np))


def layer_exchanges(net: Network, kind: LayerKind, layers: Number, tokens: Number) -> Iterator[Exchange]:
    """Yield the collectives of one microbatch through `layers` layers of one kind; `tokens` as `Tokens.full`."""
    ops = net.p.inventory.layer(kind)
    names = {op.name for op in ops}
    yield from _tensor(net, ops, layers, tokens)
    yield from _head_norms(net, ops, layers, tokens)
    yield from _context(net, ops, layers, tokens)
    if "dispatch" in names:
        yield from _expert(net, ops, layers, tokens)


def _tensor(net: Network, ops: tuple[Op, ...], layers: Number, tokens: Number) -> Iterator[Exchange]:
    """Megatron's pairs (arXiv 1909.08053, section 3; sequence parallelism: arXiv 2205.05198, section 4.2.2)."""
    p, layouts = net.p, net.layouts
    stream = tokens * p.inventory.numbers.d_model * p.compute_bytes
    split = (layouts.sequence_parallel > 0) * 1.0
    enters = [op.name for op in ops if op.kind == "gather"]
    leaves = leave_names(ops)
    num_in, num_out = layers * len(enters), layers * len(leaves)
    again_in = layers * sum(recompute_table(ops, name, layouts.remats) for name in enters)[layouts.remat]
    again_out = layers * sum(recompute_table(ops, name, layouts.remats) for name in leaves)[layouts.remat]
    if np.any(p.stack.whole_recompute):
        whole = whole_layer_table(layouts.remats)[layouts.remat] * p.stack.whole_recompute
        again_in, again_out = again_in + whole * (num_in - again_in), again_out + whole * (num_out - again_out)
    axes = ("tensor",)
    rows = (
        ("all-gather", "forward", num_in * split),
        ("reduce-scatter", "forward", num_out * split),
        ("all-reduce", "forward", num_out * (1.0 - split)),
        ("all-gather", "recompute", again_in * split),
        ("reduce-scatter", "recompute", again_out * split),
        ("all-reduce", "recompute", again_out * (1.0 - split)),
        ("reduce-scatter", "backward", num_in * split),
        ("all-gather", "backward", num_out * split),
        ("all-reduce", "backward", num_in * (1.0 - split)),
    )
    for kind, phase, count in rows:
        yield net.exchange("activations", kind, "tensor", axes, phase, stream, count)


def _head_norms(net: Network, ops: tuple[Op, ...], layers: Number, tokens: Number) -> Iterator[Exchange]:
    """A norm over all heads at once (OLMo 2, arXiv 2501.00656) sums its statistic of every token over their ranks."""
    for op in ops:
        if op.kind == "elementwise" and op.by_head:
            again = layers * recompute_table(ops, op.name, net.layouts.remats)[net.layouts.remat]
            for phase, count in (("forward", layers), ("recompute", again), ("backward", layers)):
                yield net.exchange("norm of heads", "all-reduce", "tensor", ("tensor",), phase, tokens * FLOAT32, count)


def leave_names(ops: tuple[Op, ...]) -> tuple[str, ...]:
    """Ops after which partial sums are joined over the tensor axis, one for each half of a layer."""
    names = [op.name for op in ops]
    mlp = "combine" if "combine" in names else "mlp_down"
    return ("attention_out", mlp)


def _context(net: Network, ops: tuple[Op, ...], layers: Number, tokens: Number) -> Iterator[Exchange]:
    """Ring attention (arXiv 2310.01889) or gathered keys and values (Llama 3, arXiv 2407.21783, section 3.3.2)."""
    p, layouts, s = net.p, net.layouts, net.p.inventory.numbers
    kv = tokens * s.num_kv_heads / layouts.tensor * (s.qk_head_dim + s.v_head_dim) * p.compute_bytes
    ring = (layouts.context_method == 0) * 1.0
    again = recompute_table(ops, "attention", layouts.remats)[layouts.remat] * layers
    hops = ring * (layouts.context - 1)
    gathered = kv * layouts.context
    axes = ("context",)
    # K and V travel apart, two permutes a hop; the gradients make one more hop to come home.
    yield net.exchange("keys and values", "collective-permute", "context", axes, "forward", kv / 2, 2 * hops * layers)
    yield net.exchange("keys and values", "collective-permute", "context", axes, "recompute", kv / 2, 2 * hops * again)
    # XLA takes the first hop of what is made again for the first of the backward pass; for TPUs and GPUs it rounds
    # gradients before their last hop.
    ring_of_xla = ring * p.stack.spmd * (layouts.context > 1)
    rounded = ring_of_xla * (p.device.kind != "cpu") * (p.compute_bytes < FLOAT32)
    backward_hops = hops * layers - ring_of_xla * again
    yield net.exchange("keys and values", "collective-permute", "context", axes, "backward", kv / 2, 2 * backward_hops)
    summed, wide = "gradients of keys and values", kv / 2 * FLOAT32 / p.compute_bytes
    wide_hops = 2 * (ring * layouts.context - rounded) * layers
    yield net.exchange(summed, "collective-permute", "context", axes, "backward", wide, wide_hops)
    yield net.exchange(summed, "collective-permute", "context", axes, "backward", kv / 2, 2 * rounded * layers)
    flat = 2 * (1.0 - ring)
    yield net.exchange("keys and values", "all-gather", "context", axes, "forward", gathered / 2, flat * layers)
    yield net.exchange("keys and values", "all-gather", "context", axes, "recompute", gathered / 2, flat * again)
    yield net.exchange("keys and values", "all-gather", "context", axes, "backward", gathered / 2, flat * layers)
    yield net.exchange(
        "gradients of keys and values", "reduce-scatter", "context", axes, "backward", gathered / 2, flat * layers
    )


def _expert(net: Network, ops: tuple[Op, ...], layers: Number, tokens: Number) -> Iterator[Exchange]:
    """Tokens to their experts and back (GShard, arXiv 2006.16668, section 3).

    What is saved is on this side of both exchanges, so that the backward pass repeats them under every remat policy.
    """
    p, layouts, s = net.p, net.layouts, net.p.inventory.numbers
    share = 1.0
    if np.any(p.stack.split_dispatch):
        own = np.where(layouts.sequence_parallel > 0, 1.0 / layouts.tensor, 1.0) * _sent_once(net)
        share = np.where(np.asarray(p.stack.split_dispatch) > 0, own, 1.0)
    buffers = tokens * s.experts_per_token * p.capacity_factor * s.d_model * p.compute_bytes * share
    axes = ("expert",)
    yield net.exchange("tokens", "all-to-all", "expert", axes, "forward", buffers, 2 * layers)
    yield net.exchange("tokens", "all-to-all", "expert", axes, "recompute", buffers, 2 * layers)
    yield net.exchange("tokens", "all-to-all", "expert", axes, "backward", buffers, 2 * layers)
    # How many tokens each expert was sent, for balancing.
    loads, tokens_axes = s.num_experts * FLOAT32, ("data", "fsdp", "expert", "context")
    yield net.exchange("expert loads", "all-reduce", "expert", tokens_axes, "forward", loads, layers)
    yield net.exchange("expert loads", "all-reduce", "expert", tokens_axes, "recompute", loads, layers)


def _sent_once(net: Network) -> Number:
    """Share of a token's copies that cross nodes, where it goes to every node once, however many experts it has there.

    k experts drawn among q nodes meet q (1 - (1 - 1/q)^k) of them (DeepEP's dispatch, github.com/deepseek-ai/DeepEP).
    Where a token's experts are limited to g of G groups (DeepSeek-V3, arXiv 2412.19437, section 2.1.2), which lie on
    G nodes or are spread over more, q are the nodes of those; fewer nodes than groups are met as if drawn g times.
    """
    s = net.p.inventory.numbers
    chosen = s.experts_per_token
    nodes: Number = 1.0
    for count in net.members["expert"][1:]:
        nodes = nodes * count
    spread = nodes * s.groups_per_token / s.num_expert_groups
    within = np.where(nodes >= s.num_expert_groups, spread, _met(nodes, s.groups_per_token))
    return np.where(nodes > 1, _met(within, chosen) / chosen, 1.0)


def _met(places: Number, draws: Number) -> Number:
    """Of equally likely `places`, those that are met in so many draws, on average."""
    return places * (1.0 - (1.0 - 1.0 / places) ** draws)


def vocabulary_exchanges(net: Network, tokens: Number) -> Iterator[Exchange]:
    """Embedding and head of one microbatch over a vocabulary split by the tensor axis."""
    p, layouts = net.p, net.layouts
    stream = tokens * p.inventory.numbers.d_model * p.compute_bytes
    split = (layouts.sequence_parallel > 0) * 1.0
    axes = ("tensor",)
    yield net.exchange("embedding", "reduce-scatter", "tensor", axes, "forward", stream, split)
    yield net.exchange("embedding", "all-reduce", "tensor", axes, "forward", stream, 1.0 - split)
    yield net.exchange("embedding", "all-gather", "tensor", axes, "backward", stream, split)
    yield net.exchange("head", "all-gather", "tensor", axes, "forward", stream, split)
    yield net.exchange("head", "reduce-scatter", "tensor", axes, "backward", stream, split)
    yield net.exchange("head", "all-reduce", "tensor", axes, "backward", stream, 1.0 - split)
    whole = np.where(p.stack.gathered_logits > 0, 1.0, 0.0)
    logits = tokens * p.inventory.numbers.vocab_size * p.compute_bytes
    yield net.exchange("logits", "all-gather", "tensor", axes, "forward", logits, whole)
    # Maximum, sum of exponentials and target logit of every token.
    yield net.exchange("loss", "all-reduce", "tensor", axes, "forward", tokens * FLOAT32, 3.0)


def weight_exchanges(net: Network, weights: Weights) -> Iterator[Exchange]:
    """Gathers and reductions of one set of weights in every microbatch, one layer's worth.

    A layer's weights are gathered again in its backward pass; those of embedding and head are kept from forward to
    backward, but a tied embedding is gathered apart for the lookup and for the head.
    """
    p, layouts, count = net.p, net.layouts, weights.arrays
    params, grads = layouts.params_shard, layouts.grads_shard
    gathered, reduced = (weights.elements / count * size for size in (p.compute_bytes, p.reduce_bytes))
    for axes, level in _groups(weights):
        zero3, scattered = params == level, grads == level
        if np.any(zero3):
            yield net.exchange("weights", "all-gather", "fsdp", axes, "forward", gathered, count * zero3)
            again = count * zero3 * weights.gathered_again
            yield net.exchange("weights", "all-gather", "fsdp", axes, "backward", gathered, again)
        if np.any(scattered):
            times = count * scattered * weights.uses
            yield net.exchange("gradients", "reduce-scatter", "fsdp", axes, "backward", reduced, times)


def _groups(weights: Weights) -> tuple[tuple[tuple[str, ...], int], ...]:
    """The axes that split weights at each level of `*_shard` above none."""
    return (weights.group, 1), (("data", *weights.group), 2)


def step_exchanges(net: Network, weights: Weights, layers: Number) -> Iterator[Exchange]:
    """What is left to do once a step for one set of weights, all `layers` of it stacked.

    Gradients reach the level at which the optimizer is split, are summed over the axes that still hold partial sums,
    and updated weights go back to every rank that computes with them.
    """
    p, layouts, count = net.p, net.layouts, weights.arrays
    params, grads, optim = layouts.params_shard, layouts.grads_shard, layouts.optimizer_shard
    gathered, reduced = (weights.elements * layers / count * size for size in (p.compute_bytes, p.reduce_bytes))
    # From a shard of the group to one of group and data, or from nothing to either.
    members: Number = 1.0
    for axis in weights.group:
        members = members * getattr(layouts, axis)
    group, wide, data = weights.group, ("data", *weights.group), ("data",)
    whole = np.asarray(p.stack.whole_reduction) > 0
    rows = [
        ("gradients", "all-reduce", group, reduced, (grads < 1) & (optim == 1) & whole),
        ("gradients", "reduce-scatter", group, reduced, (grads < 1) & (optim == 1) & ~whole),
        ("gradients", "reduce-scatter", wide, reduced, (grads < 1) & (optim == 2)),
        ("gradients", "reduce-scatter", data, reduced / members, (grads == 1) & (optim == 2)),
        ("updated weights", "all-gather", group, gathered, (params < 1) & (optim == 1)),
        ("updated weights", "all-gather", wide, gathered, (params < 1) & (optim == 2)),
        ("updated weights", "all-gather", data, gathered / members, (params == 1) & (optim == 2)),
        *_sums(net, weights, reduced, members),
    ]
    for name, kind, axes, payload, used in rows:
        if np.any(used):
            yield net.exchange(name, kind, "data", axes, "step", payload, count * used)


def _sums(net: Network, weights: Weights, reduced: Number, members: Number) -> list[tuple]:
    """All-reduces of one set's gradients over axes that hold partial sums: replicas, and the tensor axis for some."""
    layouts = net.layouts
    optim = layouts.optimizer_shard
    wide, shards = ("data", *weights.group), members * layouts.data
    rows = []
    for tensor, used in (((), 1.0 - weights.partial), (("tensor",), 1.0 * weights.partial)):
        rows.append(("gradients", "all-reduce", (*wide, *tensor), reduced, (optim == 0) * used))
        rows.append(("gradients", "all-reduce", ("data", *tensor), reduced / members, (optim == 1) * used))
    rows.append(("gradients", "all-reduce", ("tensor",), reduced / shards, (optim == 2) * weights.partial))
    return rows


def small_exchanges(net: Network, weights: Weights, layers: Number) -> Iterator[Exchange]:
    """Sums of what ZeRO leaves whole, biases and norm scales, once a step."""
    wide = ("data", *weights.group)
    split = (net.layouts.sequence_parallel > 0) * 1.0
    small = weights.small
    for axes, elements, used in (
        (wide, small.split + small.stream * (1.0 - split), 1.0),
        ((*wide, "tensor"), small.partial + small.stream * split, 1.0),
    ):
        payload = elements * layers * net.p.reduce_bytes
        if np.any(payload):
            yield net.exchange("small gradients", "all-reduce", "data", axes, "step", payload, used * (payload > 0))


def scalar_exchanges(net: Network) -> Iterator[Exchange]:
    """Single numbers that every device needs: tokens with a target, the losses, the gradients' norm."""
    tokens = ("data", "fsdp", "expert", "context", "pipeline")
    rows = ((("data", "fsdp", "expert"), 1.0), (tokens, 2.0), (AXES, 1.0))
    for axes, count in rows:
        yield net.exchange("scalars", "all-reduce", "data", axes, "step", FLOAT32, count)


def pipeline_exchanges(net: Network, tokens: Number, sends: Number) -> Iterator[Exchange]:
    """The residual stream to the next stage and its gradient back, `sends` times a microbatch."""
    stream = tokens * net.p.inventory.numbers.d_model * net.p.compute_bytes
    axes = ("pipeline",)
    yield net.exchange("stage output", "collective-permute", "pipeline", axes, "forward", stream, sends)
    yield net.exchange("stage gradient", "collective-permute", "pipeline", axes, "backward", stream, sends)
