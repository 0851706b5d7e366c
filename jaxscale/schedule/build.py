"""Generators: one short function per family of schedules, from three numbers to an action table.

Scans are as the runtime executes them: all stages tick together, and a stage skips a slot without work.

| family | source | bubble / work, equal stages |
|---|---|---|
| gpipe | Huang et al. 2019, 1811.06965 | (p-1)/m |
| 1f1b | PipeDream-Flush, Narayanan et al. 2021, 2104.04473 section 2.2.1 | (p-1)/m |
| interleaved | the same, section 2.2.2; order of Megatron-LM's schedules.py | (p-1)/(v m) |
| zero_bubble | ZB-H1, Qi et al. 2024, 2401.10241 | (p-1)(f+b-w)/(m(f+b+w)) |
| circular | gpipe or interleaved by autodiff of one scan: forward ticks, then backward ticks | (p-1)/(v m) |
| scan_1f1b | 1F1B as one scan: every tick has a forward and a backward slot | (p-1)/m |
| layered | layered gradient accumulation, Lamy-Poirier 2021, 2106.02679 | 0 on one stage |
| modular | modular pipeline of the same paper: layered order on looped chunks | (p-1)/(v m) |
| scan_modular | modular as two scans, forward and backward, in rounds of max(m, p) ticks | (p-1)/(v m) for m >= p |
"""

from collections.abc import Callable, Iterable

from jaxscale.errors import LayoutError, nearest
from jaxscale.schedule.table import IDLE, Action, Kind, Schedule
from jaxscale.types._check import require_positive_int

Row = tuple[Action, ...]


def build(family: str, *, stages: int, microbatches: int, chunks: int = 1) -> Schedule:
    """Return the action table of one family.

    >>> " ".join(f"{a.kind}{a.microbatch}" for a in build("1f1b", stages=2, microbatches=3).actions[0])
    'F0 F1 B0 F2 B1 B2'
    """
    if family not in FAMILIES:
        hint = nearest(family, FAMILIES, count=1)
        raise LayoutError(f"schedule {family!r} is not one of {', '.join(FAMILIES)}.{hint}")
    owner = f"schedule {family!r}"
    require_positive_int(owner, LayoutError, stages=stages, microbatches=microbatches, chunks=chunks)
    if chunks > 1 and family not in CHUNKED:
        raise LayoutError(f"{owner}: chunks={chunks} must be 1; families with chunks: {', '.join(CHUNKED)}")
    return FAMILIES[family](stages, microbatches, chunks)


def _all(kind: Kind, microbatches: Iterable[int], chunk: int = 0) -> Row:
    return tuple(Action(kind, i, chunk) for i in microbatches)


def _mirrored(forward: Row) -> Row:
    """The backward pass that autodiff makes of a forward pass: the same actions in reverse."""
    return tuple(action._replace(kind="B") for action in reversed(forward))


def _alternate(forward: Row, backward: Row, warmup: int) -> Row:
    """`warmup` forwards, then one forward and one backward in turn, then the remaining backwards."""
    row = list(forward[:warmup])
    for ahead, behind in zip(forward[warmup:], backward, strict=False):
        row += [ahead, behind]
    return (*row, *backward[len(forward) - warmup :])


def _gpipe(p: int, m: int, v: int) -> Schedule:
    row = _all("F", range(m))
    return Schedule(family="gpipe", stages=p, microbatches=m, chunks=1, actions=((*row, *_mirrored(row)),) * p)


def _one_f_one_b(p: int, m: int, v: int) -> Schedule:
    forward, backward = _all("F", range(m)), _all("B", range(m))
    rows = tuple(_alternate(forward, backward, min(m, p - 1 - s)) for s in range(p))
    return Schedule(family="1f1b", stages=p, microbatches=m, chunks=1, actions=rows)


def _grouped(p: int, m: int, v: int) -> Row:
    """Groups of p microbatches pass chunk after chunk: what the last stage sends is what the first needs next."""
    groups = [range(start, start + p) for start in range(0, m, p)]
    return tuple(a for group in groups for c in range(v) for a in _all("F", group, c))


