"""The Chrome trace: everything of the timeline is in it once, and adds up."""

import json
from itertools import pairwise

import pytest

from jaxscale.errors import SpecError
from jaxscale.report.trace import CounterSample, TraceRecord, memory_samples, trace_json
from jaxscale.schedule import FAMILIES, Timeline, build, replay


def timeline_of(family: str) -> Timeline:
    return replay(build(family, stages=4, microbatches=8), [1, 1, 1, 2], [2, 2, 2, 4], weight_s=1, send_s=0.125)


def slices(text: str, group: int) -> dict[int, list[dict]]:
    """Slices of one group of tracks, by track from 0 on, in order of time."""
    tracks: dict[int, list[dict]] = {}
    for event in json.loads(text)["traceEvents"]:
        if event["ph"] == "X" and event["pid"] == group:
            tracks.setdefault(event["tid"] - 1, []).append(event)
    return {track: sorted(events, key=lambda e: e["ts"]) for track, events in tracks.items()}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_work_and_bubbles_fill_every_stage(family: str) -> None:
    timeline = timeline_of(family)
    tracks = slices(trace_json(timeline), 1)
    assert sorted(tracks) == [0, 1, 2, 3]
    for stage, events in tracks.items():
        assert events[0]["ts"] == 0
        assert all(a["ts"] + a["dur"] == b["ts"] for a, b in pairwise(events))
        assert events[-1]["ts"] + events[-1]["dur"] == timeline.makespan_s * 1e6
        idle_us = sum(e["dur"] for e in events if e["name"] == "bubble")
        assert idle_us == timeline.idle_s[stage] * 1e6
        names = [e["name"] for e in events if e["name"] != "bubble"]
        kinds = "FBW" if family == "zero_bubble" else "FB"
        assert sorted(names) == sorted(f"{kind}{i}" for kind in kinds for i in range(8))


def test_slices_name_kind_microbatch_and_chunk() -> None:
    timeline = replay(build("interleaved", stages=2, microbatches=2, chunks=2), 1, 2)
    first = slices(trace_json(timeline), 1)[0][0]
    assert first["name"] == "F0 c0"
    assert first["args"] == {"kind": "forward", "microbatch": 0, "chunk": 0, "critical_path": True}


def test_records_are_on_tracks_of_their_own() -> None:
    records = (
        TraceRecord("all-gather weights", "fsdp", 0.5, 0.25),
        TraceRecord("offload inputs", "host copies", 1.0, 2.0),
        TraceRecord("reduce-scatter gradients", "fsdp", 3.0, 0.5),
    )
    text = trace_json(timeline_of("1f1b"), records=records)
    tracks = slices(text, 2)
    assert [e["name"] for e in tracks[0]] == ["all-gather weights", "reduce-scatter gradients"]
    assert [(e["ts"], e["dur"]) for e in tracks[1]] == [(1e6, 2e6)]
    names = [e["args"]["name"] for e in json.loads(text)["traceEvents"] if e["name"] == "thread_name" and e["pid"] == 2]
    assert names == ["fsdp", "host copies"]


def test_memory_counter_peaks_with_the_activations_in_flight() -> None:
    timeline = timeline_of("1f1b")
    samples = memory_samples(timeline, activation_bytes=10.0, resident_bytes=[100.0, 200.0, 300.0, 400.0])
    for stage, (peak, always) in enumerate(zip(timeline.peak_in_flight, (100, 200, 300, 400), strict=True)):
        values = [s.value for s in samples if s.counter == f"memory of stage {stage} (bytes)"]
        assert values[0] == values[-1] == always
        assert max(values) == always + 10 * peak
    events = json.loads(trace_json(timeline, samples=samples))["traceEvents"]
    assert sum(e["ph"] == "C" for e in events) == len(samples)


def test_times_before_the_step_are_refused() -> None:
    with pytest.raises(SpecError, match=r"'copy': start_s=-1\.0 must be"):
        trace_json(timeline_of("1f1b"), records=[TraceRecord("copy", "host", -1.0, 1.0)])
    with pytest.raises(SpecError, match="'hbm': time_s=nan must be"):
        trace_json(timeline_of("1f1b"), samples=[CounterSample("hbm", float("nan"), 1.0)])
