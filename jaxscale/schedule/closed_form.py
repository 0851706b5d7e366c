"""Makespan, bubble and in-flight activations of every pipeline schedule in closed form, for millions of layouts.

Every function takes numbers or arrays that broadcast together, numpy's or jax.numpy's, and uses no `if` on a value.
Where all stages are equal each form equals `replay` of the action table exactly. Stages are unequal in one way: the
first also embeds, the last also computes the logits and the loss.

Notation:

| symbol | meaning |
|---|---|
| p, m, v | stages, microbatches, chunks of one stage |
| f, b | seconds of one forward, one whole backward: one microbatch through one chunk of a middle stage |
| w | seconds of the weight-gradient part of the backward, where a family runs it apart |
| e, h | seconds that embedding adds to chunk 0 of stage 0, and the head to the last chunk of the last stage |
| c | seconds from the end of an action to the moment its output is on the next stage |
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxscale.errors import LayoutError, nearest

Array = Any  # a number, or an array [n] of numpy or jax.numpy


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Seconds of one action: one microbatch through one chunk (a stage's layers / v). Numbers or arrays [n].

    `backward_s` is the gradient with respect to the input and `weight_s` with respect to the weights; a family that
    does not split them runs both as one action of their sum. `first_*` is added on stage 0's first chunk, `last_*` on
    the last stage's last chunk; all of a head's backward counts as input gradient. `send_s` is exposed, not occupied:
    the receiver waits, the sender goes on.
    """

    forward_s: Array
    backward_s: Array
    weight_s: Array = 0
    first_forward_s: Array = 0
    first_backward_s: Array = 0
    last_forward_s: Array = 0
    last_backward_s: Array = 0
    send_s: Array = 0


def makespan_s(family: str, *, stages: Array, microbatches: Array, times: StageTimes, chunks: Array = 1) -> Array:
    """Seconds from the first forward to the end of the last backward of one step.

    >>> times = StageTimes(forward_s=1, backward_s=2)
    >>> int(makespan_s("1f1b", stages=4, microbatches=8, times=times))
    33
    """
    return _form(_MAKESPAN, family)(stages, microbatches, chunks, times)


def work_s(*, stages: Array, microbatches: Array, times: StageTimes, chunks: Array = 1) -> Array:
    """Seconds that the busiest stage computes: what a step would take without a bubble."""
    t = times
    xp = _namespace(stages, microbatches, chunks, t.forward_s, t.first_forward_s, t.last_forward_s)
    first, last = t.first_forward_s + t.first_backward_s, t.last_forward_s + t.last_backward_s
    extra = xp.where(xp.asarray(stages) == 1, first + last, xp.maximum(xp.maximum(first, last), 0))
    return microbatches * (chunks * (t.forward_s + t.backward_s + t.weight_s) + extra)


def bubble_frac(family: str, *, stages: Array, microbatches: Array, times: StageTimes, chunks: Array = 1) -> Array:
    """Idle share of the busiest stage, relative to its work: (p-1)/m for GPipe and 1F1B (Narayanan et al. 2021, 2.2).

    >>> float(bubble_frac("interleaved", stages=4, microbatches=8, chunks=2, times=StageTimes(forward_s=1, backward_s=2)))
    0.1875
    """
    shape = {"stages": stages, "microbatches": microbatches, "chunks": chunks, "times": times}
    return makespan_s(family, **shape) / work_s(**shape) - 1


def in_flight(family: str, *, stages: Array, microbatches: Array, stage: Array, chunks: Array = 1) -> Array:
    """Most chunk activations that a stage holds at once; v of them are one microbatch through the whole stage.

    An activation is held from the start of its forward to the end of its backward (of its weight gradient, if apart).

    >>> [int(in_flight("1f1b", stages=4, microbatches=8, stage=s)) for s in range(4)]
    [4, 3, 2, 1]
    """
    return _form(_IN_FLIGHT, family)(stages, microbatches, chunks, stage)


