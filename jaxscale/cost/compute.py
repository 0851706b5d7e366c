"""Roofline prices of the ops of a layer on one device, for one microbatch.

Notation: b sequences of a microbatch, T tokens a sequence, t = b T / context tokens on a device; tp, ep tensor and
expert degrees. A matmul of [m, k] x [k, n] takes the longer of its FLOPs at the efficiency that its sharded shape
reaches and its bytes at the memory's speed; its backward pass is two matmuls of the same FLOPs and other shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.cost.inventory import Op
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.types import LayoutBatch

HEADS = ("q", "k", "v", "q_proj", "k_proj", "attention")  # ops whose output has a width for each head
LANES = 128  # of a TPU's vector register
SUBLANES = 8  # rows that a TPU's matrix unit takes at a time
ELEMENTWISE_BACKWARD = 1.5  # reads the input and the gradient, writes a gradient: three passes for two
ATTENTION_BACKWARD_FLOPS = 2.5  # five matmuls for two (FlashAttention-2, arXiv 2307.08691, section 3)
ATTENTION_CONTEXT_HALF = 256.0  # visible tokens at which it does
DEFAULT_HEAD_DIM = 128.0
HOP_KERNELS = 9.0  # of a ring's attention for each further shard of keys
ROUTING_KERNELS = 6.0  # of dispatch, and of combine
CPU_CACHE_BYTES = 2.0**20  # an array as large as a core's second cache (Zen 4) crosses memory by half
CPU_CACHED_PASS = 0.3  # seconds of a pass inside the caches, relative to one through memory


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCost:
    """One op of one layer for one microbatch on one device; every field a number or an array [n]."""

    name: str
    kind: str
    forward_flops: Number
    forward_bytes: Number  # HBM traffic
    forward_s: Number
    backward_flops: Number
    backward_bytes: Number  # HBM traffic
    backward_s: Number
    output_bytes: Number  # its output tensor on one device, at compute precision
    extra_bytes: Number  # what is saved beside the output
    model_flops: Number  # forward FLOPs by the MFU convention: nothing padded, dropped or recomputed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of a microbatch as one device sees them."""

    full: Number  # where the sequence is whole over the tensor axis
    residual: Number  # in the residual stream: split over tensor with sequence parallelism

    @property
    def split(self) -> Number:
        """1 where the residual stream holds only a part of the tokens, else 0."""
        return (self.residual < self.full) * 1.0


def local_tokens(p: Problem, layouts: LayoutBatch) -> Tokens:
    """Tokens of one microbatch on one device."""
    full = layouts.microbatch_size * p.seq_len / layouts.context
    return Tokens(full=full, residual=full / p.xp.where(layouts.sequence_parallel > 0, layouts.tensor, 1))


def op_costs(p: Problem, ops: Sequence[Op], layouts: LayoutBatch) -> dict[str, OpCost]:
    """Price every op of a layer (or of the head)."""
    tokens = local_tokens(p, layouts)
    matmuls = [op for op in ops if op.kind == "matmul"]
    # Matmuls of one input (Q, K and V; gate and up) run as one, so that it is converted once.
    first = {op.inputs: op.name for op in reversed(matmuls)}
    return {op.name: _op_cost(p, op, tokens, layouts, converts=op.name in first.values()) for op in ops}


