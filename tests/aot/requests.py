"""Requests that the tests share."""

import dataclasses

from jaxscale.aot.request import CompileRequest
from jaxscale.types import Chip, Cluster, Layout, ModelShape, Tier, Workload

SHAPE = ModelShape(
    name="tiny", num_layers=2, d_model=64, num_heads=4, num_kv_heads=2, head_dim=16, d_ff=128, vocab_size=256
)
CPU = Chip(
    name="cpu", kind="cpu", peak_flops_per_s={"bf16": 1e11, "fp32": 1e11}, vector_flops_per_s=1e10, hbm_bytes=4e9,
    usable_hbm_bytes=4e9, hbm_bytes_per_s=1e10, host_bytes_per_s=1e10,
)  # fmt: skip


def cpu_cluster(devices: int) -> Cluster:
    tier = Tier(name="host", kind="switch", shape=(devices,), bytes_per_s=1e10, latency_s=1e-6)
    return Cluster(name=f"cpu:{devices}", chip=CPU, tiers=(tier,), chips_per_host=devices)


def request(name: str = "tiny", **layout) -> CompileRequest:
    chosen = Layout(**({"fsdp": 2} | layout))
    return CompileRequest(
        shape=dataclasses.replace(SHAPE, name=name),
        workload=Workload(seq_len=64, global_batch_size=8),
        layout=chosen,
        cluster=cpu_cluster(chosen.num_devices),
    )
