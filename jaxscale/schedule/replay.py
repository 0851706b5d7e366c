"""Replay of an action table: when every action starts and ends, on stages that need not be equal.

Times are added and compared, never divided, so that whole numbers and fractions give exact results.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from jaxscale.errors import LayoutError
from jaxscale.schedule.table import Action, Schedule

Seconds = int | float | Fraction
Durations = (
    Seconds | Sequence[Seconds] | Sequence[Sequence[Seconds]]
)  # of one action: all stages, [stage], [stage][chunk]


class Slice(NamedTuple):
    """One action in time; `cause` is the (stage, slot) whose end let it start, or None at the beginning."""

    action: Action
    start_s: Seconds
    end_s: Seconds
    cause: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A schedule with its times; every list is indexed by stage."""

    schedule: Schedule
    slices: tuple[tuple[Slice, ...], ...]  # [stage][slot]
    send_s: Seconds

    @property
    def makespan_s(self) -> Seconds:
        """End of the last action; the first one starts at 0."""
        exchange_s = self.send_s if self.schedule.slots_per_tick and self.schedule.stages > 1 else 0
        return max(row[-1].end_s for row in self.slices) + exchange_s

    @property
    def work_s(self) -> tuple[Seconds, ...]:
        """Seconds of work of each stage."""
        return tuple(sum(piece.end_s - piece.start_s for piece in row) for row in self.slices)

    @property
    def idle_s(self) -> tuple[Seconds, ...]:
        """Seconds without work of each stage."""
        return tuple(self.makespan_s - work for work in self.work_s)

    @property
    def peak_in_flight(self) -> tuple[int, ...]:
        """Most chunk activations that each stage holds at once."""
        return tuple(max(count for _, count in in_flight_steps(self, s)) for s in range(self.schedule.stages))


def in_flight_steps(timeline: Timeline, stage: int) -> tuple[tuple[Seconds, int], ...]:
    """When the chunk activations that a stage holds change, as (seconds, count after) in order of time.

    An activation is held from the start of its forward to the end of its backward; of its weight gradient, if apart.
    """
    last = "W" if timeline.schedule.splits_backward else "B"
    steps, count = [], 0
    for piece in timeline.slices[stage]:
        if piece.action.idle:
            continue
        if piece.action.kind == "F":
            count += 1
            steps.append((piece.start_s, count))
        elif piece.action.kind == last:
            count -= 1
            steps.append((piece.end_s, count))
    return tuple(steps)


def critical_path(timeline: Timeline) -> tuple[tuple[int, int], ...]:
    """The chain of (stage, slot) from time 0 to the last end, in which every action waits for the one before it."""
    ends = {(s, k): piece.end_s for s, row in enumerate(timeline.slices) for k, piece in enumerate(row)}
    at: tuple[int, int] | None = max(ends, key=ends.__getitem__)
    path = []
    while at is not None:
        path.append(at)
        at = timeline.slices[at[0]][at[1]].cause
    return tuple(reversed(path))


def replay(
    schedule: Schedule,
    forward_s: Durations,
    backward_s: Durations,
    *,
    weight_s: Durations = 0,
    send_s: Seconds = 0,
) -> Timeline:
    """Run a schedule and time it.

    Durations are of one action (one microbatch, one chunk): one number, or one per stage, or one per stage and chunk.
    Where the table has no weight gradients, `weight_s` is part of the backward. `send_s` passes between the end of an
    action and the moment another stage can use its output.

    >>> from jaxscale.schedule.build import build
    >>> replay(build("gpipe", stages=4, microbatches=8), 1, 2).makespan_s
    33
    """
    seconds = _durations(schedule, forward_s, backward_s, weight_s)
    run = _run_ticks if schedule.slots_per_tick else _run_free
    return Timeline(schedule=schedule, slices=run(schedule, seconds, send_s), send_s=send_s)


def _durations(schedule: Schedule, forward_s: Durations, backward_s: Durations, weight_s: Durations) -> dict:
    """Seconds of (kind, stage, chunk)."""
    given = {"F": ("forward_s", forward_s), "B": ("backward_s", backward_s), "W": ("weight_s", weight_s)}
    tables = {kind: _table(schedule, name, value) for kind, (name, value) in given.items()}
    seconds = {(k, s, c): x for k, table in tables.items() for s, row in enumerate(table) for c, x in enumerate(row)}
    if not schedule.splits_backward:
        seconds |= {("B", s, c): x + seconds["W", s, c] for (k, s, c), x in seconds.items() if k == "B"}
    return seconds


def _table(schedule: Schedule, name: str, value: Durations) -> list[list[Seconds]]:
    """Durations as [stage][chunk]."""
    p, v = schedule.stages, schedule.chunks
    rows = list(value) if isinstance(value, Sequence) else [value] * p
    table = [list(row) if isinstance(row, Sequence) else [row] * v for row in rows]
    if len(table) != p or any(len(row) != v for row in table):
        raise LayoutError(f"replay: {name} must be one number, {p} (stages), or {p} x {v} (stages x chunks)")
    if any(x < 0 for row in table for x in row):
        raise LayoutError(f"replay: {name}={value!r} must not be negative")
    return table


