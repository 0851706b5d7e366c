"""The report of a measured step, beside what was predicted and compiled of it."""

from collections.abc import Sequence

from jaxscale.report.figures.parts import communication_figure, memory_figure, time_figure
from jaxscale.report.figures.readings import (
    Reading,
    measured_time,
    memory_reading,
    memory_readings_figure,
    time_reading,
    time_readings_figure,
)
from jaxscale.report.figures.steps import loss_figure, step_times_figure
from jaxscale.report.kinds.shared import (
    Subject,
    assumptions,
    communication_evidence,
    memory_evidence,
    tiers_of,
    time_evidence,
)
from jaxscale.report.page import Block, Card, Cards, Evidence, Page, Section, Verdict, Verdicts
from jaxscale.report.words import plural, short_layout
from jaxscale.types import Estimate, Stack
from jaxscale.types.measurement import Measurement
from jaxscale.units import format_bytes, format_seconds

MEMORY_OF = {
    "device": "of the fullest device",
    "process": "of the whole process, compiler included",
    "none": "not measured",
}


def measure_page(
    m: Measurement, predicted: Estimate, compiled: Estimate | None = None, stack: Stack | None = None
) -> Page:
    """Lay the report of a measurement out; `compiled` is the compiler's record of the same step, where there is one."""
    asked = m.request
    subject = Subject(shape=asked.shape, workload=asked.workload, cluster=asked.cluster, stack=stack)
    others = [("predicted", predicted), *([("compiled", compiled)] if compiled is not None else [])]
    estimates = [e for _, e in others]
    limit = predicted.memory_limit_bytes
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(m, predicted)),
        Section(anchor="time", heading="Time", blocks=_time(m, others)),
        *(
            [Section(anchor="loss-section", heading="Loss", blocks=(loss_figure(m.losses, _steps(m)),))]
            if m.losses
            else []
        ),
        Section(
            anchor="memory-section",
            heading="Memory",
            blocks=(
                memory_readings_figure(_memory_readings(m, others), limit, _memory_evidence(m, estimates)),
                memory_figure(others, limit, memory_evidence(estimates)),
            ),
        ),
        Section(
            anchor="communication-section",
            heading="Communication",
            blocks=(communication_figure(others, communication_evidence(estimates)),),
        ),
        assumptions(subject, _provenance(m), predicted=predicted),
    ]
    return Page(
        title=f"{asked.shape.name} on {asked.cluster.name}: jaxscale measure",
        eyebrow=subject.eyebrow("measure"),
        headline=_headline(m, predicted),
        lead=(f"Layout {short_layout(asked.layout)}.",),
        sections=sections,
    )


def _headline(m: Measurement, predicted: Estimate) -> str:
    what = f"{m.request.shape.name} on {m.num_devices or m.request.cluster.num_devices} x {m.device_kind or 'devices'}"
    if m.median_s is None:
        return f"{what}: no step was timed ({m.status}: {m.message})."
    off = predicted.step_time_s / m.median_s - 1.0
    where = " (emulated on this machine's cores: no evidence for chips)" if m.request.emulated else ""
    expected = f"predicted {format_seconds(predicted.step_time_s)}, {off:+.0%}"
    return f"{what} takes {format_seconds(m.median_s)} a step; {expected}{where}."


def _answer(m: Measurement, predicted: Estimate) -> tuple[Block, ...]:
    cards = []
    if m.median_s is not None and m.spread_s is not None:
        outliers = f", {plural(len(m.outliers), 'outlier')}" if m.outliers else ""
        note = f"+- {format_seconds(m.spread_s)} over {plural(len(m.step_times_s), 'step')}{outliers}"
        cards.append(Card(name="Step time", value=format_seconds(m.median_s), note=note))
        cards.append(Card(name="Predicted", value=format_seconds(predicted.step_time_s), note=_inside(m, predicted)))
    if m.tokens_per_s_per_chip is not None:
        cards.append(Card(name="Throughput", value=f"{m.tokens_per_s_per_chip:,.0f}", note="tokens/s per chip"))
    if m.mfu is not None and m.hfu is not None:
        cards.append(Card(name="MFU", value=f"{m.mfu:.1%}", note=f"HFU {m.hfu:.1%}, of the cluster's stated peak"))
    if m.memory_source != "none":
        cards.append(Card(name="Memory", value=format_bytes(m.peak_memory_bytes), note=MEMORY_OF[m.memory_source]))
    if m.compile_s:
        cards.append(Card(name="Compiling took", value=format_seconds(m.compile_s), note="before the first step"))
    return (Cards(cards=cards), Verdicts(verdicts=_verdicts(m)))


