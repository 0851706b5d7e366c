"""Bytes that one instruction reads and writes in device memory, and moves to or from host memory."""

from dataclasses import dataclass

from jaxscale.aot.hlo.shapes import DEVICE_MEMORY, HOST_MEMORY, ArrayType
from jaxscale.aot.hlo.text import Computation, Instruction, Module

# They name, group or reinterpret values, or only wait for them; nothing moves.
FREE_OPCODES = frozenset(
    {
        "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id",
        "while", "conditional", "call", "async-start", "async-update", "async-done", "copy-done", "slice-done",
        "all-gather-done", "all-reduce-done", "reduce-scatter-done", "all-to-all-done", "collective-permute-done",
        "optimization-barrier", "add-dependency", "domain", "send-done", "recv-done",
    }
)  # fmt: skip
_NO_BUFFER_TARGETS = ("AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "PinToDevice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes of one run of an op."""

    device_bytes: float = 0.0  # read from and written to HBM
    host_bytes: float = 0.0  # moved between device and host


def traffic(module: Module, instruction: Instruction, computation: Computation) -> Traffic:
    """Count one instruction's bytes, each operand and output once.

    A fusion that reads or updates a slice of an operand is charged the slice: loops over stacked layers are made of
    such. Arrays in on-chip memory are free.
    """
    if instruction.opcode in FREE_OPCODES or instruction.custom_call_target.startswith(_NO_BUFFER_TARGETS):
        return Traffic()
    touched = _read(module, instruction, computation) + _written(module, instruction, computation)
    device = sum(size for array, size in touched if array.memory_space == DEVICE_MEMORY)
    host = sum(size for array, size in touched if array.memory_space == HOST_MEMORY)
    return Traffic(device_bytes=float(device), host_bytes=float(host))


def _read(module: Module, instruction: Instruction, computation: Computation) -> list[tuple[ArrayType, int]]:
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return [(array, array.num_bytes) for array in instruction.outputs]
    if instruction.opcode == "dynamic-update-slice":
        update = computation.operand(instruction, 1)
        return [(array, array.num_bytes) for array in update.outputs] if update else []
    inner = module.computations.get(instruction.reference("calls") or "") if instruction.opcode == "fusion" else None
    touched = []
    for index, name in enumerate(instruction.operands):
        maker = computation.by_name.get(name)
        for array in maker.outputs if maker else ():
            touched.append((array, _bytes_used(module, inner, index, array) if inner else array.num_bytes))
    return touched


def _bytes_used(module: Module, inner: Computation, index: int, array: ArrayType) -> int:
    """Bytes of a fusion's operand that it reads: slices only, where it is only sliced; none, where only updated."""
    parameter = next(
        (i for i in inner.instructions if i.opcode == "parameter" and i.arguments.strip() == str(index)), None
    )
    users = [i for i in inner.instructions if parameter is not None and parameter.name in i.operands]
    if not users:
        return array.num_bytes
    used = 0
    for user in users:
        if user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == parameter.name:
            used += sum(out.num_bytes for out in user.outputs)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue
        elif user.opcode == "fusion" and (nested := module.computations.get(user.reference("calls") or "")):
            used += sum(
                _bytes_used(module, nested, position, array)
                for position, name in enumerate(user.operands)
                if name == parameter.name
            )
        else:
            return array.num_bytes
    return min(used, array.num_bytes)


def _written(module: Module, instruction: Instruction, computation: Computation) -> list[tuple[ArrayType, int]]:
    outputs = instruction.outputs
    if instruction.opcode.endswith("-start") and len(outputs) > 1:
        outputs = outputs[:1]  # a start's type lists its destination (copy) and its operand and state besides
    update = _update_bytes(module, instruction, computation)
    return [(array, update if update is not None else array.num_bytes) for array in outputs]


def _update_bytes(module: Module, instruction: Instruction, computation: Computation) -> int | None:
    """Bytes of an update in place, where that is what the op ends in."""
    if instruction.opcode == "fusion":
        inner = module.computations.get(instruction.reference("calls") or "")
        if inner is None:
            return None
        instruction, computation = inner.root, inner
        while instruction.opcode == "bitcast" and (maker := inner.operand(instruction, 0)):
            instruction = maker
    if instruction.opcode != "dynamic-update-slice":
        return None
    update = computation.operand(instruction, 1)
    return sum(array.num_bytes for array in update.outputs) if update else None
