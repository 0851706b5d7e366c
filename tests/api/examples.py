"""Answers of a compiler and of devices, made up; and a small table of runs."""

import dataclasses
from pathlib import Path

from jaxscale import Workload, predict_step, validate_runs
from jaxscale.aot.result import CompiledMemory, CompiledStep
from jaxscale.aot.targets import target_of
from jaxscale.api.facts import compiler_facts
from jaxscale.api.observed import Compilation, StepMeasurement
from jaxscale.api.tables import StackCalibration
from jaxscale.calibrate import calibration_for
from jaxscale.catalog import load_cluster
from jaxscale.cost import problem
from jaxscale.types.measurement import Measurement, MeasureRequest

WORKLOAD = Workload(seq_len=2048, global_batch_size=32)
PREDICTION = predict_step("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8")


def compilation() -> Compilation:
    """A step that compiled to twice a gigabyte."""
    about, e = PREDICTION.subject, PREDICTION.estimate
    memory = CompiledMemory(
        arguments_bytes=1e9, outputs_bytes=0.0, temporaries_bytes=1e9, code_bytes=0.0, aliased_bytes=0.0,
        host_bytes=0.0, peak_bytes=2e9,
    )  # fmt: skip
    step = CompiledStep(
        status="compiled", message="", layout=e.layout, model=about.shape.name, cluster=about.cluster.name,
        target=target_of(load_cluster("cpu:8")), memory=memory, memory_limit_bytes=e.memory_limit_bytes,
    )  # fmt: skip
    compiled = dataclasses.replace(e, tier="compiled", memory_bytes=2e9, memory_parts_bytes=memory.parts_bytes)
    facts = compiler_facts(step, problem(about.shape, about.workload, about.cluster))
    return Compilation(subject=about, predicted=e, compiled=compiled, step=step, facts=facts)


def step_measurement() -> StepMeasurement:
    """Two steps of warm-up and six that count, one of them slow."""
    about, e = PREDICTION.subject, PREDICTION.estimate
    request = MeasureRequest(shape=about.shape, workload=about.workload, layout=e.layout, cluster=about.cluster)
    measurement = Measurement(
        identifier="0123456789", started_at="2026-01-01T00:00:00+00:00", request=request, status="ok",
        warmup_times_s=(2.0, 1.1), step_times_s=(1.0, 1.01, 0.99, 1.0, 3.0, 1.0), losses=(9.0, 8.0, 7.0),
    )  # fmt: skip
    return StepMeasurement(subject=about, predicted=e, measurement=measurement)


def stack_calibration(folder: Path) -> StackCalibration:
    """The shipped constants moved a little, as if the runs of the table had done it."""
    table = folder / "runs.csv"
    table.write_text(runs_table())
    runs = validate_runs(table).runs
    start = calibration_for(runs[0].software.stack, runs[0].chip)
    moved = {name: dataclasses.replace(found, value=1.01 * found.value) for name, found in start.fitted.items()}
    return StackCalibration(runs=runs, start=start, calibration=dataclasses.replace(start, fitted=moved))


def runs_table() -> str:
    """Three runs that differ in tensor, and one on hardware that does not exist."""
    shape = "16,4096,32,32,128,11008,swiglu,2048,64"
    rows = [
        f"run-{tp},{chip},16,{shape},{tp},1,none,ok,{seconds},Megatron-LM"
        for tp, chip, seconds in ((1, "a100-sxm-80gb", 1.5), (2, "a100-sxm-80gb", 1.6), (4, "a100-sxm-80gb", 2.0),
                                  (8, "abacus", 1.0))
    ]  # fmt: skip
    header = (
        "id,hardware,num_chips,num_layers,d_model,num_q_heads,num_kv_heads,head_dim,d_ff,mlp_type,seq_len,"
        "global_batch_seqs,tp,pp,recompute,outcome,step_time_s,framework"
    )
    return "\n".join((header, *rows)) + "\n"