def _inside(m: Measurement, predicted: Estimate) -> str:
    low, high = predicted.interval_80_s or (predicted.lower_s, predicted.upper_s)
    assert m.median_s is not None, "asked of a timed run"
    return (
        "measured is inside its 80% interval" if low <= m.median_s <= high else "measured is outside its 80% interval"
    )


def _verdicts(m: Measurement) -> list[Verdict]:
    ran = Verdict(passed=m.status == "ok", sentence=f"status {m.status}{f': {m.message}' if m.message else ''}")
    if not m.losses:
        return [ran]
    span = f"from {m.losses[0]:.4f} to {m.losses[-1]:.4f}"
    fell = Verdict(passed=m.loss_falls, sentence=f"the loss went {span} on one batch")
    finite = Verdict(passed=m.loss_is_finite, sentence="every loss is a finite number")
    return [ran, fell, finite]


def _steps(m: Measurement) -> Evidence:
    steps = plural(len(m.step_times_s), "timed step")
    sure = f"{steps} after {len(m.warmup_times_s)} of warm-up, from call to last result."
    return Evidence(tiers=("measured",), sure=sure)


def _time(m: Measurement, others: Sequence[tuple[str, Estimate]]) -> tuple[Block, ...]:
    estimates = [e for _, e in others]
    sure = time_evidence(estimates)
    every = Evidence(tiers=(*tiers_of(estimates), "measured"), sure=f"{sure.sure} {_steps(m).sure}")
    readings = [time_reading(label, e) for label, e in others]
    measured = measured_time(m)
    if measured is not None:
        readings.append(measured)
    blocks: list[Block] = [time_readings_figure(readings, every)]
    if m.step_times_s or m.warmup_times_s:
        blocks.append(step_times_figure(m.warmup_times_s, m.step_times_s, m.outliers, estimates[0], every))
    return (*blocks, time_figure(others, sure))


def _memory_readings(m: Measurement, others: Sequence[tuple[str, Estimate]]) -> list[Reading]:
    readings = [memory_reading(label, e) for label, e in others]
    if m.memory_source != "none":
        label = "measured" if m.memory_source == "device" else "measured, whole process"
        readings.append(Reading(label=label, tier="measured", value=m.peak_memory_bytes))
    return readings


def _memory_evidence(m: Measurement, estimates: Sequence[Estimate]) -> Evidence:
    sure = memory_evidence(estimates)
    if m.memory_source == "none":
        return sure
    return Evidence(tiers=(*sure.tiers, "measured"), sure=f"{sure.sure} Measured: {MEMORY_OF[m.memory_source]}.")


def _provenance(m: Measurement) -> tuple[str, ...]:
    said = [f"Run {m.identifier}, started {m.started_at} (UTC), seed {m.request.seed}."]
    if m.surroundings is not None:
        s = m.surroundings
        said.append(
            f"Host {s.host}: {plural(s.num_cores, 'core')}, load {s.load_before:.1f} before, {s.load_after:.1f} after."
        )
        said.append(f"Software: {', '.join(f'{name} {version}' for name, version in s.versions.items())}.")
        said.append(f"Revision {s.git_revision or 'none'}, source {s.source_digest[:12]}.")
        if s.flags:
            said.append(f"Flags: {', '.join(f'{name}={value}' for name, value in s.flags.items())}.")
    return tuple(said)
