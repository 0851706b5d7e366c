"""Small problems whose whole space can be searched by brute force."""

import dataclasses
import itertools

import numpy as np

from jaxscale.catalog import load_cluster
from jaxscale.types import REMAT_POLICIES, Cluster, LayoutBatch, ModelShape, MoEShape, Workload
from jaxscale.types.layout import BATCH_FIELDS, SCHEDULES, SHARDS
from jaxscale.types.legality import illegal_reasons

DENSE = ModelShape(
    name="small", num_layers=4, d_model=512, num_heads=4, num_kv_heads=2, head_dim=128, d_ff=1024, vocab_size=32000
)
SPARSE = dataclasses.replace(
    DENSE, name="small-moe", num_layers=3, moe=MoEShape(num_experts=4, experts_per_token=2, expert_d_ff=512)
)
WORKLOAD = Workload(seq_len=1024, global_batch_size=8)


def cluster(name: str = "h100-sxm:8", memory_bytes: float | None = None) -> Cluster:
    """A cluster of the catalogue, with another amount of memory."""
    found = load_cluster(name)
    if memory_bytes is None:
        return found
    chip = dataclasses.replace(found.chip, hbm_bytes=memory_bytes, usable_hbm_bytes=memory_bytes)
    return dataclasses.replace(found, chip=chip)


def every_layout(shape: ModelShape, workload: Workload, num_devices: int) -> LayoutBatch:
    """Every legal layout that can be written down, equivalent ones and all.

    Only words without a meaning are left out: `shard=data` on a single data replica, `shard=fsdp` on a group of one.
    """
    degrees = [d for d in range(1, num_devices + 1) if num_devices % d == 0]
    meshes = [m for m in itertools.product(degrees, repeat=6) if np.prod(m) == num_devices]
    shards = [t for t in itertools.product(range(3), repeat=3) if list(t) == sorted(t)]
    batches = [b for b in range(1, workload.global_batch_size + 1) if workload.global_batch_size % b == 0]
    schedules = [(s, v) for s in range(len(SCHEDULES)) for v in range(1, shape.num_layers + 1)]
    options = [
        (microbatch, sequence, *shard, remat, schedule, v, method, offload)
        for microbatch, sequence, shard, remat, (schedule, v), method, offload in itertools.product(
            batches, (0, 1), shards, range(len(REMAT_POLICIES)), schedules, (0, 1), (0, 1)
        )
    ]
    return _legal(shape, workload, num_devices, np.array(meshes), np.array(options))


def _legal(
    shape: ModelShape, workload: Workload, num_devices: int, meshes: np.ndarray, options: np.ndarray
) -> LayoutBatch:
    kept = []
    for mesh in meshes:
        rows = np.concatenate([np.repeat(mesh[None], len(options), axis=0), options], axis=1)
        batch = LayoutBatch(**dict(zip(BATCH_FIELDS, rows.T.copy(), strict=True)))
        broken = np.logical_or.reduce(list(illegal_reasons(shape, workload, batch, num_devices).values()))
        shards = np.stack([batch.params_shard, batch.grads_shard, batch.optimizer_shard])
        empty = (batch.data == 1) & (shards == SHARDS.index("data")).any(axis=0)
        group = batch.fsdp * batch.expert * batch.context * batch.pipeline
        empty |= (group == 1) & (shards == SHARDS.index("fsdp")).any(axis=0)
        kept.append(rows[~broken & ~empty])
    return LayoutBatch(**dict(zip(BATCH_FIELDS, np.concatenate(kept).T.copy(), strict=True)))
