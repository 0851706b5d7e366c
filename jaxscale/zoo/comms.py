"""Everything a module asks of a mesh: the `Comms` hooks, and `LocalComms`, which is one device.

Modules never name a mesh axis. They call these hooks at the places where a tensor-, expert- or context-parallel
program must talk, and the runtime passes an implementation whose forward and backward collectives are explicit.
Shapes below: b sequences of a microbatch; t tokens of this context shard; D d_model; N, K local query and kv heads;
H head width; E experts; ep the expert degree. With sequence parallelism the residual stream is [b, t/tp, D], else
[b, t, D].

Gradients follow Megatron's convention: a value that all tensor ranks hold alike has the same, complete cotangent on
every rank; a value of which each rank holds a partial sum has partial cotangents upstream of `enter_column`.
"""

from dataclasses import dataclass
from typing import Protocol

import jax

from jaxscale.zoo.kernels.plain import AttentionInputs, AttentionKernel, AttentionSpec

Array = jax.Array


class Comms(Protocol):
    """What a layer, the embedding and the loss need from the mesh they run on."""

    @property
    def tensor_size(self) -> int:
        """Degree of the tensor axis."""

    @property
    def expert_size(self) -> int:
        """Degree of the expert axis."""

    def tensor_index(self) -> Array | int:
        """This device's place on the tensor axis."""

    def enter_column(self, x: Array) -> Array:
        """Stream to full local sequence: [b, t/tp, D] -> [b, t, D].

        With sequence parallelism all-gather (backward reduce-scatter), else identity (backward all-reduce).
        """

    def leave_row(self, x: Array) -> Array:
        """Partial sums to the stream: [b, t, D] -> [b, t/tp, D].

        With sequence parallelism reduce-scatter (backward all-gather), else all-reduce (backward identity).
        """

    def embed_reduce(self, x: Array) -> Array:
        """As `leave_row`, for the partial embedding lookup of a vocabulary shard."""

    def stream_slice(self, x: Array) -> Array:
        """The part of a whole sequence that this rank's stream holds: [1|b, t, D] -> [1|b, t/tp, D].

        No collective: a slice with sequence parallelism, else identity. Learned positions use it.
        """

    def heads_sum(self, x: Array) -> Array:
        """Sum over tensor ranks of a per-token statistic of all heads, [b, t]; backward is the same sum."""

    def vocab_max(self, x: Array) -> Array:
        """Maximum over tensor ranks, [b, t] float32; never differentiated."""

    def vocab_sum(self, x: Array) -> Array:
        """Sum over tensor ranks, [b, t] float32; never differentiated (the loss has its own backward)."""

    def attend(
        self,
        kernel: AttentionKernel,
        q: Array,
        k: Array,
        v: Array,
        inputs: AttentionInputs,
        spec: AttentionSpec,
    ) -> Array:
        """Attention of the local queries over the keys of every context shard.

        q [b, t, N, H], k and v [b, t, K, H] of this shard; `inputs` holds positions and segments of this shard.
        On one context shard this is `kernel(q, k, v, inputs, spec)`. A ring is built from
        `zoo.block_forward`, `merge_blocks` and `block_backward`.
        """

    def dispatch(self, buffers: Array) -> Array:
        """Expert buffers to their owners: [E, C, D] -> [E/ep, ep*C, D]; backward is `combine`'s exchange."""

    def combine(self, buffers: Array) -> Array:
        """The way back: [E/ep, ep*C, D] -> [E, C, D]."""

    def load_sum(self, counts: Array) -> Array:
        """Tokens sent to each expert, [E] float32, summed over all batch and context shards; not differentiated."""


def _same(self: "LocalComms", x: Array) -> Array:
    return x


@dataclass(frozen=True, slots=True)
class LocalComms:
    """One device: every exchange is the identity."""

    tensor_size: int = 1
    expert_size: int = 1

    def tensor_index(self) -> int:
        """Zero."""
        return 0

    enter_column = leave_row = embed_reduce = stream_slice = heads_sum = _same
    vocab_max = vocab_sum = dispatch = combine = load_sum = _same

    def attend(
        self, kernel: AttentionKernel, q: Array, k: Array, v: Array, inputs: AttentionInputs, spec: AttentionSpec
    ) -> Array:
        """Plain local attention."""
        return kernel(q, k, v, inputs, spec)