def _op_cost(p: Problem, op: Op, tokens: Tokens, layouts: LayoutBatch, *, converts: bool) -> OpCost:
    s, stack = p.inventory.numbers, p.stack
    tp = layouts.tensor
    split = 1.0 if op.shard == "whole" else tp
    rows = tokens.residual if _in_stream(p, op) else tokens.full
    fill = p.capacity_factor if op.expert else 1.0
    output = rows * op.out * fill / (tp if op.shard in ("column", "vocab") else 1.0)
    output = output * _lane_padding(p, op)
    # The element-wise part: a fused pass over `io` elements a token.
    io = rows * op.io * fill / (1.0 if op.shard in ("whole", "row") else tp)
    if op.shard == "vocab":
        io = io * p.xp.where(stack.gathered_logits > 0, tp, 1.0)
    io_bytes = io * p.compute_bytes
    passes = _passes(p, op) * _beyond_caches(p, io_bytes)
    pass_s = io_bytes * passes / (p.device.hbm_bytes_per_s * stack.memory_efficiency)
    launch_s = stack.kernel_gap_s
    flops: Number = 0.0
    bytes_, backward_bytes = io_bytes, io_bytes * ELEMENTWISE_BACKWARD
    forward_s, backward_s = pass_s, pass_s * ELEMENTWISE_BACKWARD
    model_flops: Number = 0.0
    if op.kind == "matmul":
        groups, m, k, n = _matmul_shape(p, op, tokens.full, layouts, split)
        flops = 2.0 * groups * m * k * n
        operands = groups * (m * k + k * n + m * n) * p.compute_bytes
        bytes_, backward_bytes = bytes_ + operands, backward_bytes + 2.0 * operands
        wide = op.shard == "vocab"
        forward_s = forward_s + matmul_s(p, groups, m, k, n, wide=wide) + launch_s
        # Input gradient [m, n] x [n, k], then weight gradient [k, m] x [m, n].
        backward_s = backward_s + matmul_s(p, groups, m, n, k, wide=wide) + matmul_s(p, groups, k, m, n, wide=wide)
        backward_s = backward_s + 2.0 * launch_s
        if not wide:
            forward_s = forward_s + converts * _conversion_s(p, groups * m * k)
            backward_s = backward_s + _conversion_s(p, groups * m * n)
        model_flops = 2.0 * tokens.full * op.rows * op.k * op.n / tp
    elif op.kind == "attention":
        flops, forward_s, backward_s = _attention(p, tokens.full, s.num_heads / tp, layouts)
        bytes_ = tokens.full * (s.num_heads + s.num_kv_heads) / tp * (s.qk_head_dim + s.v_head_dim) * p.compute_bytes
        backward_bytes = 2.0 * bytes_  # reads queries, keys, values, output, its gradient; writes three gradients
        model_flops = attention_flops_per_token(p) * tokens.full / tp
        forward_s, backward_s = forward_s + launch_s, backward_s + launch_s
        backward_s = backward_s + stack.score_recompute * forward_s
    elif op.kind != "gather":
        forward_s, backward_s = forward_s + launch_s, backward_s + launch_s
    if p.device.kind == "cpu":
        ahead, back = _small_kernels(op, layouts)
        forward_s, backward_s = forward_s + ahead * launch_s, backward_s + back * launch_s
    backward_flops = flops * (ATTENTION_BACKWARD_FLOPS if op.kind == "attention" else 2.0)
    return OpCost(
        name=op.name, kind=op.kind, forward_flops=flops, forward_bytes=bytes_, forward_s=forward_s,
        backward_flops=backward_flops, backward_bytes=backward_bytes, backward_s=backward_s,
        output_bytes=output * p.compute_bytes,
        extra_bytes=_extra_bytes(p, op, tokens, output, layouts), model_flops=model_flops,
    )  # fmt: skip


def _small_kernels(op: Op, layouts: LayoutBatch) -> tuple[Number, Number]:
    """Kernels of an op beyond the usual, forward and backward, where starting them costs more than they do.

    Read off the programs that XLA compiles for CPUs, relative to the kernels of a matmul: routing sorts, counts and
    gathers; a ring starts attention anew for the keys of every shard that pass by.
    """
    if op.kind == "exchange":
        return ROUTING_KERNELS, ROUTING_KERNELS
    if op.kind == "attention":
        hops = (layouts.context - 1) * (layouts.context_method == 0)
        return HOP_KERNELS * hops, 1.5 * HOP_KERNELS * hops
    return 0.0, 0.0


def _in_stream(p: Problem, op: Op) -> bool:
    """Whether an op's output is split along the sequence by sequence parallelism.

    In jaxscale's own step only the residual stream is: experts, routers and latents see all of a rank's tokens.
    """
    if not p.stack.spmd:
        return op.shard in ("whole", "row") and op.kind != "gather"
    whole = op.shard == "whole" and (op.kind == "elementwise" or op.name == "combine")
    return whole or (op.shard == "row" and not op.expert)


