"""Memory of a compiled program: the compiler's classes, and the largest buffers by the op that makes them."""

import re
from typing import Any

from jaxscale.aot.hlo.text import Module
from jaxscale.aot.result import Buffer, CompiledMemory
from jaxscale.aot.targets import Target

_UNITS = {"B": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_TOTAL = re.compile(
    r"memory required[^(]*\(([\d.]+)([BKMGT])?[^)]*\) exceeds available HBM \(([\d.]+)([BKMGT])?[^)]*\)"
)
_ALLOCATION = re.compile(r"^allocation (\d+): size (\d+)(.*)$")
_VALUE = re.compile(r"^ value: <\d+ ([\w.\-]+)(?:\{[\d,]*\})? @\d+> \(size=(\d+),offset=(\d+)\): (.*)$")
NUM_LARGEST = 12


def memory_classes(analysis: Any, target: Target) -> CompiledMemory:
    """Read `Compiled.memory_analysis()`.

    The CPU backend's peak leaves temporaries out, so there it is their sum with arguments and outputs.
    """
    arguments = float(analysis.argument_size_in_bytes)
    outputs = max(0.0, float(analysis.output_size_in_bytes - analysis.alias_size_in_bytes))
    temporaries = float(analysis.temp_size_in_bytes)
    peak = float(getattr(analysis, "peak_memory_in_bytes", 0))
    if target.backend == "cpu" or not peak:
        peak = arguments + outputs + temporaries
    host = (
        analysis.host_argument_size_in_bytes
        + max(0, analysis.host_output_size_in_bytes - analysis.host_alias_size_in_bytes)
        + analysis.host_temp_size_in_bytes
    )
    return CompiledMemory(
        arguments_bytes=arguments,
        outputs_bytes=outputs,
        temporaries_bytes=temporaries,
        code_bytes=float(analysis.generated_code_size_in_bytes),
        aliased_bytes=float(analysis.alias_size_in_bytes),
        host_bytes=float(host),
        peak_bytes=peak,
    )


def out_of_memory_bytes(message: str) -> tuple[float, float] | None:
    """What a program needs and what there is, from the TPU compiler's refusal; None where the text is another.

    >>> out_of_memory_bytes("the total memory required for HLO temporaries (2.00G) exceeds available HBM (1.00G)")
    (2147483648.0, 1073741824.0)
    """
    match = _TOTAL.search(message)
    if match is None:
        return None
    needed, needed_unit, limit, limit_unit = match.groups()
    return float(needed) * _UNITS[needed_unit or "B"], float(limit) * _UNITS[limit_unit or "B"]


def largest_buffers(assignment: str, module: Module | None) -> tuple[Buffer, ...]:
    """The largest buffers of a dumped buffer assignment; of values that share a place, the largest."""
    sources = {i.name: i.source for c in module.computations.values() for i in c.instructions} if module else {}
    places: dict[tuple[int, int], Buffer] = {}
    allocation, counted = -1, False
    for line in assignment.splitlines():
        if head := _ALLOCATION.match(line):
            allocation = int(head.group(1))
            counted = "thread-local" not in head.group(3) and "color" not in head.group(3)
        elif counted and (value := _VALUE.match(line)):
            name, size, offset, type_text = value.groups()
            place = (allocation, int(offset))
            if place not in places or places[place].num_bytes < int(size):
                places[place] = Buffer(
                    name=name, num_bytes=float(size), type_text=type_text, source=sources.get(name, "")
                )
    return tuple(sorted(places.values(), key=lambda buffer: -buffer.num_bytes)[:NUM_LARGEST])
