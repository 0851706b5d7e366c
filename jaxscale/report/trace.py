"""A step on a time axis, as Chrome trace events: opens in ui.perfetto.dev.

Format: "Trace Event Format" (Google, 2016), JSON object form: `X` complete slices, `C` counters, `s` and `f` the two
ends of an arrow, `M` track names; times in microseconds, on a grid of nanoseconds so that slices meet exactly. Nothing
is written here: the caller writes the text, atomically.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from jaxscale.errors import SpecError
from jaxscale.schedule import KINDS, Action, Slice, Timeline, critical_path, in_flight_steps
from jaxscale.schedule.replay import Seconds

Event = dict[str, Any]

_STAGES, _OTHERS, _COUNTERS = 1, 2, 3  # process ids: one collapsible group of tracks each
_NS_PER_S, _NS_PER_US = 1e9, 1e3

NamedSeconds = tuple[str, float]


class TraceRecord(NamedTuple):
    """Something beside the pipeline stages that takes time: a collective, a host copy. Times in seconds."""

    name: str
    track: str
    start_s: float
    duration_s: float


class CounterSample(NamedTuple):
    """The value of a counter from `time_s` on, until its next sample."""

    counter: str
    time_s: float
    value: float


def trace_json(
    timeline: Timeline, *, records: Iterable[TraceRecord] = (), samples: Iterable[CounterSample] = ()
) -> str:
    """Write a step as the text of a trace file: one track per stage, one per `track` of the records, then counters."""
    return events_json((*stage_events(timeline), *record_events(records), *counter_events(samples)))


def events_json(events: Iterable[Event]) -> str:
    """Write events as the text of a trace file: names of tracks first, the rest in order of time."""
    ordered = sorted(events, key=lambda event: (event["ph"] != "M", event.get("ts", 0.0), -event.get("dur", 0.0)))
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": ordered}, indent=None, separators=(",", ":"))


def stage_events(
    timeline: Timeline,
    *,
    inside: Callable[[Action], Sequence[NamedSeconds]] = lambda action: (),
    after: Sequence[NamedSeconds] = (),
) -> list[Event]:
    """One track per stage: a slice for each action, named by kind, microbatch and chunk, and one for each bubble.

    `inside` gives what an action consists of, drawn below it in that order; `after` follows the schedule on every
    stage. Arrows lead from where a stage's input is made to where it is used.
    """
    critical = set(critical_path(timeline))
    events = [_group_name(_STAGES, f"stages ({timeline.schedule.family})")]
    for stage, row in enumerate(timeline.slices):
        events.append(_track_name(_STAGES, stage, f"stage {stage}"))
        free_s = 0.0
        for slot, piece in enumerate(row):
            if piece.action.idle:
                continue
            start_s, end_s = float(piece.start_s), float(piece.end_s)
            if start_s > free_s:
                events.append(_slice(_STAGES, stage, "bubble", free_s, start_s, {}))
            events.append(_action_slice(timeline, stage, piece, critical_path=(stage, slot) in critical))
            events += _parts(stage, inside(piece.action), start_s, end_s)
            free_s = end_s
        makespan_s = float(timeline.makespan_s)
        if makespan_s > free_s:
            events.append(_slice(_STAGES, stage, "bubble", free_s, makespan_s, {}))
        events += _parts(stage, after, makespan_s, math.inf)
    return events + _arrows(timeline)


def _action_slice(timeline: Timeline, stage: int, piece: Slice, *, critical_path: bool) -> Event:
    action = piece.action
    args = {
        "kind": KINDS[action.kind],
        "microbatch": action.microbatch,
        "chunk": action.chunk,
        "critical_path": critical_path,
    }
    name = action_name(action, timeline.schedule.chunks)
    return _slice(_STAGES, stage, name, float(piece.start_s), float(piece.end_s), args)


def _parts(stage: int, parts: Sequence[NamedSeconds], start_s: float, end_s: float) -> list[Event]:
    """Slices one after another, none beyond the end of what they are parts of."""
    events = []
    for name, seconds in parts:
        until_s = min(start_s + seconds, end_s)
        if seconds > 0:
            events.append(_slice(_STAGES, stage, name, start_s, until_s, {}))
        start_s = until_s
    return events


def _arrows(timeline: Timeline) -> list[Event]:
    """An arrow for each activation (or its gradient) that one stage sends to another."""
    schedule = timeline.schedule
    pieces = {(s, piece.action): piece for s, row in enumerate(timeline.slices) for piece in row}
    events: list[Event] = []
    for (stage, action), piece in pieces.items():
        before = schedule.part(stage, action.chunk) + {"F": -1, "B": 1}.get(action.kind, 0)
        if action.idle or not 0 <= before < schedule.stages * schedule.chunks:
            continue
        source, chunk = schedule.holder(before)
        if source == stage:
            continue
        made = pieces[source, action._replace(chunk=chunk)]
        name = "activations" if action.kind == "F" else "gradients"
        common = {"cat": "send", "name": name, "id": len(events) // 2, "pid": _STAGES}
        events.append(
            {"ph": "s", "tid": _thread(source), "ts": max(_us(made.end_s) - 1e-3, _us(made.start_s)), **common}
        )
        events.append({"ph": "f", "bp": "e", "tid": _thread(stage), "ts": _us(piece.start_s), **common})
    return events


def record_events(records: Iterable[TraceRecord]) -> list[Event]:
    """One track for each name in `track`, in order of first appearance."""
    tracks: dict[str, int] = {}
    slices = []
    for record in records:
        _require_time(f"trace record {record.name!r}", start_s=record.start_s, duration_s=record.duration_s)
        track = tracks.setdefault(record.track, len(tracks))
        start_s = float(record.start_s)
        slices.append(_slice(_OTHERS, track, record.name, start_s, start_s + float(record.duration_s), {}))
    if not slices:
        return []
    names = [_track_name(_OTHERS, track, name) for name, track in tracks.items()]
    return [_group_name(_OTHERS, "communication and host"), *names, *slices]


def counter_events(samples: Iterable[CounterSample]) -> list[Event]:
    """One track for each counter."""
    events = []
    for sample in samples:
        _require_time(f"trace counter {sample.counter!r}", time_s=sample.time_s)
        args = {"value": float(sample.value)}
        events.append({"ph": "C", "pid": _COUNTERS, "name": sample.counter, "ts": _us(sample.time_s), "args": args})
    return [_group_name(_COUNTERS, "memory"), *events] if events else []


def memory_samples(
    timeline: Timeline, *, activation_bytes: float | Sequence[float], resident_bytes: float | Sequence[float] = 0.0
) -> list[CounterSample]:
    """Bytes of each stage over time: what is always there, and the saved activations of each chunk in flight.

    `activation_bytes` are of one microbatch through one chunk; both are one number or one per stage.
    """
    samples = []
    for stage in range(timeline.schedule.stages):
        each, always = (_of_stage(x, stage) for x in (activation_bytes, resident_bytes))
        counter = memory_counter(stage)
        samples.append(CounterSample(counter, 0.0, always))
        samples += [CounterSample(counter, float(at), always + n * each) for at, n in in_flight_steps(timeline, stage)]
    return samples


def memory_counter(stage: int) -> str:
    """The name of a stage's memory track, with its unit; the same in predicted and compiled traces."""
    return f"memory of stage {stage} (bytes)"


