"""Pipeline schedules as data: action tables, their replay on unequal stages, and closed forms equal to the replay."""

from jaxscale.schedule.build import CHUNKED, FAMILIES, build
from jaxscale.schedule.closed_form import (
    StageTimes,
    allocated_slots,
    bubble_frac,
    in_flight,
    makespan_s,
    peak_in_flight,
    ticks,
    work_s,
)
from jaxscale.schedule.replay import Seconds, Slice, Timeline, critical_path, in_flight_steps, replay
from jaxscale.schedule.table import IDLE, KINDS, Action, Schedule

__all__ = [
    "CHUNKED",
    "FAMILIES",
    "IDLE",
    "KINDS",
    "Action",
    "Schedule",
    "Seconds",
    "Slice",
    "StageTimes",
    "Timeline",
    "allocated_slots",
    "bubble_frac",
    "build",
    "critical_path",
    "in_flight",
    "in_flight_steps",
    "makespan_s",
    "peak_in_flight",
    "replay",
    "ticks",
    "work_s",
]
