"""The makespan of every family in closed form: the longest of the few paths through its table that can be critical.

Times are sums and maxima of path lengths (a max-plus system), so that no formula has an `if` on a value and all are
differentiable almost everywhere. A path *dwells* where it stays on one stage, and makes an *excursion* where it goes
down to the last stage and comes back. Stages are equal but for what the first and the last do on top; that must not be
negative. How near each form comes to `replay`:

| family | replay's makespan |
|---|---|
| gpipe, 1f1b, zero_bubble, circular, scan_1f1b, layered, modular, scan_modular | equal |
| interleaved | equal without embedding and with c <= t/2; never less; at most 5% more with e <= t/2, c <= min(f, b)/2 |

Notation:

| symbol | meaning |
|---|---|
| p, m, v | stages, microbatches, chunks of one stage |
| f, b, t | seconds of one forward, one backward, both: one microbatch through one chunk of a middle stage |
| w | seconds of one weight gradient, where it is apart from b |
| ef, eb, e | what the embedding adds to forward, backward, both of chunk 0 of stage 0 |
| hf, hb, h | what the head adds to those of the last chunk of the last stage |
| c | seconds from the end of an action to the moment its output is on the next stage |
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Array = Any  # a number, or an array [n] of numpy or jax.numpy


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Seconds of one action: one microbatch through one chunk (1/v of a stage). Numbers or arrays [n].

    `backward_s` is the gradient with respect to the input, recompute included, and `weight_s` the one with respect to
    the weights; a family that does not split them runs both as one action of their sum. `first_*` comes on top of
    stage 0's first chunk, `last_*` on top of the last stage's last chunk; all their backward counts as input gradient.
    `send_s` delays the receiver and leaves the sender free; in a scan it delays all.
    """

    forward_s: Array
    backward_s: Array
    weight_s: Array = 0
    first_forward_s: Array = 0
    first_backward_s: Array = 0
    last_forward_s: Array = 0
    last_backward_s: Array = 0
    send_s: Array = 0


def namespace(*values: Array) -> Any:
    """The array namespace to compute in: that of the first value which has one other than numpy's, else numpy."""
    for value in values:
        if hasattr(value, "__array_namespace__") and not isinstance(value, np.ndarray | np.generic):
            return value.__array_namespace__()
    return np


def namespace_of(p: Array, m: Array, v: Array, times: StageTimes) -> Any:
    """The array namespace of a schedule's numbers and times."""
    return namespace(p, m, v, *(getattr(times, field.name) for field in fields(times)))


def slowest(xp: Any, p: Array, first: Array, last: Array) -> Array:
    """What the slowest stage does on top of a middle one; a single stage does both."""
    return xp.where(xp.equal(p, 1), first + last, xp.maximum(first, last))


def _maximum(xp: Any, *values: Array) -> Array:
    most = values[0]
    for value in values[1:]:
        most = xp.maximum(most, value)
    return most


def _flow(xp: Any, p: Array, m: Array, f: Array, e: Array, h: Array, c: Array) -> Array:
    """One direction of GPipe, a flow shop of equal jobs: one passes every stage, m - 1 more dwell on the slowest."""
    return (m + p - 1) * f + e + h + (m - 1) * slowest(xp, p, e, h) + (p - 1) * c


