"""Optimized HLO text into computations and instructions.

The text is not a stable interface of XLA. What is relied on: one instruction begins a line, `name = type
opcode(operands), attributes`, indented inside `[ENTRY] name (parameters) -> type { ... }`; operands are names with a
percent sign. An instruction may go on over several lines (metadata of Pallas kernels does).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from jaxscale.aot.hlo.shapes import ArrayType, parse_type
from jaxscale.errors import CompileError

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_END = re.compile(r"^\}(, execution_thread=\"\w+\")?$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_OPERAND = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One op: what it makes, from what, and its attributes as printed."""

    name: str
    opcode: str
    type_text: str
    operands: tuple[str, ...]
    arguments: str  # what stands between the parentheses: a constant's value, a parameter's number
    attributes: str
    is_root: bool = False

    @cached_property
    def outputs(self) -> tuple[ArrayType, ...]:
        """Arrays it makes."""
        return parse_type(self.type_text)

    def reference(self, attribute: str) -> str | None:
        """Name of the computation that an attribute such as `calls` or `body` points at."""
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return match.group(1) if match else None

    def integers(self, attribute: str) -> tuple[int, ...]:
        """A list attribute such as `dimensions={0,1}`."""
        match = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(n) for n in match.group(1).split(",") if n) if match else ()

    def integer(self, attribute: str, default: int) -> int:
        """A number attribute such as `feature_group_count=4`."""
        match = re.search(rf"\b{attribute}=(\d+)", self.attributes)
        return int(match.group(1)) if match else default

    @cached_property
    def source(self) -> str:
        """The JAX op it came from, as a path of scopes; empty for ops that the compiler made itself."""
        match = re.search(r'metadata=\{[^}]*?op_name="([^"]*)"', self.attributes)
        return match.group(1) if match else ""

    @cached_property
    def custom_call_target(self) -> str:
        """Target of a custom call."""
        match = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return match.group(1) if match else ""


@dataclass(frozen=True, kw_only=True)
class Computation:
    """A list of instructions; in the order of the schedule, where the module is scheduled."""

    name: str
    instructions: tuple[Instruction, ...]
    is_entry: bool = False

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Instructions by name."""
        return {instruction.name: instruction for instruction in self.instructions}

    @cached_property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next((i for i in self.instructions if i.is_root), self.instructions[-1])

    def operand(self, instruction: Instruction, index: int) -> Instruction | None:
        """The instruction that makes an operand; None where there is none of that number."""
        if index >= len(instruction.operands):
            return None
        return self.by_name.get(instruction.operands[index])

    def operand_types(self, instruction: Instruction) -> tuple[ArrayType, ...]:
        """Arrays an instruction reads, tuples flattened."""
        makers = (self.by_name.get(name) for name in instruction.operands)
        return tuple(array for maker in makers if maker for array in maker.outputs)


@dataclass(frozen=True, kw_only=True)
class Module:
    """A compiled program as text says it."""

    name: str
    computations: dict[str, Computation] = field(repr=False)
    num_partitions: int = 1

    @cached_property
    def entry(self) -> Computation:
        """The computation that runs first."""
        return next(c for c in self.computations.values() if c.is_entry)


def parse_module(text: str) -> Module:
    """Read a module from its text."""
    head = re.match(r"HloModule ([\w.\-]+)", text)
    if head is None:
        raise CompileError("the compiler's text does not begin with HloModule: it cannot be read")
    first_line = text.partition("\n")[0]
    partitions = re.search(r"num_partitions=(\d+)", first_line)
    computations = {computation.name: computation for computation in _computations(text)}
    if not any(computation.is_entry for computation in computations.values()):
        raise CompileError(f"HLO module {head.group(1)} has no ENTRY computation: its text is cut short")
    return Module(
        name=head.group(1), computations=computations, num_partitions=int(partitions.group(1)) if partitions else 1
    )


def _computations(text: str) -> Iterator[Computation]:
    name, is_entry, lines = "", False, []
    for line in text.splitlines():
        if not name:
            header = _HEADER.match(line) if not line.startswith((" ", "HloModule")) else None
            if header:
                name, is_entry, lines = header.group(2), bool(header.group(1)), []
        elif _END.match(line):
            instructions = tuple(_instruction(logical) for logical in lines)
            yield Computation(name=name, instructions=instructions, is_entry=is_entry)
            name = ""
        elif _INSTRUCTION.match(line):
            lines.append(line)
        elif lines:
            lines[-1] += line  # goes on over several lines


def _instruction(line: str) -> Instruction:
    head = _INSTRUCTION.match(line)
    assert head is not None, "callers pass lines that begin an instruction"
    opcode = _OPCODE.search(line, head.end() - 1)
    if opcode is None:
        raise CompileError(f"HLO instruction {head.group(2)} has no opcode: its text cannot be read")
    close = _closing_parenthesis(line, opcode.end())
    arguments = line[opcode.end() : close]
    literal = opcode.group(1) in ("constant", "parameter")
    return Instruction(
        name=head.group(2),
        opcode=opcode.group(1),
        type_text=line[head.end() : opcode.start()],
        operands=() if literal else tuple(_OPERAND.findall(arguments)),
        arguments=arguments,
        attributes=line[close + 1 :],
        is_root=bool(head.group(1)),
    )


def _closing_parenthesis(line: str, start: int) -> int:
    """Index of the parenthesis that closes the one before `start`."""
    depth, close = 1, start
    for match in re.compile(r"[()]").finditer(line, start):
        depth += 1 if match.group() == "(" else -1
        close = match.start()
        if depth == 0:
            return close
    return len(line) if depth else close
