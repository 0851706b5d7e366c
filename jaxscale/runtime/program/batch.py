"""A batch, and the part of it that one device sees."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxscale.runtime.comms.collectives import all_sum
from jaxscale.runtime.comms.ring import take_zigzag, zigzag_positions
from jaxscale.runtime.placement.rules import BATCH_AXES, CONTEXT_AXES, AxisRules
from jaxscale.runtime.program.program import Program

Array = jax.Array

NO_TARGET = -1  # of tokens without a next token: they add nothing to the loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Sequences in natural order, [B, T] int32; B is split over the batch axes, T whole on every device.

    A device of the context axis cuts its own tokens out, which costs no collective: token ids are small.
    """

    tokens: Array
    targets: Array  # the next token, or NO_TARGET
    segments: Array | None = None  # document of each token, where documents are packed
    positions: Array | None = None  # place of each token within its document; given exactly where segments are


def batch_spec(rules: AxisRules) -> PartitionSpec:
    """The sharding of every array of a batch."""
    return PartitionSpec(rules.live(BATCH_AXES) or None, None)


def total_weight(program: Program, batch: Batch) -> Array:
    """Tokens with a target in the whole batch, float32, from this device's sequences."""
    local = jnp.sum(batch.targets != NO_TARGET, dtype=jnp.float32)
    return all_sum(local, program.rules.live(BATCH_AXES))


def microbatches(program: Program, batch: Batch) -> Batch:
    """This device's tokens, by microbatch: every array [b, T] -> [m, microbatch_size, T / context]."""
    rank, ranks = _context_rank(program), program.layout.context

    def cut(x: Array) -> Array:
        own = take_zigzag(x, rank, ranks)
        return own.reshape(program.num_microbatches, program.layout.microbatch_size, own.shape[-1])

    return jax.tree.map(cut, batch)


def token_positions(program: Program, microbatch: Batch) -> Array:
    """Positions of this device's tokens, [1|b, t]."""
    if microbatch.positions is not None:
        return microbatch.positions
    return zigzag_positions(_context_rank(program), program.layout.context, program.workload.seq_len)[None]


def _context_rank(program: Program) -> Array | int:
    """This device's place on the context axis."""
    return lax.axis_index(CONTEXT_AXES) if program.layout.context > 1 else 0


def take_microbatch(batches: Batch, index: Any) -> Batch:
    """Microbatch `index` of a stack of them; an index out of range takes the nearest."""
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, index, axis=0, keepdims=False), batches)