def action_name(action: Action, chunks: int) -> str:
    """A short name: F3 is the forward of microbatch 3; with several chunks F3 c1.

    >>> action_name(Action("B", 3, 1), chunks=2)
    'B3 c1'
    """
    return f"{action.kind}{action.microbatch}" + (f" c{action.chunk}" if chunks > 1 else "")


def _of_stage(value: float | Sequence[float], stage: int) -> float:
    return float(value[stage]) if isinstance(value, Sequence) else float(value)


def _slice(group: int, track: int, name: str, start_s: float, end_s: float, args: dict[str, Any]) -> Event:
    event = {"ph": "X", "pid": group, "tid": _thread(track), "name": name}
    event |= {"ts": _us(start_s), "dur": (_ns(end_s) - _ns(start_s)) / _NS_PER_US}
    return event | ({"args": args} if args else {})


def _ns(seconds: Seconds) -> int:
    return round(float(seconds) * _NS_PER_S)


def _us(seconds: Seconds) -> float:
    """Microseconds, on the grid of nanoseconds."""
    return _ns(seconds) / _NS_PER_US


def _thread(track: int) -> int:
    """The thread id of a track: from 1 on, since Perfetto takes thread 0 for the one numbered as its process."""
    return track + 1


def _group_name(group: int, name: str) -> Event:
    return {"ph": "M", "pid": group, "name": "process_name", "args": {"name": name}}


def _track_name(group: int, track: int, name: str) -> Event:
    return {"ph": "M", "pid": group, "tid": _thread(track), "name": "thread_name", "args": {"name": name}}


def _require_time(owner: str, **seconds: float) -> None:
    for field, value in seconds.items():
        if not math.isfinite(value) or value < 0:
            raise SpecError(f"{owner}: {field}={value} must be a finite number of seconds, zero or more")
