"""What a compiler or a device must be asked: compile and measure one step, each in a process of its own."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxscale.api.inputs import AnyCluster, AnyLayout, Model, layout_of, subject_of
from jaxscale.api.result import Result, estimate_row
from jaxscale.cost import estimate, metrics, problem
from jaxscale.report.kinds.compile import CompilerFacts, compile_page
from jaxscale.report.kinds.measure import measure_page
from jaxscale.report.kinds.shared import Subject
from jaxscale.report.page import Page
from jaxscale.types import Estimate, Workload
from jaxscale.types.measurement import Measurement, MeasureRequest

if TYPE_CHECKING:
    from jaxscale.aot.result import CompiledStep

COMPILE_TIMEOUT_S = 1800.0
WATCHDOG_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation(Result):
    """One step as compiled beside what was predicted of it; `step` holds memory classes, buffers and the program."""

    subject: Subject
    predicted: Estimate
    compiled: Estimate
    step: "CompiledStep"
    facts: CompilerFacts

    def rows(self) -> list[dict[str, Any]]:
        """The predicted step, then the compiled one."""
        return [estimate_row(self.predicted), estimate_row(self.compiled)]

    def page(self) -> Page:
        """The report of `jaxscale compile`."""
        return compile_page(self.subject, self.predicted, self.compiled, self.facts)

    def to_json(self) -> dict[str, Any]:
        """Both records and how the compile went."""
        return {
            "model": self.subject.shape.name,
            "cluster": self.subject.cluster.name,
            "status": self.step.status,
            "message": self.step.message,
            "predicted": self.predicted.to_json(),
            "compiled": self.compiled.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMeasurement(Result):
    """One step as measured beside what was predicted of it; `measurement` holds times, losses and surroundings."""

    subject: Subject
    predicted: Estimate
    measurement: Measurement

    def rows(self) -> list[dict[str, Any]]:
        """One row a step, warm-up included: its seconds and its loss."""
        m = self.measurement
        losses = dict(enumerate(m.losses))
        far = {len(m.warmup_times_s) + i for i in m.outliers}
        return [
            {"step": i, "warmup": i < len(m.warmup_times_s), "outlier": i in far, "seconds": s, "loss": losses.get(i)}
            for i, s in enumerate((*m.warmup_times_s, *m.step_times_s))
        ]

    def page(self) -> Page:
        """The report of `jaxscale measure`."""
        return measure_page(self.measurement, self.predicted, stack=self.subject.stack)

    def to_json(self) -> dict[str, Any]:
        """The prediction and what was measured."""
        m = self.measurement
        return {
            "status": m.status,
            "message": m.message,
            "step_time_s": m.median_s,
            "spread_s": m.spread_s,
            "step_times_s": list(m.step_times_s),
            "losses": list(m.losses),
            "peak_memory_bytes": m.peak_memory_bytes,
            "mfu": m.mfu,
            "hfu": m.hfu,
            "predicted": self.predicted.to_json(),
        }


def compile_step(
    model: Model,
    workload: Workload,
    cluster: AnyCluster,
    layout: AnyLayout,
    *,
    flags: Sequence[str] = (),
    timeout_s: float = COMPILE_TIMEOUT_S,
) -> Compilation:
    """Compile the real training step ahead of time for a described cluster; no accelerator is needed.

    `flags` are compiler options as `name=value`. Answers are kept: the same step is compiled once. Minutes, in a
    process of its own.
    """
    from jaxscale.aot import compile_step as compiled_step
    from jaxscale.api.compiled import compile_request, compiled_estimate
    from jaxscale.api.facts import compiler_facts

    about = subject_of(model, workload, cluster)
    given = (about.shape, about.workload, about.cluster)
    chosen = layout_of(layout)
    predicted = estimate(*given, chosen, about.stack)
    step = compiled_step(compile_request(*given, chosen, flags=tuple(flags)), timeout_s=timeout_s)
    return Compilation(
        subject=about, predicted=predicted, compiled=compiled_estimate(step, *given), step=step,
        facts=compiler_facts(step, problem(*given)),
    )  # fmt: skip


def measure_step(
    model: Model,
    workload: Workload,
    cluster: AnyCluster,
    layout: AnyLayout,
    *,
    num_steps: int = 10,
    num_warmup_steps: int = 2,
    seed: int = 0,
    watchdog_s: float = WATCHDOG_S,
) -> StepMeasurement:
    """Run the real training step on devices that are there, or emulated ("cpu:8"), and time it.

    Out of memory, NaN, a hang (`watchdog_s` seconds without a sign of life) and a crash are answers:
    `measurement.status` says which. In a process of its own.
    """
    from jaxscale.measure import measure

    about = subject_of(model, workload, cluster)
    chosen = layout_of(layout)
    predicted = estimate(about.shape, about.workload, about.cluster, chosen, about.stack)
    request = MeasureRequest(
        shape=about.shape, workload=about.workload, layout=chosen, cluster=about.cluster, num_steps=num_steps,
        num_warmup_steps=num_warmup_steps, seed=seed,
    )  # fmt: skip
    measured = with_utilisation(measure(request, watchdog_s=watchdog_s))
    return StepMeasurement(subject=about, predicted=predicted, measurement=measured)


def with_utilisation(measurement: Measurement) -> Measurement:
    """The measurement with MFU and HFU: FLOPs by the cost model's convention, time as measured."""
    median_s = measurement.median_s
    if median_s is None:
        return measurement
    asked = measurement.request
    predicted = estimate(asked.shape, asked.workload, asked.cluster, asked.layout)
    p = problem(asked.shape, asked.workload, asked.cluster)
    devices = asked.cluster.num_devices
    return dataclasses.replace(
        measurement,
        mfu=float(metrics.mfu(p, predicted.model_flops * devices, median_s)),
        hfu=float(metrics.mfu(p, predicted.hardware_flops * devices, median_s)),
    )
