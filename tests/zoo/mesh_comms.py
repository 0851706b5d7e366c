"""A minimal `Comms` over mesh axes ("tensor", "expert"), to check what the hooks' documentation promises."""

from dataclasses import dataclass

import jax

from jaxscale.zoo import LocalComms


def paired(forward, backward):
    """A linear map with a backward map of its own."""

    @jax.custom_vjp
    def op(x):
        return forward(x)

    op.defvjp(lambda x: (forward(x), None), lambda _, g: (backward(g),))
    return op


def same(x):
    return x


def _sum(x):
    return jax.lax.psum(x, "tensor")


def _gather(x):
    return jax.lax.all_gather(x, "tensor", axis=1, tiled=True)


def _scatter(x):
    return jax.lax.psum_scatter(x, "tensor", scatter_dimension=1, tiled=True)


def _to_owners(x):
    return jax.lax.all_to_all(x, "expert", split_axis=0, concat_axis=1, tiled=True)


def _from_owners(x):
    return jax.lax.all_to_all(x, "expert", split_axis=1, concat_axis=0, tiled=True)


@dataclass(frozen=True)
class MeshComms(LocalComms):
    sequence_parallel: bool = False

    def tensor_index(self):
        return jax.lax.axis_index("tensor")

    def enter_column(self, x):
        return paired(_gather, _scatter)(x) if self.sequence_parallel else paired(same, _sum)(x)

    def leave_row(self, x):
        return paired(_scatter, _gather)(x) if self.sequence_parallel else paired(_sum, same)(x)

    embed_reduce = leave_row

    def stream_slice(self, x):
        if not self.sequence_parallel:
            return x
        part = x.shape[1] // self.tensor_size
        return jax.lax.dynamic_slice_in_dim(x, self.tensor_index() * part, part, axis=1)

    def heads_sum(self, x):
        return paired(_sum, _sum)(x)

    def vocab_max(self, x):
        return jax.lax.pmax(x, "tensor")

    def vocab_sum(self, x):
        return _sum(x)

    def dispatch(self, buffers):
        return paired(_to_owners, _from_owners)(buffers)

    def combine(self, buffers):
        return paired(_from_owners, _to_owners)(buffers)

    def load_sum(self, counts):
        return jax.lax.psum(counts, "expert")


def reduced(grads, infos, *, sequence_parallel):
    """Local gradients to whole ones: sums over the tensor axis as tagged, over experts' batch shards where split."""

    def one(grad, info):
        if info.tensor_grad == "always" or (info.tensor_grad == "sequence" and sequence_parallel):
            grad = jax.lax.psum(grad, "tensor")
        return grad if "experts" in info.dims else jax.lax.psum(grad, "expert")

    return jax.tree.map(one, grads, infos)


def spec_of(info):
    """How a parameter is split: by its named dims."""
    from jaxscale.zoo import EXPERT_DIM, TENSOR_DIMS

    axes = [("tensor" if d in TENSOR_DIMS else "expert" if d == EXPERT_DIM else None) for d in info.dims]
    return jax.sharding.PartitionSpec(*axes)
