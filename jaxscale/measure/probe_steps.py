"""Small training steps that a probe times: what no single operation shows.

An emulated device runs hundreds of small operations a layer, whose cost is in how they are started, in copies between
layouts of an array and in what the compiler joins. So beside its microbenchmarks a probe runs whole steps of models of
two layers: the shapes and the axes vary one at a time, and the constants of the stack are fitted to all of them
(`jaxscale.calibrate.own_steps`). None is of a shape that anybody would train.
"""

import dataclasses
from collections.abc import Iterator

from jaxscale.errors import LayoutError
from jaxscale.types import Layout, ModelShape, MoEShape, Precision, Workload, parse_layout
from jaxscale.types.legality import check_layout
from jaxscale.types.measurement import ProbeStep

SMALL = ModelShape(
    name="probe", num_layers=2, d_model=128, num_heads=8, num_kv_heads=8, head_dim=16, d_ff=384, vocab_size=1024
)
SPARSE = dataclasses.replace(
    SMALL, name="probe-moe", moe=MoEShape(num_experts=8, experts_per_token=2, expert_d_ff=192)
)  # fmt: skip
SEQ_LEN = 192


def probe_steps(num_devices: int, precision: Precision) -> tuple[ProbeStep, ...]:
    """The steps that a number of devices can run, without their times."""
    return tuple(step for step in _steps(num_devices, precision) if _runs(step, num_devices))


def _runs(step: ProbeStep, num_devices: int) -> bool:
    try:
        check_layout(step.shape, step.workload, step.layout, num_devices)
    except LayoutError:
        return False
    return True


def _steps(n: int, precision: Precision) -> Iterator[ProbeStep]:
    def step(shape: ModelShape, layout: str, *, batch: int = n, seq_len: int = SEQ_LEN) -> ProbeStep:
        return ProbeStep(
            shape=shape,
            workload=Workload(seq_len=seq_len, global_batch_size=batch, precision=precision),
            layout=_layout(layout),
        )

    alone = f"data={n}"
    yield step(SMALL, alone)
    yield step(dataclasses.replace(SMALL, num_layers=6), alone)
    yield step(dataclasses.replace(SMALL, d_model=192, head_dim=24, d_ff=768), alone)
    yield step(dataclasses.replace(SMALL, vocab_size=4096), alone)
    yield step(SMALL, alone, seq_len=SEQ_LEN // 3)
    yield step(SMALL, alone, seq_len=3 * SEQ_LEN)
    yield step(SMALL, alone, batch=4 * n)
    yield step(SMALL, f"{alone},remat=full")
    yield step(SMALL, f"fsdp={n},zero=3")
    yield step(SMALL, f"fsdp={n},zero=3", batch=4 * n)
    yield step(dataclasses.replace(SMALL, d_model=192, head_dim=24, d_ff=768), f"fsdp={n},zero=1")
    for tensor in (2, n) if n > 2 else (2,):
        yield step(SMALL, f"tensor={tensor},data={n // tensor}")
        yield step(SMALL, f"tensor={tensor},data={n // tensor},sp=true")
    for context in (2, n) if n > 2 else (2,):
        yield step(SMALL, f"context={context},fsdp={n // context},zero=3")
    yield step(SMALL, f"pipeline=2,data={n // 2}", batch=2 * n)
    yield step(SMALL, f"pipeline=2,tensor={n // 2},schedule=gpipe")
    yield step(SMALL, f"pipeline=2,context=2,fsdp={max(n // 4, 1)},zero=3")
    yield step(dataclasses.replace(SMALL, num_layers=4), f"pipeline=4,tensor={max(n // 4, 1)},zero=3")
    yield step(dataclasses.replace(SMALL, num_layers=4), f"pipeline=4,data={max(n // 4, 1)},schedule=gpipe")
    yield step(SPARSE, alone)
    yield step(dataclasses.replace(SPARSE, num_layers=4), alone)
    yield step(SPARSE, f"expert={n},zero=3")
    yield step(SPARSE, f"expert=2,tensor=2,data={max(n // 4, 1)}", batch=2 * n)
    yield step(SPARSE, f"fsdp={n},zero=3", batch=2 * n)


def _layout(text: str) -> Layout:
    """Gradients and optimizer stay whole unless said otherwise, and nothing is recomputed."""
    defaults = "" if "zero=" in text else ",zero=0"
    remat = "" if "remat=" in text else ",remat=none"
    return parse_layout(f"{text}{defaults}{remat},microbatch_size=1")