def _lane_padding(p: Problem, op: Op) -> Number:
    """What a tensor of heads takes in a TPU's memory over what is in it: a head's width fills whole vector lanes."""
    if p.device.kind != "tpu" or not p.stack.spmd or op.name not in HEADS:
        return 1.0
    s = p.inventory.numbers
    width = s.v_head_dim if op.name in ("v", "attention") else s.qk_head_dim
    return _up(width, LANES) / width


def _passes(p: Problem, op: Op) -> Number:
    """Memory traffic of an element-wise op relative to one fused pass, as the stack's kernels have it."""
    if op.name.endswith("_norm"):
        return p.stack.norm_passes
    return p.stack.activation_passes if op.name.endswith("_act") else p.stack.elementwise_passes


def _beyond_caches(p: Problem, bytes_: Number) -> Number:
    """Seconds of a pass over `bytes_` relative to one through memory: a CPU's small arrays stay in its caches."""
    if p.device.kind != "cpu":
        return 1.0
    return CPU_CACHED_PASS + (1.0 - CPU_CACHED_PASS) * bytes_ / (bytes_ + CPU_CACHE_BYTES)


def _extra_bytes(p: Problem, op: Op, tokens: Tokens, output: Number, layouts: LayoutBatch) -> Number:
    """Bytes that a stack keeps beside an op's saved output: float32 statistics, copies of unfused kernels."""
    stack, s = p.stack, p.inventory.numbers
    extra = tokens.full * op.extra_saved / layouts.tensor * 4.0
    if op.name.endswith("_norm"):
        return extra + output * stack.norm_saved_bytes
    if op.name.endswith("_act"):
        return extra + output * stack.activation_saved * p.compute_bytes
    if op.kind == "attention" and stack.attention_kernel == "naive":
        return extra + tokens.full * p.seq_len * s.num_heads / layouts.tensor * stack.score_saved_bytes
    return extra


def _matmul_shape(
    p: Problem, op: Op, tokens: Number, layouts: LayoutBatch, split: Number
) -> tuple[Number, Number, Number, Number]:
    """Groups, m, k, n of a matmul on one device."""
    k = op.k / split if op.shard == "row" else op.k
    n = op.n if op.shard in ("row", "whole") else op.n / split
    if not op.expert:
        return 1.0, tokens * op.rows, k, n
    experts = p.inventory.numbers.num_experts / layouts.expert
    return experts, tokens * op.rows * p.capacity_factor / experts, k, n


def _conversion_s(p: Problem, elements: Number) -> Number:
    """Seconds of scaling and rounding the `elements` of a matmul's input to fp8; zero in stacks that do not.

    Weights are left out: frameworks convert them once a step, for all of its tokens.
    """
    bytes_ = elements * p.compute_bytes * p.stack.cast_passes
    return bytes_ / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)


def matmul_s(p: Problem, groups: Number, m: Number, k: Number, n: Number, *, wide: bool = False) -> Number:
    """Seconds of `groups` matmuls [m, k] x [k, n]; a `wide` one (the logits) stays in bf16 where others are in fp8."""
    flops = 2.0 * groups * m * k * n
    bytes_ = groups * (m * k + k * n + m * n) * p.compute_bytes
    peak = p.device.attention_flops_per_s if wide else p.device.peak_flops_per_s
    compute_s = flops / (peak * matmul_efficiency(p, groups, m, k, n))
    memory_s = bytes_ / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)
    return p.xp.maximum(compute_s, memory_s)


