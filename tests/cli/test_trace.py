"""`jaxscale trace`: the trace is well formed by the rules of the Trace Event Format, and adds up to the estimate."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

ASKED = ("llama3-8b", "--cluster", "v5p-64", "--seq-len", "8192", "--global-batch-size", "128")
LAYOUTS = [
    "fsdp=8,tensor=4,sp=true,remat=full",
    "data=2,fsdp=16,zero=1,remat=offload_attention,microbatch=2",
    "fsdp=4,tensor=2,pipeline=4,schedule=1f1b,remat=full",
    "fsdp=4,tensor=2,pipeline=4,schedule=gpipe,remat=dots",
    "fsdp=4,tensor=2,pipeline=4,schedule=interleaved,virtual_stages=2,remat=none",
]
REQUIRED = {
    "X": {"name", "pid", "tid", "ts", "dur"},
    "M": {"name", "pid", "args"},
    "C": {"name", "pid", "ts", "args"},
    "s": {"name", "cat", "id", "pid", "tid", "ts"},
    "f": {"name", "cat", "id", "pid", "tid", "ts", "bp"},
}


def ns(event: dict) -> tuple[int, int]:
    """Start and end of an event on the grid of nanoseconds that trace viewers keep."""
    start = round(event["ts"] * 1000)
    return start, start + round(event.get("dur", 0) * 1000)


def check_format(events: list[dict]) -> None:
    """What ui.perfetto.dev relies on."""
    named = {(e["pid"], e.get("tid")) for e in events if e["ph"] == "M"}
    last = 0
    for event in events:
        assert REQUIRED[event["ph"]] <= event.keys(), event
        if event["ph"] == "M":
            continue
        start, end = ns(event)
        assert last <= start <= end, event  # in order of time
        last = start
        assert (event["pid"], None) in named
        if event["ph"] == "X":
            assert (event["pid"], event["tid"]) in named
            assert event["tid"] > 0  # Perfetto draws thread 0 into the thread numbered as its process
        if event["ph"] == "C":
            assert all(isinstance(value, float) and value >= 0 for value in event["args"].values())
    check_nesting(events)
    check_arrows(events)


def check_nesting(events: list[dict]) -> None:
    """Slices of one track are inside each other or apart; a slice that is half inside is drawn wrongly or dropped."""
    for slices in tracks(events).values():
        open_until: list[int] = []
        for start, end in sorted((ns(s) for s in slices), key=lambda pair: (pair[0], -pair[1])):
            while open_until and open_until[-1] <= start:
                open_until.pop()
            assert not open_until or end <= open_until[-1], (start, end, open_until)
            open_until.append(end)


def check_arrows(events: list[dict]) -> None:
    """Every arrow has two ends, leaves inside a slice, and does not arrive before it left."""
    ends: dict[int, dict[str, dict]] = defaultdict(dict)
    for event in events:
        if event["ph"] in "sf":
            assert event["ph"] not in ends[event["id"]], "an id is used twice"
            ends[event["id"]][event["ph"]] = event
    on = tracks(events)
    for pair in ends.values():
        assert pair.keys() == {"s", "f"}
        assert ns(pair["s"])[0] <= ns(pair["f"])[0]
        for end in pair.values():
            slices = on[end["pid"], end["tid"]]
            assert any(start <= ns(end)[0] < until for start, until in map(ns, slices))


def tracks(events: list[dict]) -> dict[tuple[int, int], list[dict]]:
    found: dict[tuple[int, int], list[dict]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    return found


def outermost(slices: list[dict]) -> list[dict]:
    """Slices of a track that are inside no other."""
    kept: list[dict] = []
    for one in sorted(slices, key=lambda s: (ns(s)[0], -ns(s)[1])):
        if not kept or ns(one)[0] >= ns(kept[-1])[1]:
            kept.append(one)
    return kept


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trace_is_well_formed_and_adds_up(layout: str, jaxscale, tmp_path: Path) -> None:
    path = tmp_path / "step.trace.json"
    answer = jaxscale("trace", *ASKED, "--layout", layout, "--out", str(path), "--json")
    assert answer.code == 0, answer.err
    estimate = json.loads(answer.out)
    events = json.loads(path.read_text())["traceEvents"]
    check_format(events)
    step_ns = estimate["step_time_s"] * 1e9
    stages = {tid: slices for (pid, tid), slices in tracks(events).items() if pid == 1}
    assert len(stages) == estimate["layout"]["pipeline"]
    for slices in stages.values():
        assert sum(end - start for start, end in map(ns, outermost(slices))) == pytest.approx(step_ns, rel=1e-6)
    peak = max(value for e in events if e["ph"] == "C" for value in e["args"].values())
    assert peak == pytest.approx(estimate["memory_bytes"]["total"], rel=1e-6)
    inside = sum(e["dur"] for e in stages[1] if e["name"] == "matrix multiplications") / 1e6
    assert inside == pytest.approx(estimate["time_parts_s"]["matmul"], rel=0.35)  # stages are drawn alike
    assert len([e for e in events if e["ph"] == "s"]) > 0 or estimate["layout"]["pipeline"] == 1


def test_every_axis_that_sends_has_a_track(jaxscale) -> None:
    wanted = {
        LAYOUTS[0]: ("stage 0 fsdp", "stage 0 tensor"),
        LAYOUTS[1]: ("stage 0 data", "stage 0 host"),
        LAYOUTS[2]: ("stage 0 pipeline", "stage 3 fsdp"),
    }
    for layout, names in wanted.items():
        events = json.loads(jaxscale("trace", *ASKED, "--layout", layout).out)["traceEvents"]
        assert {*names, "stage 0"} <= {e["args"]["name"] for e in events if e["name"] == "thread_name"}
        assert any("to the host" in e["name"] for e in events) == ("offload" in layout)


def test_a_layout_that_cannot_run_has_no_trace(jaxscale) -> None:
    answer = jaxscale("trace", *ASKED, "--layout", "fsdp=2,tensor=16")
    assert answer.code == 2
    assert "num_kv_heads" in answer.err


@pytest.mark.slow
def test_the_compiled_schedule_is_well_formed_too(jaxscale, tmp_path: Path) -> None:
    small = ("gpt2-124m", "--cluster", "cpu:8", "--seq-len", "128", "--global-batch-size", "8", "--layout", "fsdp=8")
    answer = jaxscale("compile", *small, "--dump", str(tmp_path / "dump"), "--json", "--no-cache")
    assert answer.code == 0, answer.err
    events = json.loads((tmp_path / "dump" / "step.trace.json").read_text())["traceEvents"]
    check_format(events)
    assert any("all_gather" in event["name"] for event in events)
