"""A compiled program as what runs, how often, and what overlaps: the schedule read from optimized HLO."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from jaxscale.aot.hlo.collectives import (
    CollectiveCall,
    counted_collectives,
    ends_chain,
    is_collective,
    read_collective,
    starts_chain,
    summarize,
)
from jaxscale.aot.hlo.flops import KernelFlops, Matmul, is_kernel, kernel_flops, read_matmul
from jaxscale.aot.hlo.groups import MeshAxes
from jaxscale.aot.hlo.loops import Loop, begins_work, conditional_branches, inlined_computations, read_loop
from jaxscale.aot.hlo.text import Computation, Instruction, Module, parse_module
from jaxscale.aot.hlo.traffic import FREE_OPCODES, traffic
from jaxscale.types import Collective

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NO_CYCLES = 2**63 - 1  # what the TPU compiler prints where it has no estimate
_SCALAR_BYTES = 64  # ops of so little output keep no unit busy


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledOp:
    """One op of the schedule; figures are of one run. A loop, call or conditional names what it runs in `body`."""

    name: str
    opcode: str
    source: str
    flops: float = 0.0  # of its matmuls and kernels
    matmuls: tuple[Matmul, ...] = ()
    is_kernel: bool = False
    uncounted: tuple[str, ...] = ()  # kernels whose FLOPs are not known
    device_bytes: float = 0.0
    host_bytes: float = 0.0
    cycles: int | None = None  # the compiler's own estimate; None where it made none
    collectives: tuple[CollectiveCall, ...] = ()
    starts: bool = False  # its collectives or copies run on while later ops compute
    waits_for: str = ""  # the op that started what this one waits for
    body: str = ""
    trips: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The schedule of every computation that runs op by op, and what the text could not tell."""

    entry: str
    schedules: Mapping[str, tuple[ScheduledOp, ...]] = field(repr=False)
    loops: tuple[Loop, ...]
    mesh: MeshAxes

    def runs(self) -> Iterator[tuple[ScheduledOp, float, str]]:
        """Every op with how often it runs a step, and its computation; a loop comes before its body's ops."""
        return self._runs(self.entry, 1.0)

    def _runs(self, name: str, times: float) -> Iterator[tuple[ScheduledOp, float, str]]:
        for op in self.schedules[name]:
            yield op, times, name
            if op.body:
                yield from self._runs(op.body, times * op.trips)

    @property
    def leaves(self) -> frozenset[str]:
        """Names of the ops that run by themselves: all but loops, calls and conditionals."""
        return frozenset(op.name for ops in self.schedules.values() for op in ops if not op.body)

    @property
    def unknown_loops(self) -> tuple[str, ...]:
        """Loops whose trip count the text does not tell; they are counted as one trip."""
        return tuple(loop.name for loop in self.loops if loop.trip_count is None)

    @property
    def uncounted_kernels(self) -> dict[str, float]:
        """Kernels whose FLOPs are not known, and their runs a step."""
        runs: Counter[str] = Counter()
        for op, times, _ in self.runs():
            for kernel in op.uncounted:
                runs[kernel] += times
        return dict(runs)

    @property
    def flops(self) -> float:
        """Matmul and kernel FLOPs of one device and step, loops run out."""
        return sum(op.flops * times for op, times, _ in self.runs())

    @property
    def device_bytes(self) -> float:
        """Bytes that ops read and write in device memory, of one device and step."""
        return sum(op.device_bytes * times for op, times, _ in self.runs())

    @property
    def host_bytes(self) -> float:
        """Bytes moved between device and host."""
        return sum(op.host_bytes * times for op, times, _ in self.runs())

    @property
    def cycles(self) -> float:
        """Sum of the compiler's own estimates; collectives and kernels have none. A diagnostic, not a time."""
        return sum((op.cycles or 0) * times for op, times, _ in self.runs())

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """Collectives joined by kind, axes, payload and scope, largest first."""
        calls = []
        for op, times, computation in self.runs():
            overlapped = bool(op.collectives) and op.starts and self._computes_beside(computation, op)
            calls += [(call, times, overlapped) for call in op.collectives]
        return summarize(calls)

    def _computes_beside(self, computation: str, start: ScheduledOp) -> bool:
        """Whether the schedule has compute between a start and what waits for it."""
        schedule = self.schedules[computation]
        begin = next(i for i, op in enumerate(schedule) if op.name == start.name)
        for op in schedule[begin + 1 :]:
            if op.waits_for == start.name:
                return False
            if op.flops or op.body or op.cycles or op.device_bytes > _SCALAR_BYTES:
                return True
        return False


