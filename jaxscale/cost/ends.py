"""Bytes that embedding and head need for a moment: logits and the gradients of whole tables.

What the TPU compiler writes, and what of it is alive at once, was read off its buffer assignments (libtpu 0.0.52,
`experiments/agreement`).
"""

from jaxscale.cost import parallel
from jaxscale.cost.compute import SUBLANES, Tokens
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.cost.weights import Weights, padded_vocabulary
from jaxscale.types import LayoutBatch

FLOAT32 = 4.0
SPARSECORE_COPIES = 2.33  # of a reduced array: its operand, its result and a third for words in flight
WRITTEN_LOGITS_SHARE = 0.57  # of the model's width, in tokens, from where on their gradient is written
WIDE_UNIT_SHARE = 1.3  # the same on a matrix unit of 256
TENSOR_SPLIT_SHARE = 1.5  # times as much where the vocabulary is split
V5E_TILE = 128  # with a flat torus: v5e; v2 and v3 too, which were not compiled for
LANES = 128


def head_working_bytes(p: Problem, tokens: Tokens, layouts: LayoutBatch) -> Number:
    """Logits in float32, as often as the loss copies them, and their gradient, of this rank's vocabulary."""
    whole = p.xp.where(p.stack.gathered_logits > 0, 1.0, 0.0)
    logits = tokens.full * padded_vocabulary(p, layouts) * (whole + (1.0 - whole) / layouts.tensor)
    pieces = whole * (layouts.tensor > 1) * 2.0 * p.compute_bytes  # what the ranks sent, and the same joined
    held = logits * (p.stack.logit_copies * FLOAT32 + p.compute_bytes + pieces)
    return held + _fused_head_bytes(p, tokens, layouts, logits) if p.stack.spmd else held


def _fused_head_bytes(p: Problem, tokens: Tokens, layouts: LayoutBatch, logits: Number) -> Number:
    """What XLA holds beside one copy of the logits in the head's backward pass.

    Their gradient is made inside the two matmuls that read it, unless a rank has one long sequence: then it is
    written. A soft cap keeps its input beside its output. The stream is there in float32 for the final norm, with its
    gradient, which a sequence-parallel rank has of all tokens.
    """
    d_model = p.inventory.numbers.d_model
    whole_logits = logits * p.compute_bytes
    beside = whole_logits * _written_gradient(p, tokens, layouts)
    if p.device.kind == "tpu":
        # TPU7x writes it always. Once the logits go, it sums the head's gradient on its SparseCores, out of place;
        # that of a tied table waits for the embedding's.
        copies = 1.0 if p.inventory.numbers.structure.tied else SPARSECORE_COPIES
        apart = p.xp.maximum(whole_logits, copies * _table_bytes(p, layouts))
        beside = p.xp.where(p.devices_per_chip == 2, apart, beside)
    stream = d_model * (tokens.residual * (FLOAT32 + p.compute_bytes) + tokens.full * tokens.split * p.compute_bytes)
    return beside + whole_logits * p.inventory.numbers.logit_softcap + stream


def _table_bytes(p: Problem, layouts: LayoutBatch) -> Number:
    """The gradient of a rank's whole table before it is reduced."""
    return padded_vocabulary(p, layouts) / layouts.tensor * p.inventory.numbers.d_model * p.reduce_bytes


def _written_gradient(p: Problem, tokens: Tokens, layouts: LayoutBatch) -> Number:
    """1 where the TPU compiler writes the gradient of the logits, TPU7x apart: never on v5e, nor in part of a tile.

    Elsewhere it is written where a rank's tokens outnumber a share of the model's width, whatever the vocabulary: seen
    for widths of 1024 to 8192 and 16k to 256k rows. That of a soft cap, which takes more to make again, always is.
    """
    if p.device.kind != "tpu":
        return 0.0
    share = p.xp.where(p.device.matmul_tile > LANES, WIDE_UNIT_SHARE, WRITTEN_LOGITS_SHARE)
    share = share * p.xp.where(layouts.tensor > 1, TENSOR_SPLIT_SHARE, 1.0)
    whole_tiles = (padded_vocabulary(p, layouts) / layouts.tensor) % LANES == 0
    many = (tokens.full > share * p.inventory.numbers.d_model) | (p.inventory.numbers.logit_softcap > 0)
    written = (layouts.microbatch_size == 1) & whole_tiles & many
    return p.xp.where(_is_v5e(p), False, written)


def _is_v5e(p: Problem) -> Number:
    return (sum(level.torus for level in p.levels) == 2) & (p.device.matmul_tile == V5E_TILE)


def head_gradient_bytes(p: Problem, layouts: LayoutBatch) -> Number:
    """The head's whole gradient, where it is finished beside the logits and the head: on v5e.

    Elsewhere the stream's gradient comes first, and the head is gone by then; on v5e too with sequence parallelism, and
    where shards of the head are not whole rows of vector registers.
    """
    if p.device.kind != "tpu" or not p.stack.spmd:
        return 0.0
    first = ((layouts.sequence_parallel == 0) | (layouts.tensor == 1)) & (layouts.pipeline == 1)
    return _table_bytes(p, layouts) * _is_v5e(p) * first * _whole_rows(p, layouts)


def head_copy_bytes(p: Problem, layouts: LayoutBatch) -> Number:
    """The gathered head once more, before there are logits: laid out anew where shards are not whole rows."""
    if p.device.kind != "tpu" or not p.stack.spmd:
        return 0.0
    return _table_bytes(p, layouts) * ~_whole_rows(p, layouts)


def _whole_rows(p: Problem, layouts: LayoutBatch) -> Number:
    """Whether ZeRO's shards of the head, and with it of a tied table, begin where a register's rows begin."""
    s = p.inventory.numbers
    rows = padded_vocabulary(p, layouts) / layouts.tensor if s.structure.tied else s.d_model
    group = layouts.fsdp * layouts.expert * layouts.context * layouts.pipeline
    return (layouts.params_shard == 0) | (rows / group % SUBLANES == 0)


def embedding_gradient_bytes(p: Problem, embedding: Weights, layouts: LayoutBatch) -> Number:
    """The gradient of the embedding's whole table, and what it is reduced into: a shard, or a table once more."""
    size: Number = 1.0
    for axis in embedding.group:
        size = size * getattr(layouts, axis)
    size = size * p.xp.where(layouts.grads_shard == 2, layouts.data, 1)
    reduced = p.xp.where(parallel.summed_whole(p, size), 1.0, 1.0 / size) * ((layouts.grads_shard > 0) & (size > 1))
    return embedding.elements * p.reduce_bytes * (1.0 + reduced)