def gpipe(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """All forwards, then all backwards; the last stage turns from one to the other without a gap."""
    xp, s = namespace_of(p, m, v, times), times
    forward = _flow(xp, p, m, s.forward_s, s.first_forward_s, s.last_forward_s, s.send_s)
    return forward + _flow(xp, p, m, s.backward_s + s.weight_s, s.first_backward_s, s.last_backward_s, s.send_s)


def one_f_one_b(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """One excursion of the first microbatch, then dwelling on the last stage, on the first, or excursion by excursion.

    Stage 0 starts forward i + p only after backward i, so that an excursion of (p-1) 2 c exposed sends stands for p
    microbatches: sends cost about 2 c (p-1)/p a microbatch all the way, not only in fill and drain.
    """
    xp, s = namespace_of(p, m, v, times), times
    f, b = s.forward_s + s.first_forward_s, s.backward_s + s.weight_s + s.first_backward_s
    t = s.forward_s + s.backward_s + s.weight_s
    e, h, c2 = s.first_forward_s + s.first_backward_s, s.last_forward_s + s.last_backward_s, 2 * s.send_s
    excursion = p * t + e + h + (p - 1) * c2
    laps, rest, n = (m - 1) // p, (m - 1) % p, xp.minimum(m, p)
    again = laps > 0
    top = xp.where(again, xp.maximum(e, h), h)  # stage 0 can be dwelt on only between two excursions
    tail = rest * t + xp.where(rest > 0, xp.maximum(rest * top, top + (rest - 1) * c2), 0)
    dwell_last = excursion + (m - 1) * (t + h)
    dwell_first = excursion + (m - 1) * (t + e) - (n - 1) * xp.minimum(f, b)
    only_first = m * (t + e) + xp.maximum(p - m, 0) * (t + c2)
    two = xp.where(again, 2 * excursion + (m - 1 - p) * (t + e), 0)
    many = (laps + 1) * excursion + tail
    return xp.where(xp.equal(p, 1), m * (t + e + h), _maximum(xp, dwell_last, dwell_first, only_first, two, many))


def zero_bubble(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """As 1F1B, but stage s has min(s, m) weight gradients left when its last backward ends, and runs them in the drain.

    Equal stages without sends: (p-1)(f+b) - (min(m,p)-1) min(f,b,w) over the work; for m >= p and w <= f, b that is the
    (p-1)(f+b-w) of Qi et al. 2024 (2401.10241), section 2.
    """
    xp, s = namespace_of(p, m, v, times), times
    f, b, w = s.forward_s + s.first_forward_s, s.backward_s + s.first_backward_s, s.weight_s
    t, c = s.forward_s + s.backward_s, s.send_s
    e, h = s.first_forward_s + s.first_backward_s, s.last_forward_s + s.last_backward_s
    excursion = p * t + e + h + 2 * (p - 1) * c
    laps, rest, n = (m - 1) // p, (m - 1) % p, xp.minimum(m, p)
    again = laps > 0
    # After the last excursion's turn: up to stage 0 and one weight gradient, or part of the way and all that are left.
    up = (p - 1) * (s.backward_s + c) + s.first_backward_s
    final = excursion - up + xp.maximum(up + w, (p - n) * (s.backward_s + c) + n * w)
    top = xp.where(again, xp.maximum(e, h), h)
    weight = xp.where(again, w, 0)  # the last stage runs no weight gradient before microbatch p
    tail = rest * t + xp.where(rest > 0, xp.maximum(rest * (top + weight), top + weight + 2 * (rest - 1) * c), 0)
    dwell_last = final + (m - 1) * (t + h) + (m - n) * w
    dwell_first = excursion + (m - 1) * (t + e) - (n - 1) * f + m * w
    dwell_first_early = final + (m - 1) * (t + e) - (n - 1) * b + (m - n) * w
    only_first = m * (t + e + w) + xp.maximum(p - m, 0) * (t + 2 * c)
    two = xp.where(again, excursion + final + (m - 1 - p) * (t + top) + (m - p) * w, 0)
    many = laps * (excursion + w) + tail + final
    longest = _maximum(xp, dwell_last, dwell_first, dwell_first_early, only_first, two, many)
    return xp.where(xp.equal(p, 1), m * (t + e + h + w), longest)


def interleaved(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """Dwelling on the last stage, on the first, or on both: the ring's wrap leads from one to the other and back.

    Equal stages: (p-1) t over the work m v t, the (p-1)/(v m) of Narayanan et al. 2021; short sends show only in fill
    and drain, as stage s runs 2 (p-1-s) forwards ahead of its own last chunk.
    """
    xp, s = namespace_of(p, m, v, times), times
    f, b, c = s.forward_s, s.backward_s + s.weight_s, s.send_s
    ef, eb, h = s.first_forward_s, s.first_backward_s, s.last_forward_s + s.last_backward_s
    t, e, work = f + b, ef + eb, m * v * (f + b)
    looped, twice, thrice = xp.greater(v, 1), xp.greater_equal(m, 2 * p), xp.greater_equal(m, 3 * p)
    # From the start to the last stage's last chunk: v - 2 rounds of the ring, and one round or p microbatches embedded.
    down, up = (
        (p - 1) * c + x + xp.where(looped, xp.maximum((p - 1) * x, p * c) + (v - 2) * p * c, 0) for x in (ef, eb)
    )
    # A send longer than a forward or a backward also shows in every later group: its other action no longer covers it.
    uncovered = xp.where(looped, (m - p) * (v - 1) * xp.maximum(c - xp.minimum(f, b), 0), 0)
    dwell_last = work + (p - 1) * t + m * h + down + up + uncovered
    to_last = (p - 1) * (t + 2 * c) + h
    skipped = (p - 1) * xp.where(twice, 2, 1)  # forwards of stage 0 that an excursion passes over
    embedded = xp.where(looped, xp.where(twice, p - 1, 0), skipped)  # those of them on the first chunk
    dwell_first = work + m * e + to_last - xp.minimum(skipped * f + embedded * ef, skipped * b + embedded * eb)
    both_ends = xp.where(twice, work + m * e + 2 * to_last - skipped * t - embedded * e, 0)
    last_then_first = work + (p - 2) * b + down + c + (m - 2 * p) * ef + m * eb + p * h
    first_then_last = work + (p - 2) * f + up + c + (m - 2 * p) * eb + m * ef + p * h
    switch = xp.where(looped & twice, xp.maximum(last_then_first, first_then_last), 0)
    visit = xp.where(looped & thrice, work + (p - 2) * t + down + up + 2 * c + (m - 2 * p) * e + 2 * p * h, 0)
    longest = _maximum(xp, dwell_last, work + m * e, dwell_first, both_ends, switch, visit)
    return xp.where(xp.equal(p, 1), work + m * (e + h), longest)


def circular_ticks(p: Array, m: Array, v: Array) -> Array:
    """Ticks of one direction: the last stage starts p - 1 ticks late."""
    return m * v + p - 1


def circular(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """Every tick lasts as long as the slowest slot of any stage; embedding and head overlap where both have work."""
    xp, s = namespace_of(p, m, v, times), times
    ticks = circular_ticks(p, m, v)
    total = ticks * xp.where(xp.equal(p, 1), 0, 2 * s.send_s)
    # With one chunk the first and the last stage work together for m - p + 1 ticks; with more, where groups meet.
    together = xp.where(xp.greater(v, 1), (m // p - 1) * (p - 1), xp.maximum(m - p + 1, 0))
    together = xp.where(xp.equal(p, 1), 0, together)
    for f, e, h in _directions(s):
        total = total + ticks * f + m * (e + h) - together * xp.minimum(e, h)
    return total


def scan_1f1b_ticks(p: Array, m: Array, v: Array) -> Array:
    """A microbatch takes p ticks down and p up, one of them shared; the next one is a tick behind."""
    return m + 2 * (p - 1)


def scan_1f1b(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """p - 1 ticks of a forward, m of both on the last stage, p - 1 of a backward; each ends with one exchange.

    Stage 0 embeds in the first m ticks and takes gradients in the last m: together in m - 2(p-1) of the middle ones.
    """
    xp, s = namespace_of(p, m, v, times), times
    (f, ef, hf), (b, eb, hb) = _directions(s)
    e, h, t, fill = ef + eb, hf + hb, f + b, p - 1
    both = xp.maximum(m - 2 * fill, 0)
    one = xp.maximum(xp.minimum(m, 2 * fill) - fill, 0)
    middle = m * (t + h) + both * xp.maximum(e - h, 0) + one * (xp.maximum(ef - b - h, 0) + xp.maximum(eb - f - h, 0))
    ends = fill * t + xp.minimum(m, fill) * e
    ticks = scan_1f1b_ticks(p, m, v) * s.send_s
    return xp.where(xp.equal(p, 1), m * (t + e + h), middle + ends + ticks)


def layered(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """A stage passes nothing on before it has run all microbatches through all its chunks but the last."""
    xp, s = namespace_of(p, m, v, times), times
    total = 0
    for f, e, h in _directions(s):
        chunked = m * v * f + (p - 1) * (((v - 1) * m + 1) * f + s.send_s) + m * (e + h)
        total = total + xp.where(xp.greater(v, 1), chunked, _flow(xp, p, m, f, e, h, s.send_s))
    return total


def modular(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """A round of the ring takes p (f + c) by one microbatch going round, or m f by all m dwelling on one stage."""
    xp, s = namespace_of(p, m, v, times), times
    total = 0
    for f, e, h in _directions(s):
        out, lap = f + (p - 1) * (f + s.send_s), p * (f + s.send_s)
        rounds = (v - 1) * lap + (m - 1) * (f + slowest(xp, p, e, h)) + e + h
        dwell = (2 * m - 1) * f + m * (e + h) + (v - 2) * xp.maximum(lap, m * f)
        longest = out + xp.where(xp.greater(v, 1), xp.maximum(rounds, dwell), rounds)
        total = total + xp.where(xp.equal(p, 1), m * (v * f + e + h), longest)
    return total


def scan_modular_ticks(p: Array, m: Array, v: Array) -> Array:
    """Ticks of one direction: v rounds of max(m, p), and p - 1 for the last stage to follow."""
    return namespace(p, m, v).maximum(m, p) * v + p - 1


def scan_modular(p: Array, m: Array, v: Array, times: StageTimes) -> Array:
    """As `circular`; of the units that are idle where m < p, only those of the last round leave all stages idle."""
    xp, s = namespace_of(p, m, v, times), times
    alone = xp.equal(p, 1)
    total = scan_modular_ticks(p, m, v) * xp.where(alone, 0, 2 * s.send_s)
    busy = (v - 1) * xp.maximum(m, p) + m + p - 1
    together = xp.where(alone | xp.greater(v, 1), 0, xp.maximum(m - p + 1, 0))  # ticks with embedding and head
    for f, e, h in _directions(s):
        total = total + busy * f + m * (e + h) - together * xp.minimum(e, h)
    return total


def _directions(times: StageTimes) -> tuple[tuple[Array, Array, Array], ...]:
    """(middle, first extra, last extra) of the forward and of the backward pass."""
    backward = times.backward_s + times.weight_s
    return (
        (times.forward_s, times.first_forward_s, times.last_forward_s),
        (backward, times.first_backward_s, times.last_backward_s),
    )