def _require_groups(family: str, p: int, m: int) -> None:
    if m % p:
        fit = " or ".join(str(k * p) for k in (m // p, m // p + 1) if k)
        raise LayoutError(f"schedule {family!r}: microbatches={m} must be a multiple of stages={p}, such as {fit}")


def _interleaved(p: int, m: int, v: int) -> Schedule:
    """Stage s runs 2(p-1-s) + (v-1)p forwards ahead."""
    _require_groups("interleaved", p, m)
    forward = _grouped(p, m, v)
    backward = tuple(Action("B", a.microbatch, v - 1 - a.chunk) for a in forward)
    ahead = (2 * (p - 1 - s) + (v - 1) * p for s in range(p))
    rows = tuple(_alternate(forward, backward, min(m * v, warmup)) for warmup in ahead)
    return Schedule(family="interleaved", stages=p, microbatches=m, chunks=v, actions=rows)


def _zero_bubble(p: int, m: int, v: int) -> Schedule:
    """1F1B's order; stage s puts each weight gradient off until s more input gradients have gone up."""
    rows = []
    for s, fused in enumerate(_one_f_one_b(p, m, 1).actions):
        row: list[Action] = []
        for action in fused:
            row.append(action)
            if action.kind == "B" and action.microbatch >= s:
                row.append(Action("W", action.microbatch - s, 0))
        rows.append((*row, *_all("W", range(max(m - s, 0), m))))
    return Schedule(family="zero_bubble", stages=p, microbatches=m, chunks=1, actions=tuple(rows))


def _circular(p: int, m: int, v: int) -> Schedule:
    """Stage s is s ticks behind stage 0, from m v + p - 1 ticks."""
    if v > 1:
        _require_groups("circular", p, m)
    forward = _grouped(p, m, v) if v > 1 else _all("F", range(m))
    return Schedule(
        family="circular", stages=p, microbatches=m, chunks=v, actions=_staggered(p, forward), slots_per_tick=1
    )


def _staggered(p: int, forward: Row) -> tuple[Row, ...]:
    """Two scans, forward and backward: each stage one tick behind the one before."""
    skip = Action("F", IDLE, 0)
    passes = [(skip,) * s + forward + (skip,) * (p - 1 - s) for s in range(p)]
    return tuple((*row, *_mirrored(row)) for row in passes)


def _scan_1f1b(p: int, m: int, v: int) -> Schedule:
    """A microbatch goes down in p ticks; the last stage turns it round within its tick."""
    rows = []
    for s in range(p):
        row: list[Action] = []
        for t in range(m + 2 * (p - 1)):
            down, up = t - s, t - (2 * (p - 1) - s)
            row += [Action("F", down if 0 <= down < m else IDLE, 0), Action("B", up if 0 <= up < m else IDLE, 0)]
        rows.append(tuple(row))
    return Schedule(family="scan_1f1b", stages=p, microbatches=m, chunks=1, actions=tuple(rows), slots_per_tick=2)


def _breadth_first(m: int, v: int) -> Row:
    forward = tuple(a for c in range(v) for a in _all("F", range(m), c))
    return (*forward, *_mirrored(forward))


def _layered(p: int, m: int, v: int) -> Schedule:
    rows = (_breadth_first(m, v),) * p
    return Schedule(family="layered", stages=p, microbatches=m, chunks=v, actions=rows, placement="contiguous")


def _modular(p: int, m: int, v: int) -> Schedule:
    return Schedule(family="modular", stages=p, microbatches=m, chunks=v, actions=(_breadth_first(m, v),) * p)


def _scan_modular(p: int, m: int, v: int) -> Schedule:
    """Rounds of max(m, p) ticks, one for each chunk: what the last stage sends is not on the first before."""
    idle = (Action("F", IDLE, 0),) * (max(m, p) - m)
    forward = tuple(a for c in range(v) for a in (*_all("F", range(m), c), *idle))
    return Schedule(
        family="scan_modular", stages=p, microbatches=m, chunks=v, actions=_staggered(p, forward), slots_per_tick=1
    )


FAMILIES: dict[str, Callable[[int, int, int], Schedule]] = {
    "gpipe": _gpipe,
    "1f1b": _one_f_one_b,
    "interleaved": _interleaved,
    "zero_bubble": _zero_bubble,
    "circular": _circular,
    "scan_1f1b": _scan_1f1b,
    "layered": _layered,
    "modular": _modular,
    "scan_modular": _scan_modular,
}
CHUNKED = ("interleaved", "circular", "layered", "modular", "scan_modular")
