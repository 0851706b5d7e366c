"""The compiler's buffer assignment, read from its own files: what it allocates, and what is in use at its fullest.

XLA writes these files before it generates code, which is most of a TPU compile; memory is known by then. Temporaries
are one allocation whose values have places in it and stretches of the schedule in which they are alive. The peak of
`Compiled.memory_analysis()` is the most bytes of it that live values cover at one point of the schedule.
"""

import bisect
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from jaxscale.aot.hlo.text import Module
from jaxscale.aot.result import Buffer, CompiledMemory

_ALLOCATION = re.compile(r"^allocation (\d+): size (\d+)(?:, color (\d+))?(.*)$")
_VALUE = re.compile(r"^ value: <\d+ ([\w.\-]+)(?:\{([\d,]*)\})?(?: \(phi\))? @\d+> \(size=(\d+),offset=(\d+)\): (.*)$")
_RANGE = re.compile(r"^ +([\w.\-]+)\{([\d,]*)\}:(\d+)-(\d+)$")
_POINT = re.compile(r"^ +(\d+):([\w.\-]+)$")
_HOST_COLOR = "5"  # of XLA's memory spaces; the device's own has none
NUM_LARGEST = 12

ValueKey = tuple[str, str]  # instruction, index into its tuple
Ranges = Mapping[ValueKey, tuple[int, int]]  # first and last point of the schedule at which a value is alive


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What an instruction makes, at its place in an allocation."""

    name: str
    index: str
    num_bytes: int
    offset: int
    type_text: str

    @property
    def key(self) -> ValueKey:
        """How `Ranges` calls it."""
        return self.name, self.index


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """A stretch of one memory."""

    num_bytes: int
    color: str  # of the memory; empty = the device's
    is_parameter: bool
    is_temporary: bool  # of the whole program; not what a fusion keeps for itself
    is_output: bool
    values: tuple[Value, ...]

    @property
    def counts(self) -> bool:
        """Whether it takes device memory through the whole step."""
        return not self.color and (self.is_parameter or self.is_temporary or self.is_output)


def parse_assignment(text: str) -> tuple[Allocation, ...]:
    """Read a dumped `*buffer-assignment.txt`."""
    heads: list[tuple[int, str, str]] = []
    values: list[list[Value]] = []
    for line in text.splitlines():
        if head := _ALLOCATION.match(line):
            heads.append((int(head.group(2)), head.group(3) or "", head.group(4)))
            values.append([])
        elif heads and (value := _VALUE.match(line)):
            name, index, size, offset, type_text = value.groups()
            values[-1].append(
                Value(name=name, index=index or "", num_bytes=int(size), offset=int(offset), type_text=type_text)
            )
    return tuple(
        Allocation(
            num_bytes=size,
            color=color,
            is_parameter=" parameter " in words,
            is_temporary="preallocated-temp" in words,
            is_output="output" in words or "live-out" in words,
            values=tuple(own),
        )
        for (size, color, words), own in zip(heads, values, strict=True)
    )


def parse_live_ranges(text: str) -> Ranges:
    """Read a dumped `*live-range.txt`."""
    section = text.partition("BufferLiveRange:")[2].partition("Live ranges at")[0]
    found = filter(None, map(_RANGE.match, section.splitlines()))
    return {(m.group(1), m.group(2)): (int(m.group(3)), int(m.group(4))) for m in found}


def parse_points(text: str) -> dict[str, int]:
    """Read the order of the schedule from a dumped `*live-range.txt`: the point at which each instruction runs.

    What a loop or a call runs comes before the instruction that runs it.
    """
    section = text.partition("InstructionSequence:")[2].partition("BufferLiveRange:")[0]
    found = filter(None, map(_POINT.match, section.splitlines()))
    return {m.group(2): int(m.group(1)) for m in found}


def assigned_memory(allocations: Iterable[Allocation], ranges: Ranges) -> CompiledMemory:
    """The classes of `Compiled.memory_analysis()`, before there is code."""
    allocations = tuple(allocations)
    here = [a for a in allocations if not a.color]
    arguments = sum(a.num_bytes for a in here if a.is_parameter)
    aliased = sum(a.num_bytes for a in here if a.is_parameter and a.is_output)
    outputs = sum(a.num_bytes for a in here if a.is_output and not a.is_parameter)
    temporaries = sum(a.num_bytes for a in here if a.is_temporary and not a.is_output)
    live = live_at_peak(allocations, ranges)
    return CompiledMemory(
        arguments_bytes=float(arguments),
        outputs_bytes=float(outputs),
        temporaries_bytes=float(temporaries),
        code_bytes=math.nan,
        aliased_bytes=float(aliased),
        host_bytes=float(sum(a.num_bytes for a in allocations if a.color == _HOST_COLOR)),
        peak_bytes=float(arguments + outputs + covered_bytes(live)),
    )


def live_at_peak(allocations: Iterable[Allocation], ranges: Ranges) -> tuple[Value, ...]:
    """The temporaries alive at the point of the schedule at which they cover most."""
    values = [v for a in allocations if a.is_temporary and not a.color for v in a.values if v.key in ranges]
    best: tuple[Value, ...] = ()
    most = 0
    for point in sorted({ranges[v.key][0] for v in values}):
        alive = tuple(v for v in values if ranges[v.key][0] <= point <= ranges[v.key][1])
        if (covered := covered_bytes(alive)) > most:
            best, most = alive, covered
    return best


def live_levels(
    allocations: Iterable[Allocation], ranges: Ranges, points: Mapping[str, int], ops: Collection[str]
) -> dict[str, float]:
    """Bytes of temporaries in use from each of these ops on until the next of them: the most of that stretch.

    Empty where the compiler left no live ranges. The largest is what `live_at_peak` covers.
    """
    values = [v for a in allocations if a.is_temporary and not a.color for v in a.values if v.key in ranges]
    found = sorted((points[name], name) for name in ops if name in points)
    if not values or not found:
        return {}
    starts = [at for at, _ in found]
    levels = {name: 0.0 for _, name in found}
    for at, until, covered in _stretches(values, ranges):
        first = max(bisect.bisect_right(starts, at) - 1, 0)
        for _, name in found[first : max(bisect.bisect_right(starts, until), first + 1)]:
            levels[name] = max(levels[name], covered)
    return levels


def _stretches(values: Iterable[Value], ranges: Ranges) -> Iterator[tuple[int, int, float]]:
    """First point, last point and covered bytes of each stretch of the schedule in which the same values are alive."""
    begins = sorted(values, key=lambda v: ranges[v.key][0])
    changes = sorted({ranges[v.key][0] for v in begins} | {ranges[v.key][1] + 1 for v in begins})
    alive: list[Value] = []
    taken = 0
    for at, after in itertools.pairwise(changes):
        alive = [v for v in alive if ranges[v.key][1] >= at]
        while taken < len(begins) and ranges[begins[taken].key][0] <= at:
            alive.append(begins[taken])
            taken += 1
        yield at, after - 1, float(covered_bytes(alive))


def covered_bytes(values: Iterable[Value]) -> int:
    """Bytes of one allocation that values cover; values that share a place count once."""
    total = end = 0
    for begin, size in sorted((v.offset, v.num_bytes) for v in values):
        total += max(0, begin + size - max(begin, end))
        end = max(end, begin + size)
    return total


def largest_buffers(
    allocations: Iterable[Allocation], module: Module | None, ranges: Ranges | None = None
) -> tuple[Buffer, ...]:
    """The largest buffers by the op that makes them; of values that share a place, the largest.

    With `ranges`, of temporaries only those alive at the peak.
    """
    allocations = tuple(allocations)
    alive = {v.key for v in live_at_peak(allocations, ranges)} if ranges else None
    sources = {i.name: i.source for c in module.computations.values() for i in c.instructions} if module else {}
    places: dict[tuple[int, int], Buffer] = {}
    for number, allocation in enumerate(allocations):
        makers = _makers(allocation, sources)
        for value in allocation.values if allocation.counts else ():
            if alive is not None and allocation.is_temporary and value.key not in alive:
                continue
            place = (number, value.offset)
            if place not in places or places[place].num_bytes < value.num_bytes:
                places[place] = Buffer(
                    name=value.name, num_bytes=float(value.num_bytes), type_text=value.type_text,
                    source=makers.get((value.offset, value.num_bytes), sources.get(value.name, "")),
                )  # fmt: skip
    return tuple(sorted(places.values(), key=lambda buffer: -buffer.num_bytes)[:NUM_LARGEST])


def _makers(allocation: Allocation, sources: Mapping[str, str]) -> dict[tuple[int, int], str]:
    """The JAX op that fills each place: a loop that holds it says less than the op inside that writes it."""
    found: dict[tuple[int, int], str] = {}
    for value in allocation.values:
        source, place = sources.get(value.name, ""), (value.offset, value.num_bytes)
        if not source.endswith("/while") and len(source) > len(found.get(place, "")):
            found[place] = source
    return found
