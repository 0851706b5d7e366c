"""The data-parallel axes of a layout in the two numbers that other tools know: replicas, and shards of one replica."""

import math
from dataclasses import dataclass

from jaxscale.errors import LayoutError
from jaxscale.types import Cluster, Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """ZeRO stage (arXiv 1910.02054: 1 optimizer, 2 gradients, 3 parameters) over `shards`, in `replicas` copies.

    `replicas * shards` is data x fsdp x expert; the context axis shards too, but splits the sequence.
    """

    stage: int
    replicas: int
    shards: int
    notes: tuple[str, ...]


def data_parallel(layout: Layout) -> DataParallel:
    """Translate the three `*_shard` choices; where they differ in width, the narrowest sharded one decides."""
    kinds = (layout.params_shard, layout.grads_shard, layout.optimizer_shard)
    sharded = [kind for kind in kinds if kind != "none"]
    if layout.batch_shards * layout.context == 1 or not sharded:
        return DataParallel(stage=0, replicas=layout.batch_shards, shards=1, notes=())
    notes = ()
    if len(set(sharded)) > 1:
        notes = (
            f"optimizer_shard={layout.optimizer_shard} is wider than params_shard={layout.params_shard}, "
            f"grads_shard={layout.grads_shard}; one width is exported, that of {sharded[0]}.",
        )
    inner = layout.fsdp * layout.expert
    wide = sharded[0] == "data"
    return DataParallel(
        stage=len(sharded),
        replicas=1 if wide else layout.data,
        shards=inner * layout.data if wide else inner,
        notes=notes,
    )


def outer_degrees(layout: Layout, cluster: Cluster) -> dict[str, int]:
    """Share of each axis that crosses the groups of the innermost network (slices of TPUs, GPU nodes).

    Groups are dealt to the outermost axes first, as `axis_order` places them.
    """
    groups = math.prod(tier.size for tier in cluster.tiers[1:])
    outer = {}
    left = groups
    for axis in reversed(layout.axis_order):
        outer[axis] = math.gcd(left, getattr(layout, axis))
        left //= outer[axis]
    if left > 1:
        degrees = ", ".join(f"{axis}={getattr(layout, axis)}" for axis in reversed(layout.axis_order))
        raise LayoutError(
            f"layout: {degrees} cannot be split over the {groups} groups of {cluster.tiers[0].size} chips of "
            f"{cluster.name}: a factor of {left} is left; make an axis a multiple of it"
        )
    return outer