def _inputs(schedule: Schedule, stage: int, action: Action) -> list[tuple[int, Action]]:
    """The (stage, action) whose outputs an action reads."""
    part, last = schedule.part(stage, action.chunk), schedule.stages * schedule.chunks - 1
    if action.kind == "W":
        return [(stage, action._replace(kind="B"))]
    before = part - 1 if action.kind == "F" else part + 1
    read = [] if action.kind == "F" else [(stage, action._replace(kind="F"))]
    if 0 <= before <= last:
        source, chunk = schedule.holder(before)
        read.append((source, action._replace(chunk=chunk)))
    return read


def _run_free(schedule: Schedule, seconds: dict, send_s: Seconds) -> tuple[tuple[Slice, ...], ...]:
    """Each stage starts its next action once it is free and the inputs are there."""
    slices: list[list[Slice]] = [[] for _ in schedule.actions]
    done: dict[tuple[int, Action], tuple[Seconds, int]] = {}  # (stage, action) -> (end, slot)
    moved = True
    while moved:
        moved = False
        for stage, row in enumerate(schedule.actions):
            for slot in range(len(slices[stage]), len(row)):
                ready = _ready(schedule, stage, row[slot], done, send_s)
                if ready is None:
                    break
                if slot:
                    ready.append((slices[stage][-1].end_s, (stage, slot - 1)))
                start_s, cause = max(ready, key=lambda pair: pair[0], default=(0, None))
                end_s = start_s + seconds[row[slot].kind, stage, row[slot].chunk]
                slices[stage].append(Slice(row[slot], start_s, end_s, cause))
                done[stage, row[slot]] = (end_s, slot)
                moved = True
    _check_finished(schedule, slices)
    return tuple(tuple(row) for row in slices)


def _ready(schedule: Schedule, stage: int, action: Action, done: dict, send_s: Seconds) -> list | None:
    """When each input of an action arrives and from which (stage, slot); None where one is not computed yet."""
    inputs = _inputs(schedule, stage, action)
    if any(key not in done for key in inputs):
        return None
    return [(done[key][0] + (send_s if key[0] != stage else 0), (key[0], done[key][1])) for key in inputs]


def _check_finished(schedule: Schedule, slices: list[list[Slice]]) -> None:
    stuck = [(s, row[len(slices[s])]) for s, row in enumerate(schedule.actions) if len(slices[s]) < len(row)]
    if stuck:
        where = ", ".join(f"stage {s} before {a.kind} of microbatch {a.microbatch}, chunk {a.chunk}" for s, a in stuck)
        raise LayoutError(f"schedule {schedule.family!r} deadlocks: {where}")


def _run_ticks(schedule: Schedule, seconds: dict, send_s: Seconds) -> tuple[tuple[Slice, ...], ...]:
    """All stages run a tick's slots, then exchange: the slowest stage of each tick holds up the others."""
    _check_ticks(schedule)
    slices: list[list[Slice]] = [[] for _ in schedule.actions]
    exchange_s = send_s if schedule.stages > 1 else 0
    start_s: Seconds = 0
    cause: tuple[int, int] | None = None
    for first in range(0, len(schedule.actions[0]), schedule.slots_per_tick):
        for stage, row in enumerate(schedule.actions):
            at_s, by = start_s, cause
            for slot in range(first, first + schedule.slots_per_tick):
                end_s = at_s + (0 if row[slot].idle else seconds[row[slot].kind, stage, row[slot].chunk])
                slices[stage].append(Slice(row[slot], at_s, end_s, by))
                at_s, by = end_s, (stage, slot)
        slowest = max(range(schedule.stages), key=lambda s: slices[s][-1].end_s)
        start_s, cause = slices[slowest][-1].end_s + exchange_s, (slowest, len(slices[slowest]) - 1)
    return tuple(tuple(row) for row in slices)


def _check_ticks(schedule: Schedule) -> None:
    """Require every input to come from an earlier tick, or from an earlier slot of the same stage."""
    slots = {(s, a): k for s, row in enumerate(schedule.actions) for k, a in enumerate(row) if not a.idle}
    for (stage, action), slot in slots.items():
        tick_start = slot - slot % schedule.slots_per_tick
        for source, read in _inputs(schedule, stage, action):
            if slots[source, read] >= (slot if source == stage else tick_start):
                raise LayoutError(
                    f"schedule {schedule.family!r}: stage {stage} runs {action.kind} of microbatch {action.microbatch} "
                    f"in slot {slot}, before its input, {read.kind} of stage {source}, is there"
                )