def matmul_efficiency(p: Problem, groups: Number, m: Number, k: Number, n: Number) -> Number:
    """Share of peak FLOP/s that a matmul reaches by its shape.

    Three effects: an asymptote, a ramp in the contraction length (pipeline fill of each output tile), and partly filled
    tiles and waves (Anthony et al., "The Case for Co-Designing Model Architectures with Hardware", arXiv 2401.14489).
    A GPU spreads tiles over its cores in waves; a TPU pads each dim to its matrix unit.
    """
    tile = p.device.matmul_tile
    ramp = k / (k + p.stack.matmul_k_half)
    if p.device.kind == "tpu":
        filled = (m / _up(m, SUBLANES)) * (k / _up(k, tile)) * (n / _up(n, tile))
    else:
        tiles = groups * np.ceil(m / tile) * np.ceil(n / tile)
        filled = groups * m * n / (_up(tiles, p.device.num_cores) * tile * tile)
    # Libraries soften the loss with other tile shapes and split contractions: tile_quantisation says how much is left.
    return p.stack.matmul_efficiency * ramp / (1.0 + p.stack.tile_quantisation * (1.0 / filled - 1.0))


def _up(value: Number, multiple: Number) -> Number:
    return np.ceil(value / multiple) * multiple


def visible_tokens(p: Problem, *, causal: bool) -> Number:
    """Mean number of keys that a query meets, averaged over the layers.

    With `causal=False` masked pairs count too, as MFU's usual convention has it (PaLM, arXiv 2204.02311, appendix B).
    """
    s = p.inventory.numbers
    full = p.seq_len * 0.5 if causal else p.seq_len
    if not s.structure.window:
        return full
    width = p.xp.minimum(s.window, p.seq_len)
    window = width * (1.0 - 0.5 * width / p.seq_len) if causal else width
    share = s.num_window_layers / s.num_layers
    return share * window + (1.0 - share) * full


def attention_flops_per_token(p: Problem, *, causal: bool = False) -> Number:
    """Forward FLOPs of scores and weighted values of one layer, per token, all heads."""
    s = p.inventory.numbers
    return 2.0 * visible_tokens(p, causal=causal) * s.num_heads * (s.qk_head_dim + s.v_head_dim)


def _attention(p: Problem, tokens: Number, heads: Number, layouts: LayoutBatch) -> tuple[Number, Number, Number]:
    """FLOPs, forward and backward seconds of the attention core."""
    s, stack, xp = p.inventory.numbers, p.stack, p.xp
    share = heads / s.num_heads
    if stack.attention_kernel == "naive":
        # A ring meets all keys of its own shard and half of every other (causal, zigzag).
        met = xp.where(layouts.context_method == 0, 0.5 * (1.0 + 1.0 / layouts.context), 1.0)
        flops = attention_flops_per_token(p) * tokens * share * met
        # Scores are written, read by the softmax, written, read by the weighted sum: bytes rule.
        score_bytes = tokens * p.seq_len * heads * p.compute_bytes * met
        at_once = score_bytes / xp.where(layouts.context_method == 0, layouts.context, 1)
        passes = stack.score_passes * _beyond_caches(p, at_once)
        traffic_s = score_bytes * passes / (p.device.hbm_bytes_per_s * stack.memory_efficiency)
        forward_s = traffic_s + flops / (p.device.attention_flops_per_s * stack.matmul_efficiency * 0.5)
        return flops, forward_s, 2.0 * forward_s
    flops = attention_flops_per_token(p, causal=True) * tokens * share
    visible = visible_tokens(p, causal=True)
    ramp = visible / (visible + ATTENTION_CONTEXT_HALF)
    half = stack.attention_head_half
    head = s.qk_head_dim / (s.qk_head_dim + half) / (DEFAULT_HEAD_DIM / (DEFAULT_HEAD_DIM + half))
    rate = p.device.attention_flops_per_s * stack.attention_efficiency * ramp * xp.minimum(head, 1.2)
    rate = rate * xp.where(layouts.context > 1, stack.ring_efficiency, 1.0)
    forward_s = flops / rate
    return flops, forward_s, forward_s * ATTENTION_BACKWARD_FLOPS / stack.attention_backward_ratio


def by_kind(costs: Mapping[str, OpCost], field: str) -> dict[str, Number]:
    """Sum one field of op costs over the kinds matmul, attention and elementwise."""
    sums: dict[str, Number] = {"matmul": 0.0, "attention": 0.0, "elementwise": 0.0}
    for cost in costs.values():
        kind = cost.kind if cost.kind in sums else "elementwise"
        sums[kind] = sums[kind] + getattr(cost, field)
    return sums
