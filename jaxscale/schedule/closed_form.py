"""Makespan, bubble, ticks and in-flight activations of every pipeline schedule in closed form, for millions of layouts.

Every function takes numbers or arrays that broadcast together, numpy's or jax.numpy's, and uses no `if` on a value.
Where all stages are equal each form equals `replay` of the action table exactly; `makespan.py` states how near it is
where the first stage also embeds and the last also computes logits and loss.
"""

from typing import Any

from jaxscale.errors import LayoutError, nearest
from jaxscale.schedule import makespan
from jaxscale.schedule.makespan import Array, StageTimes, namespace


def makespan_s(family: str, *, stages: Array, microbatches: Array, times: StageTimes, chunks: Array = 1) -> Array:
    """Seconds from the first forward to the end of the last backward of one step.

    >>> times = StageTimes(forward_s=1, backward_s=2)
    >>> int(makespan_s("1f1b", stages=4, microbatches=8, times=times))
    33
    """
    return _form(_MAKESPAN, family)(stages, microbatches, chunks, times)


def work_s(*, stages: Array, microbatches: Array, times: StageTimes, chunks: Array = 1) -> Array:
    """Seconds that the busiest stage computes: what a step would take without a bubble."""
    first = times.first_forward_s + times.first_backward_s
    last = times.last_forward_s + times.last_backward_s
    extra = makespan.slowest(makespan.namespace_of(stages, microbatches, chunks, times), stages, first, last)
    return microbatches * (chunks * (times.forward_s + times.backward_s + times.weight_s) + extra)


def bubble_frac(family: str, *, stages: Array, microbatches: Array, times: StageTimes, chunks: Array = 1) -> Array:
    """Idle time of the busiest stage over its work: (p-1)/m for GPipe and 1F1B (Narayanan et al. 2021, section 2.2).

    >>> times = StageTimes(forward_s=1, backward_s=2)
    >>> float(bubble_frac("interleaved", stages=4, microbatches=8, chunks=2, times=times))
    0.1875
    """
    step_s = makespan_s(family, stages=stages, microbatches=microbatches, chunks=chunks, times=times)
    return step_s / work_s(stages=stages, microbatches=microbatches, chunks=chunks, times=times) - 1


def in_flight(family: str, *, stages: Array, microbatches: Array, stage: Array, chunks: Array = 1) -> Array:
    """Most chunk activations that a stage holds at once; v of them are one microbatch through the whole stage.

    An activation is held from the start of its forward to the end of its backward (of its weight gradient, if apart).

    >>> [int(in_flight("1f1b", stages=4, microbatches=8, stage=s)) for s in range(4)]
    [4, 3, 2, 1]
    """
    return _form(_IN_FLIGHT, family)(stages, microbatches, chunks, stage)


def peak_in_flight(family: str, *, stages: Array, microbatches: Array, chunks: Array = 1) -> Array:
    """Most chunk activations that any stage holds at once: in every family it is stage 0 that holds most."""
    return in_flight(family, stages=stages, microbatches=microbatches, chunks=chunks, stage=0)


def allocated_slots(family: str, *, stages: Array, microbatches: Array, chunks: Array = 1) -> Array:
    """Chunk activations that a program reserves on its fullest stage.

    A scan reserves the same on all stages: autodiff of `circular` stacks the residuals of every tick, idle ones too,
    and `scan_1f1b` keeps a ring buffer of 2p - 1. Elsewhere it is the peak in flight.
    """
    table = {"circular": makespan.circular_ticks, "scan_1f1b": lambda p, m, v: 2 * p - 1 + 0 * (m + v)}
    if family in table:
        return table[family](stages, microbatches, chunks)
    return peak_in_flight(family, stages=stages, microbatches=microbatches, chunks=chunks)


def ticks(family: str, *, stages: Array, microbatches: Array, chunks: Array = 1) -> Array:
    """Iterations of a scan that a JAX program runs: one direction of `circular` and `scan_modular`, or `scan_1f1b`."""
    return _form(_TICKS, family)(stages, microbatches, chunks)


def _form(table: dict[str, Any], family: str) -> Any:
    if family not in table:
        raise LayoutError(f"schedule {family!r} is not one of {', '.join(table)}.{nearest(family, table, count=1)}")
    return table[family]


def _all_at_once(p: Array, m: Array, v: Array, s: Array) -> Array:
    return m * v + 0 * (p + s)


def _one_f_one_b(p: Array, m: Array, v: Array, s: Array) -> Array:
    return namespace(p, m, s).minimum(m, p - s)


def _interleaved(p: Array, m: Array, v: Array, s: Array) -> Array:
    return namespace(p, m, v, s).minimum(m * v, 2 * (p - s - 1) + (v - 1) * p + 1)


def _zero_bubble(p: Array, m: Array, v: Array, s: Array) -> Array:
    return namespace(p, m, s).minimum(m, p + 0 * s)


def _scan_1f1b(p: Array, m: Array, v: Array, s: Array) -> Array:
    return namespace(p, m, s).minimum(m, 2 * (p - s) - 1)


_MAKESPAN = {
    "gpipe": makespan.gpipe,
    "1f1b": makespan.one_f_one_b,
    "interleaved": makespan.interleaved,
    "zero_bubble": makespan.zero_bubble,
    "circular": makespan.circular,
    "scan_1f1b": makespan.scan_1f1b,
    "layered": makespan.layered,
    "modular": makespan.modular,
    "scan_modular": makespan.scan_modular,
}
_IN_FLIGHT = {
    "gpipe": _all_at_once,
    "1f1b": _one_f_one_b,
    "interleaved": _interleaved,
    "zero_bubble": _zero_bubble,
    "circular": _all_at_once,
    "scan_1f1b": _scan_1f1b,
    "layered": _all_at_once,
    "modular": _all_at_once,
    "scan_modular": _all_at_once,
}
_TICKS = {
    "circular": makespan.circular_ticks,
    "scan_1f1b": makespan.scan_1f1b_ticks,
    "scan_modular": makespan.scan_modular_ticks,
}
