"""Pipeline schedules as data: action tables, their replay on unequal stages, and closed forms equal to the replay."""

from jaxscale.schedule.closed_form import StageTimes, bubble_frac, in_flight, makespan_s, ticks, work_s

__all__ = ["StageTimes", "bubble_frac", "in_flight", "makespan_s", "ticks", "work_s"]
