"""How often a loop's body runs, and which branches a conditional has."""

import re
from dataclasses import dataclass

from jaxscale.aot.hlo.text import Computation, Instruction, Module

_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_COPIES = ("copy", "bitcast", "convert", "reshape", "copy-done", "get-tuple-element")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A `while` and how often its body runs each time it is reached; None where the text does not say."""

    name: str
    body: str
    condition: str
    trip_count: int | None
    source: str


def read_loop(module: Module, computation: Computation, instruction: Instruction) -> Loop:
    """Read a `while`; the trip count as annotated (CPU, GPU), or from its condition (TPU)."""
    body, condition = instruction.reference("body") or "", instruction.reference("condition") or ""
    known = _KNOWN_TRIPS.search(instruction.attributes)
    trips = int(known.group(1)) if known else _trips_by_condition(module, computation, instruction, condition)
    return Loop(name=instruction.name, body=body, condition=condition, trip_count=trips, source=instruction.source)


def _trips_by_condition(
    module: Module, computation: Computation, instruction: Instruction, condition: str
) -> int | None:
    """Trips of a loop `i = start; while i < stop: i += 1`, the only kind that `scan` and `fori_loop` make."""
    test = module.computations.get(condition)
    if test is None:
        return None
    compare = test.root
    if compare.opcode == "fusion":  # its fused computation compares the same operands in the same order
        inner = module.computations.get(compare.reference("calls") or "")
        if inner is None or inner.root.opcode != "compare":
            return None
        direction = inner.root.attributes
    else:
        direction = compare.attributes
    if "direction=LT" not in direction or len(compare.operands) != 2:
        return None
    initial = computation.operand(instruction, 0)
    counter, stop = (_loop_constant(module, test, test.operand(compare, side), computation, initial) for side in (0, 1))
    return None if stop is None else stop - (counter or 0)


def _loop_constant(
    module: Module,
    test: Computation,
    value: Instruction | None,
    outer: Computation,
    initial: Instruction | None,
) -> int | None:
    """The constant that a value in a loop's condition has on entry, looked up through the loop's initial tuple."""
    while value is not None and value.opcode in _COPIES:
        maker = test.operand(value, 0)
        if value.opcode == "get-tuple-element" and maker is not None and maker.opcode == "parameter":
            if initial is None or initial.opcode != "tuple":
                return None
            return _constant(outer, outer.operand(initial, value.integer("index", 0)))
        value = maker
    return _constant(test, value)


def _constant(computation: Computation, value: Instruction | None) -> int | None:
    while value is not None and value.opcode in _COPIES:
        value = computation.operand(value, 0)
    if value is None or value.opcode != "constant" or not re.fullmatch(r"-?\d+", value.arguments):
        return None
    return int(value.arguments)


def conditional_branches(attributes: str) -> tuple[str, ...]:
    """Branches of a conditional, in order."""
    if listed := re.search(r"branch_computations=\{([^}]*)\}", attributes):
        return tuple(name.strip().lstrip("%") for name in listed.group(1).split(","))
    return tuple(re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", attributes))


def begins_work(instruction: Instruction) -> bool:
    """Whether asynchronous work begins here: at a start, or at the update that hands a start its operands."""
    if instruction.opcode == "async-update":
        return len(instruction.operands) > 1
    return instruction.opcode.endswith("-start") and bool(instruction.operands)


def inlined_computations(instruction: Instruction, computation: Computation) -> tuple[str, ...]:
    """Computations that are part of an op: fused, called, wrapped in an asynchronous op or run by a sparse core."""
    if instruction.opcode.startswith("async-"):
        if not begins_work(instruction):
            return ()
        start: Instruction | None = instruction
        while start is not None and start.opcode == "async-update":
            start = computation.operand(start, 0)
        target = start.reference("calls") if start else None
        return (target,) if target else ()
    if instruction.opcode in ("fusion", "call"):
        target = instruction.reference("calls") or instruction.reference("to_apply")
        return (target,) if target else ()
    if instruction.opcode == "custom-call":
        called = re.search(r"called_computations=\{([^}]*)\}", instruction.attributes)
        return tuple(name.strip().lstrip("%") for name in called.group(1).split(",")) if called else ()
    return ()
