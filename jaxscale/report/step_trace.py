"""A predicted step on a time axis: every microbatch on every stage, what each consists of, collectives, memory.

Stages are drawn alike, each with the mean work of a stage, so that the whole takes the predicted step. Compute of a
forward pass is a third of a microbatch's (a matmul's backward pass is two matmuls); recomputing belongs to the
backward pass; exposed communication is shared between the two as the collectives of each pass are. A collective's own
track shows how long it runs, hidden or not; what of it is exposed stands in the stage's track.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.cost.parts import Parts, at_rows, price_parts
from jaxscale.cost.problem import Problem, problem
from jaxscale.report.pipeline import FAMILIES, FORWARD_SHARE, ONCE_A_STEP
from jaxscale.report.trace import (
    CounterSample,
    Event,
    NamedSeconds,
    TraceRecord,
    counter_events,
    events_json,
    memory_counter,
    record_events,
    stage_events,
)
from jaxscale.report.words import TIME_WORDS
from jaxscale.schedule import Action, Timeline, build, in_flight_steps, replay
from jaxscale.types import Cluster, Estimate, Layout, LayoutBatch, ModelShape, Stack, Workload

COMPUTE = ("matmul", "attention", "elementwise")
TRANSIENT = ("working", "logits", "gathered weights")  # bytes that are there while a backward pass runs
AFTER = ("data", "optimizer", "overhead", "stragglers")  # once a step
MOST_DETAILED = 4096  # actions; beyond that only the first stage's are taken apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One direction of one microbatch through one chunk of a stage: its parts, and its collectives by axis."""

    parts_s: tuple[NamedSeconds, ...]
    collectives_s: tuple[tuple[str, str, float], ...]  # (axis, what, seconds), hidden or not

    @property
    def total_s(self) -> float:
        """Seconds on the stage's track."""
        return sum(seconds for _, seconds in self.parts_s)


def step_trace(e: Estimate, shape: ModelShape, workload: Workload, cluster: Cluster, stack: Stack | None = None) -> str:
    """Write an estimate's step as the text of a trace file for ui.perfetto.dev."""
    p = problem(shape, workload, cluster, stack)
    pieces = price_parts(p, LayoutBatch.from_layouts([e.layout]))
    timeline, passes = step_timeline(e, workload, p, pieces)
    after = tuple((TIME_WORDS[part], e.time_parts_s.get(part, 0.0)) for part in AFTER)
    detailed = timeline.schedule.stages * len(timeline.slices[0]) <= MOST_DETAILED
    events: list[Event] = [
        *stage_events(timeline, inside=lambda action: passes[action.kind].parts_s if detailed else (), after=after),
        *record_events(_records(timeline, passes, pieces, p, e, every_stage=detailed)),
        *counter_events(memory_counters(timeline, e.memory_parts_bytes)),
    ]
    return events_json(events)


def step_timeline(e: Estimate, workload: Workload, p: Problem, pieces: Parts) -> tuple[Timeline, dict[str, Pass]]:
    """The schedule with the durations of a forward (F) and a backward (B) action, which add up to the estimate."""
    microbatches = e.layout.num_microbatches(workload.global_batch_size)
    family, chunks = _family(e.layout, int(p.inventory.numbers.num_layers), spmd=bool(p.stack.spmd))
    schedule = build(family, stages=e.layout.pipeline, microbatches=microbatches, chunks=chunks)
    passes = _passes(e.time_parts_s, _collectives(pieces), microbatches, chunks)
    # One XLA program of these schedules repeats the forward pass of a chunk before its backward.
    again = (("repeated forward of the stage", passes["F"].total_s),) if family in ("scan_1f1b", "scan_modular") else ()
    passes["B"] = dataclasses.replace(passes["B"], parts_s=(*again, *passes["B"].parts_s))
    drawn_s = float(replay(schedule, passes["F"].total_s, passes["B"].total_s).makespan_s)
    wanted_s = sum(seconds for part, seconds in e.time_parts_s.items() if part not in AFTER)
    passes = {kind: _scaled(one, wanted_s / drawn_s) for kind, one in passes.items()}
    return replay(schedule, passes["F"].total_s, passes["B"].total_s), passes


def _family(layout: Layout, num_layers: int, *, spmd: bool) -> tuple[str, int]:
    """The schedule that is drawn and its chunks; on one stage microbatches go one after another, or layer by layer."""
    if layout.pipeline == 1:
        return ("layered", num_layers) if layout.schedule == "layered" else ("1f1b", 1)
    if spmd or layout.schedule == "layered":
        return FAMILIES[layout.schedule], layout.virtual_stages
    return layout.schedule, layout.virtual_stages


def _scaled(one: Pass, factor: float) -> Pass:
    return Pass(
        parts_s=tuple((name, seconds * factor) for name, seconds in one.parts_s),
        collectives_s=tuple((axis, what, seconds * factor) for axis, what, seconds in one.collectives_s),
    )


def _collectives(pieces: Parts) -> dict[str, list[tuple[str, str, float]]]:
    """(axis, what, seconds) of one microbatch through a stage by phase, or of the step."""
    found: dict[str, list[tuple[str, str, float]]] = {"forward": [], "backward": [], "recompute": [], "step": []}
    for exchanges in pieces.exchanges:
        for exchange in exchanges.each:
            seconds = _one(at_rows(exchange.seconds, exchanges.rows)) * _one(exchanges.layers)
            if seconds > 0:
                what = f"{exchange.kind} of {exchange.name} over {'+'.join(exchange.axes)}"
                found[exchange.phase].append((exchange.axis, what, seconds))
    return found