def ticks(family: str, *, stages: Array, microbatches: Array, chunks: Array = 1) -> Array:
    """Iterations of the scan that a JAX program runs: each direction of `circular`, the only scan of `scan_1f1b`."""
    return _form(_TICKS, family)(stages, microbatches, chunks)


def _form(table: dict, family: str) -> Any:
    if family not in table:
        raise LayoutError(f"schedule {family!r} is not one of {', '.join(table)}.{nearest(family, table, count=1)}")
    return table[family]


def _namespace(*values: Array) -> Any:
    """The array namespace of the first value that has one, else numpy."""
    for value in values:
        if hasattr(value, "__array_namespace__"):
            return value.__array_namespace__()
    return np


def _gpipe(p: Array, m: Array, v: Array, t: StageTimes) -> Array:
    xp = _namespace(p, m, t.forward_s)
    f, b = t.forward_s, t.backward_s + t.weight_s
    slow_f, slow_b = (
        _slowest(xp, p, t.first_forward_s, t.last_forward_s),
        _slowest(xp, p, t.first_backward_s, t.last_backward_s),
    )
    fill = t.first_forward_s + t.last_forward_s + t.first_backward_s + t.last_backward_s
    return (m + p - 1) * (f + b) + (m - 1) * (slow_f + slow_b) + fill + 2 * (p - 1) * t.send_s


def _slowest(xp: Any, p: Array, first: Array, last: Array) -> Array:
    return xp.where(xp.asarray(p) == 1, first + last, xp.maximum(xp.maximum(first, last), 0))


def _one_f_one_b(p: Array, m: Array, v: Array, t: StageTimes) -> Array:
    xp = _namespace(p, m, t.forward_s)
    first, last = t.first_forward_s + t.first_backward_s, t.last_forward_s + t.last_backward_s
    both = t.forward_s + t.backward_s + t.weight_s
    hops = 2 * (p - 1) + 2 * (m - 1 - (m + p - 2) // p)
    return (m + p - 1) * both + (m - 1) * _slowest(xp, p, first, last) + first + last + hops * t.send_s


def _interleaved(p: Array, m: Array, v: Array, t: StageTimes) -> Array:
    xp = _namespace(p, m, v, t.forward_s)
    first, last = t.first_forward_s + t.first_backward_s, t.last_forward_s + t.last_backward_s
    both = t.forward_s + t.backward_s + t.weight_s
    return (m * v + p - 1) * both + (m - 1) * _slowest(xp, p, first, last) + first + last + 2 * (p * v - 1) * t.send_s


def _zero_bubble(p: Array, m: Array, v: Array, t: StageTimes) -> Array:
    xp = _namespace(p, m, t.forward_s)
    first, last = t.first_forward_s + t.first_backward_s, t.last_forward_s + t.last_backward_s
    both = t.forward_s + t.backward_s
    fill = (p - 1) * (both - xp.minimum(t.weight_s, both))
    return (
        m * (both + t.weight_s) + fill + (m - 1) * _slowest(xp, p, first, last) + first + last + 2 * (p - 1) * t.send_s
    )


_MAKESPAN = {"gpipe": _gpipe, "1f1b": _one_f_one_b, "interleaved": _interleaved, "zero_bubble": _zero_bubble}


def _in_flight_1f1b(p: Array, m: Array, v: Array, s: Array) -> Array:
    return _namespace(p, m, s).minimum(m, p - s)


def _in_flight_interleaved(p: Array, m: Array, v: Array, s: Array) -> Array:
    return _namespace(p, m, v, s).minimum(m * v, 2 * (p - s - 1) + (v - 1) * p + 1)


_IN_FLIGHT = {
    "gpipe": lambda p, m, v, s: m + 0 * (p + s),
    "1f1b": _in_flight_1f1b,
    "interleaved": _in_flight_interleaved,
    "zero_bubble": lambda p, m, v, s: _namespace(p, m, s).minimum(m, p + 0 * s),
}
_TICKS = {
    "circular": lambda p, m, v: (v - 1) * _namespace(p, m, v).maximum(m, p) + m + p - 1,
    "scan_1f1b": lambda p, m, v: m + 2 * p - 1,
}
