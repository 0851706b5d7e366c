"""Measurements of jaxscale's own training step as runs to calibrate on."""

import math
from collections import Counter
from collections.abc import Sequence

from jaxscale.calibrate.run import Run, Software
from jaxscale.types import STACKS, ModelShape, Workload
from jaxscale.types.measurement import Measurement, MeasureRequest
from jaxscale.types.model import GATED_MLPS

OWN_STACKS = {"cpu": "xla_cpu", "gpu": "xla_gpu", "tpu": "xla_tpu"}
GROUP = "measured"
_OUTCOMES = {"ok": "ok", "out_of_memory": "oom"}


def runs_of(measurements: Sequence[Measurement]) -> list[Run]:
    """Measurements as runs. A step that was measured several times counts as one, each time for a share of it."""
    counts = Counter(repr(measurement.request) for measurement in measurements)
    return [_run(measurement, weight=1.0 / counts[repr(measurement.request)]) for measurement in measurements]


def own_software(chip_kind: str, shape: ModelShape, workload: Workload) -> Software:
    """The kernels of jaxscale's own step."""
    stack = OWN_STACKS[chip_kind]
    return Software(
        stack=stack,
        matmul=workload.precision.matmul,
        attention_kernel=STACKS[stack].attention_kernel,
        fused_elementwise=True,
        gated=shape.mlp in GATED_MLPS,
    )


def _run(measurement: Measurement, *, weight: float) -> Run:
    asked, kind = measurement.request, measurement.request.cluster.chip.kind
    outcome = _OUTCOMES.get(measurement.status, "other_error")
    if outcome == "oom" and kind == "cpu":
        outcome = "other_error"  # of a process that emulates all devices: it says nothing about one of them
    timed = outcome == "ok" and measurement.median_s is not None
    return Run(
        id=measurement.identifier,
        group=GROUP,
        family=asked.shape.name,
        shape=asked.shape,
        workload=asked.workload,
        cluster=asked.cluster,
        layout=asked.layout,
        software=own_software(kind, asked.shape, asked.workload),
        outcome=outcome,
        step_time_s=measurement.median_s if timed else math.nan,  # type: ignore[arg-type]
        peak_memory_bytes=measurement.peak_memory_bytes if measurement.memory_source == "device" else math.nan,
        mfu_reported=math.nan,
        mfu_note="",
        weight=weight,
        comparable=_sweep(asked),
    )


def _sweep(asked: MeasureRequest) -> str:
    """Measurements with the same value differ in layout only."""
    workload = asked.workload
    sizes = f"{workload.global_batch_size}x{workload.seq_len}"
    return f"{asked.shape.name} {asked.cluster.name} {sizes} {workload.precision.name}"