def _one(value: object) -> float:
    """The number of the only row."""
    return float(np.asarray(value).reshape(-1)[0])


def _passes(
    parts_s: Mapping[str, float], comm: Mapping[str, list[tuple[str, str, float]]], microbatches: int, chunks: int
) -> dict[str, Pass]:
    """A forward and a backward action; all actions together hold everything that is not once a step."""
    sent = {"F": comm["forward"], "B": [*comm["backward"], *comm["recompute"]]}
    both = _seconds_by_axis([*sent["F"], *sent["B"]])
    passes = {}
    for kind, compute_share in (("F", FORWARD_SHARE), ("B", 1.0 - FORWARD_SHARE)):
        here = _seconds_by_axis(sent[kind])
        parts = []
        for part, seconds in parts_s.items():
            if part in ONCE_A_STEP or (part == "recompute" and kind == "F"):
                continue
            share = here.get(part, 0.0) / both[part] if both.get(part) else compute_share
            share = 1.0 if part == "recompute" else share
            parts.append((TIME_WORDS.get(part, part), seconds * share / (microbatches * chunks)))
        each = tuple((axis, what, seconds / chunks) for axis, what, seconds in sent[kind])
        passes[kind] = Pass(parts_s=tuple(parts), collectives_s=each)
    return passes


def _seconds_by_axis(sent: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for axis, _, seconds in sent:
        totals[axis] = totals.get(axis, 0.0) + seconds
    return totals


def _records(
    timeline: Timeline, passes: Mapping[str, Pass], pieces: Parts, p: Problem, e: Estimate, *, every_stage: bool
) -> list[TraceRecord]:
    """Collectives and host copies beside the action that they belong to, and the reduction that ends the step."""
    copies_s = _host_copies_s(pieces, p) / timeline.schedule.chunks
    records = []
    for stage in range(timeline.schedule.stages if every_stage else 1):
        for piece in timeline.slices[stage]:
            if not piece.action.idle:
                start_s, end_s = float(piece.start_s), float(piece.end_s)
                records += _beside(stage, piece.action, passes[piece.action.kind], copies_s, start_s, end_s)
        end_s = float(timeline.makespan_s) + e.time_parts_s.get("data", 0.0)
        at_s = max(end_s - sum(seconds for *_, seconds in _collectives(pieces)["step"]), 0.0)
        for axis, what, seconds in _collectives(pieces)["step"]:
            records.append(TraceRecord(what, _track(stage, axis), at_s, max(min(seconds, end_s - at_s), 0.0)))
            at_s += seconds
    return [record for record in records if record.duration_s > 0]


def _beside(stage: int, action: Action, one: Pass, copies_s: float, start_s: float, end_s: float) -> list[TraceRecord]:
    """Each axis sends from the start of the action on, one collective after another."""
    records, free_s = [], {axis: start_s for axis, _, _ in one.collectives_s}
    for axis, what, seconds in one.collectives_s:
        at_s = free_s[axis]
        free_s[axis] = min(at_s + seconds, end_s)
        records.append(TraceRecord(what, _track(stage, axis), at_s, free_s[axis] - at_s))
    if copies_s:
        way = "to the host" if action.kind == "F" else "back from the host"
        records.append(
            TraceRecord(f"activations {way}", _track(stage, "host"), start_s, min(copies_s, end_s - start_s))
        )
    return records


def _track(stage: int, axis: str) -> str:
    return f"stage {stage} {axis}"


def _host_copies_s(pieces: Parts, p: Problem) -> float:
    """Seconds of one microbatch's offloaded activations through a stage, one way."""
    moved = sum(_one(pieces.slots[kind]) * _one(layer.offloaded_bytes) for kind, layer in pieces.layers.items())
    return moved / _one(p.device.host_bytes_per_s)


def memory_counters(timeline: Timeline, parts_bytes: Mapping[str, float]) -> list[CounterSample]:
    """Bytes of each stage over time; the highest of them is the estimate's peak.

    State is always there, saved activations while their microbatch is in flight, the rest while a backward pass runs.
    """
    always = sum(size for part, size in parts_bytes.items() if part not in (*TRANSIENT, "activations"))
    working = sum(parts_bytes.get(part, 0.0) for part in TRANSIENT)
    each = parts_bytes.get("activations", 0.0) / max(timeline.peak_in_flight)
    samples = []
    for stage in range(timeline.schedule.stages):
        counter = memory_counter(stage)
        samples.append(CounterSample(counter, 0.0, always))
        samples += [CounterSample(counter, at, value) for at, value in _levels(timeline, stage, always, each, working)]
    return samples


def _levels(timeline: Timeline, stage: int, always: float, each: float, working: float) -> list[tuple[float, float]]:
    """(seconds, bytes from then on) of a stage; what ends at a moment is gone before what begins then."""
    changes: list[tuple[float, int, float]] = []
    held = 0
    for at, count in in_flight_steps(timeline, stage):
        changes.append((float(at), count - held, each * (count - held)))
        held = count
    for piece in timeline.slices[stage]:
        if piece.action.kind == "B" and not piece.action.idle:
            changes += [(float(piece.start_s), 1, working), (float(piece.end_s), -1, -working)]
    levels, level = [], always
    for at, _, change in sorted(changes):
        level += change
        levels.append((at, max(level, 0.0)))
    return levels
