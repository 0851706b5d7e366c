"""Measure a layout's training step, in a child process that may run out of memory, hang or die."""

import math
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from jaxscale.measure.events import Ending, Event, run_child
from jaxscale.measure.surroundings import load_afterwards, look_around
from jaxscale.types.codec import decode, encode
from jaxscale.types.legality import check_layout
from jaxscale.types.measurement import Measurement, MeasurementStatus, MeasureRequest
from jaxscale.types.noise import NoiseScale

CHILD_MODULE = "jaxscale.measure.step_child"
DEFAULT_WATCHDOG_S = 600.0
OUT_OF_MEMORY_MARKS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "MemoryError", "bad_alloc")


def measure(
    request: MeasureRequest,
    *,
    watchdog_s: float = DEFAULT_WATCHDOG_S,
    timeout_s: float = math.inf,
    on_event: Callable[[str], None] = lambda phase: None,
) -> Measurement:
    """Run a step and say what it took; out of memory, NaN, hang and crash are results with a status and a message.

    The watchdog waits `watchdog_s` for each sign of life: compile, initial state, and every step; all together may take
    `timeout_s`. `on_event` is told each phase as it ends. Raises LayoutError where the layout cannot run this model and
    batch on the cluster.
    """
    check_layout(request.shape, request.workload, request.layout, request.cluster.num_devices)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    environment = child_environment(emulated=request.emulated)
    before = look_around(environment)
    events: list[Event] = []
    ending = Ending(returncode=None, last_words="")
    end = time.monotonic() + timeout_s
    for event in run_child(
        CHILD_MODULE, encode(request), environment=environment, watchdog_s=watchdog_s, timeout_s=timeout_s
    ):
        if isinstance(event, Ending):
            ending = event
        else:
            events.append(event)
            on_event(event["phase"])
    fields = _fold(events)
    timed_out = time.monotonic() >= end
    waited = (
        f"not done within {timeout_s:g} s, still at work" if timed_out else f"nothing was heard for {watchdog_s:g} s"
    )
    status, message = _verdict(events, ending, fields, waited)
    return Measurement(
        identifier=uuid.uuid4().hex,
        started_at=started_at,
        request=request,
        status=status,
        message=message,
        surroundings=load_afterwards(before),
        **fields,
    )


def child_environment(*, emulated: bool) -> dict[str, str]:
    """What a measuring process needs beside this one's environment."""
    return {"JAX_PLATFORMS": "cpu"} if emulated else {}


def _fold(events: list[Event]) -> dict[str, Any]:
    """Fields of the measurement that the events give."""
    fields: dict[str, Any] = {"losses": (), "warmup_times_s": (), "step_times_s": ()}
    for event in events:
        if event["phase"] in ("warmup", "step"):
            times = "warmup_times_s" if event["phase"] == "warmup" else "step_times_s"
            fields[times] += (event["seconds"],)
            fields["losses"] += (event["loss"],)
        elif event["phase"] == "noise":
            fields["noise"] = decode(NoiseScale, event["noise"])
        elif event["phase"] != "error":
            fields |= {key: value for key, value in event.items() if key != "phase"}
    return fields


def _verdict(events: list[Event], ending: Ending, fields: dict[str, Any], waited: str) -> tuple[MeasurementStatus, str]:
    reached = events[-1]["phase"] if events else "start"
    bad = next((i for i, loss in enumerate(fields["losses"]) if not math.isfinite(loss)), None)
    if bad is not None:
        return "not_a_number", f"the loss of step {bad} is {fields['losses'][bad]}"
    if reached == "done":
        return "ok", ""
    if reached == "error":
        words = events[-1]["message"]
        return ("out_of_memory" if _is_out_of_memory(words) else "crash"), words
    if ending.returncode is None:
        return "hang", f"{waited} after {reached!r}; the process was stopped"
    words = f"after {reached!r} {ending.sentence}"
    return ("out_of_memory" if _is_out_of_memory(ending.last_words) else "crash"), words


def _is_out_of_memory(words: str) -> bool:
    return any(mark in words for mark in OUT_OF_MEMORY_MARKS)
