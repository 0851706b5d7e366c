"""The zoo's `Comms` hooks on a mesh: each is one of the pairs in `collectives`, over the axes of the table of rules."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from jaxscale.runtime.comms.collectives import (
    all_gather_dim,
    all_sum,
    copy_to_shards,
    exchange,
    gather_dim,
    scatter_sum_dim,
    slice_dim,
    sum_both_ways,
    sum_from_shards,
)
from jaxscale.runtime.comms.ring import ring_attention, zigzag_positions
from jaxscale.runtime.placement.rules import CONTEXT_AXES, EXPERT_AXES, TENSOR_AXES, TOKEN_AXES, Axes, AxisRules
from jaxscale.types import Layout
from jaxscale.types.layout import ContextMethod
from jaxscale.zoo import AttentionInputs, AttentionKernel, AttentionSpec, apply_sinks
from jaxscale.zoo.kernels import for_any_positions

Array = jax.Array

_SEQUENCE_DIM = 1  # of the residual stream [b, t, D]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshComms:
    """`Comms` inside the shard_map of a step. Axes of degree 1 are absent from every field."""

    tensor_axes: Axes
    expert_axes: Axes
    context_axes: Axes
    token_axes: Axes
    tensor_size: int
    expert_size: int
    context_size: int
    sequence_parallel: bool
    context_method: ContextMethod

    @property
    def uses_ring(self) -> bool:
        """Whether attention sends keys and values round a ring, by collective-permutes."""
        return bool(self.context_axes) and self.context_method == "ring"

    def tensor_index(self) -> Array | int:
        """This device's place on the tensor axis."""
        return lax.axis_index(self.tensor_axes) if self.tensor_axes else 0

    def enter_column(self, x: Array) -> Array:
        """Stream to full local sequence; backward sums over the tensor axis."""
        if self.sequence_parallel:
            return gather_dim(x, self.tensor_axes, _SEQUENCE_DIM)
        return copy_to_shards(x, self.tensor_axes)

    def leave_row(self, x: Array) -> Array:
        """Partial sums over the tensor axis to stream."""
        if self.sequence_parallel:
            return scatter_sum_dim(x, self.tensor_axes, _SEQUENCE_DIM)
        return sum_from_shards(x, self.tensor_axes)

    def embed_reduce(self, x: Array) -> Array:
        """Partial lookups of the vocabulary's shards to stream."""
        return self.leave_row(x)

    def stream_slice(self, x: Array) -> Array:
        """The part of a whole local sequence that this rank's stream holds."""
        return slice_dim(x, self.tensor_axes, _SEQUENCE_DIM) if self.sequence_parallel else x

    def heads_sum(self, x: Array) -> Array:
        """Sum of a per-token statistic over the heads of all tensor ranks."""
        return sum_both_ways(x, self.tensor_axes)

    def vocab_max(self, x: Array) -> Array:
        """Maximum over the vocabulary's shards."""
        return lax.pmax(x, self.tensor_axes) if self.tensor_axes else x

    def vocab_sum(self, x: Array) -> Array:
        """Sum over the vocabulary's shards."""
        return all_sum(x, self.tensor_axes)

    def attend(
        self,
        kernel: AttentionKernel,
        q: Array,
        k: Array,
        v: Array,
        inputs: AttentionInputs,
        spec: AttentionSpec,
    ) -> Array:
        """Attention of the local queries over the keys of every context shard."""
        if not self.context_axes:
            return kernel(q, k, v, inputs, spec)
        spec = dataclasses.replace(spec, contiguous=False)
        if self.context_method == "all_gather":
            k, v = (gather_dim(x, self.context_axes, _SEQUENCE_DIM) for x in (k, v))
            return for_any_positions(kernel)(q, k, v, self._gather_kv_inputs(inputs), spec)
        sinks, inputs = inputs.sinks, dataclasses.replace(inputs, sinks=None)
        out, lse = ring_attention(q, k, v, inputs, spec, self.context_axes[0])
        return out if sinks is None else apply_sinks(out, lse, sinks)

    def _gather_kv_inputs(self, inputs: AttentionInputs) -> AttentionInputs:
        """Positions and segments of the keys of every context shard; unpacked positions need no collective."""
        if inputs.kv_segments is None:
            seq_len = inputs.kv_positions.shape[1] * self.context_size
            ranks = [zigzag_positions(rank, self.context_size, seq_len) for rank in range(self.context_size)]
            return dataclasses.replace(inputs, kv_positions=jnp.concatenate(ranks)[None])
        positions, segments = (
            all_gather_dim(x, self.context_axes, _SEQUENCE_DIM) for x in (inputs.kv_positions, inputs.kv_segments)
        )
        return dataclasses.replace(inputs, kv_positions=positions, kv_segments=segments)

    def dispatch(self, buffers: Array) -> Array:
        """Expert buffers to their owners: [E, C, D] -> [E/ep, ep*C, D]."""
        return exchange(buffers, self.expert_axes, 0, 1)

    def combine(self, buffers: Array) -> Array:
        """Expert buffers back to where their tokens are: [E/ep, ep*C, D] -> [E, C, D]."""
        return exchange(buffers, self.expert_axes, 1, 0)

    def load_sum(self, counts: Array) -> Array:
        """Tokens sent to each expert, summed over all batch and context shards."""
        return all_sum(counts, self.token_axes)


def mesh_comms(layout: Layout) -> MeshComms:
    """The hooks of one layout."""
    rules = AxisRules(layout=layout)
    return MeshComms(
        tensor_axes=rules.live(TENSOR_AXES),
        expert_axes=rules.live(EXPERT_AXES),
        context_axes=rules.live(CONTEXT_AXES),
        token_axes=rules.live(TOKEN_AXES),
        tensor_size=layout.tensor,
        expert_size=layout.expert,
        context_size=layout.context,
        sequence_parallel=layout.sequence_parallel and layout.tensor > 1,
        context_method=layout.context_method,
    )
