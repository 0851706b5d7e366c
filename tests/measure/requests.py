"""Small steps to measure."""

from jaxscale.catalog import load_cluster
from jaxscale.types import ModelShape, Workload, parse_layout
from jaxscale.types.measurement import MeasureRequest


def request(
    name: str = "tiny", *, layout: str = "fsdp=2", cluster: str = "cpu:2", num_steps: int = 3
) -> MeasureRequest:
    return MeasureRequest(
        shape=ModelShape(
            name=name, num_layers=1, d_model=32, num_heads=2, num_kv_heads=2, head_dim=16, d_ff=64, vocab_size=128
        ),
        workload=Workload(seq_len=32, global_batch_size=4),
        layout=parse_layout(layout),
        cluster=load_cluster(cluster),
        num_steps=num_steps,
        num_warmup_steps=1,
    )