def read_program(text: str, mesh: MeshAxes, *, kernels: KernelFlops | None = None) -> Program:
    """Read optimized HLO text.

    `kernels` gives the FLOPs of a kernel call that the text hides (None: not known to the caller either).
    """
    reader = _Reader(module=parse_module(text), mesh=mesh, kernels=kernels)
    schedules: dict[str, tuple[ScheduledOp, ...]] = {}
    pending = [reader.module.entry.name]
    while pending:
        name = pending.pop()
        if name not in schedules:
            schedules[name] = reader.schedule(reader.module.computations[name])
            pending += [op.body for op in schedules[name] if op.body]
    return Program(entry=reader.module.entry.name, schedules=schedules, loops=reader.loops(), mesh=mesh)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    module: Module
    mesh: MeshAxes
    kernels: KernelFlops | None

    def loops(self) -> tuple[Loop, ...]:
        return tuple(
            read_loop(self.module, computation, instruction)
            for computation in self.module.computations.values()
            for instruction in computation.instructions
            if instruction.opcode == "while"
        )

    def schedule(self, computation: Computation) -> tuple[ScheduledOp, ...]:
        """The ops of one computation, those left out that only name values."""
        ops = (self._op(instruction, computation) for instruction in computation.instructions)
        return tuple(op for op in ops if op is not None)

    def _op(self, instruction: Instruction, computation: Computation) -> ScheduledOp | None:
        body, trips = self._body(instruction, computation)
        waits_for = _waits_for(instruction, computation, self.module)
        collectives = self._collectives(instruction, computation)
        if instruction.opcode in FREE_OPCODES and not (body or waits_for or collectives):
            return None
        moved = traffic(self.module, instruction, computation)
        return ScheduledOp(
            name=instruction.name,
            opcode=instruction.opcode,
            source=instruction.source,
            flops=0.0 if body else self._flops(instruction, computation),
            matmuls=() if body else self._matmuls(instruction, computation),
            is_kernel=is_kernel(instruction),
            uncounted=() if body else self._uncounted(instruction, computation),
            device_bytes=moved.device_bytes,
            host_bytes=moved.host_bytes,
            cycles=_cycles(instruction),
            collectives=collectives,
            starts=_starts(instruction, self.module),
            waits_for=waits_for,
            body=body,
            trips=trips,
        )

    def _body(self, instruction: Instruction, computation: Computation) -> tuple[str, float]:
        """What an op runs op by op, and how often."""
        if instruction.opcode == "while":
            found = read_loop(self.module, computation, instruction)
            return found.body, 1.0 if found.trip_count is None else float(found.trip_count)
        if instruction.opcode == "call":
            return instruction.reference("to_apply") or instruction.reference("calls") or "", 1.0
        if instruction.opcode == "conditional":
            branches = conditional_branches(instruction.attributes)
            return max(branches, key=lambda name: self._weight(self.module.computations[name]), default=""), 1.0
        return "", 1.0

    def _weight(self, computation: Computation) -> tuple[float, int]:
        """How heavy a branch is: a conditional counts as its heaviest branch."""
        flops = sum(
            self._flops(inner, owner) for i in computation.instructions for inner, owner in self.nested(i, computation)
        )
        return flops, len(computation.instructions)

    def nested(self, instruction: Instruction, computation: Computation) -> Iterator[tuple[Instruction, Computation]]:
        """An instruction, and all those fused or wrapped into it."""
        yield instruction, computation
        for target in inlined_computations(instruction, computation):
            inner = self.module.computations.get(target)
            for child in inner.instructions if inner else ():
                yield from self.nested(child, inner)  # type: ignore[arg-type]

    def _flops(self, instruction: Instruction, computation: Computation) -> float:
        """FLOPs of an op's matmuls and kernels, with those fused into it."""
        kernels = (
            kernel_flops(inner, owner, self.kernels) or 0.0
            for inner, owner in self.nested(instruction, computation)
            if is_kernel(inner)
        )
        return sum(kernels) + sum(matmul.flops for matmul in self._matmuls(instruction, computation))

    def _uncounted(self, instruction: Instruction, computation: Computation) -> tuple[str, ...]:
        return tuple(
            inner.source or inner.name
            for inner, owner in self.nested(instruction, computation)
            if is_kernel(inner) and kernel_flops(inner, owner, self.kernels) is None
        )

    def _matmuls(self, instruction: Instruction, computation: Computation) -> tuple[Matmul, ...]:
        found = (read_matmul(inner, owner) for inner, owner in self.nested(instruction, computation))
        return tuple(matmul for matmul in found if matmul is not None)

    def _collectives(self, instruction: Instruction, computation: Computation) -> tuple[CollectiveCall, ...]:
        if is_collective(instruction):
            return (read_collective(instruction, computation, self.mesh),)
        found = []
        seen: set[str] = set()
        for _, owner in self.nested(instruction, computation):
            if owner is not computation and owner.name not in seen:
                seen.add(owner.name)
                found += [read_collective(i, owner, self.mesh) for i in counted_collectives(owner)]
        return tuple(found)


def _starts(instruction: Instruction, module: Module) -> bool:
    if instruction.opcode == "fusion":
        inner = module.computations.get(instruction.reference("calls") or "")
        return inner is not None and starts_chain(inner)
    return begins_work(instruction)


def _waits_for(instruction: Instruction, computation: Computation, module: Module) -> str:
    """Name of the start that an op ends: followed back through the ops that hand the started work on."""
    inner = module.computations.get(instruction.reference("calls") or "") if instruction.opcode == "fusion" else None
    if not (instruction.opcode.endswith("-done") or (inner is not None and ends_chain(inner))):
        return ""
    maker: Instruction | None = instruction
    for _ in range(len(computation.instructions)):
        maker = computation.operand(maker, 0)
        if maker is None:
            return ""
        if _starts(maker, module):
            return maker.name
    return ""


def _cycles(instruction: Instruction) -> int | None:
    match = _CYCLES.search(instruction.attributes)
    value = int(match.group(1)) if match else _NO_CYCLES
    return None if value >= _NO_CYCLES else value
