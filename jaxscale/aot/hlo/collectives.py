"""Collectives of a program: what each moves, between whom, and whether compute is scheduled beside it."""

from collections.abc import Iterable
from dataclasses import dataclass

from jaxscale.aot.hlo.groups import MeshAxes, group_axes, permute_pairs, replica_groups
from jaxscale.aot.hlo.text import Computation, Instruction
from jaxscale.types import Collective

# HLO opcode (without -start) -> kind as jaxscale names it
_KINDS = {
    "all-gather": "all-gather",
    "all-reduce": "all-reduce",
    "reduce-scatter": "reduce-scatter",
    "all-to-all": "all-to-all",
    "ragged-all-to-all": "all-to-all",
    "collective-permute": "collective-permute",
    "collective-broadcast": "collective-broadcast",
}
# A TPU fusion of this name sums and keeps one slice: a reduce-scatter in all but the opcode inside.
_FUSED_REDUCE_SCATTER = "all-reduce-scatter"
_CHAIN_START, _CHAIN_DONE = "AsyncCollectiveStart", "AsyncCollectiveDone"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveCall:
    """One collective op of the program, for one run of it."""

    name: str
    kind: str
    axes: tuple[str, ...]
    group_size: int
    payload_bytes: float  # as `jaxscale.types.Collective.bytes_each`
    wire_bytes: float  # what one device sends
    source: str


def is_collective(instruction: Instruction) -> bool:
    """Whether an instruction is a collective, or starts one."""
    return instruction.opcode.removesuffix("-start") in _KINDS


def read_collective(instruction: Instruction, computation: Computation, mesh: MeshAxes) -> CollectiveCall:
    """Read one collective."""
    kind = _KINDS[instruction.opcode.removesuffix("-start")]
    if kind == "all-reduce" and _FUSED_REDUCE_SCATTER in computation.name:
        kind = "reduce-scatter"
    if kind == "collective-permute":
        pairs = permute_pairs(instruction.attributes)
        axes, size = group_axes(pairs, mesh), 2
    else:
        groups = replica_groups(instruction.attributes, mesh.num_devices)
        axes, size = group_axes(groups, mesh), len(groups[0])
    payload = _payload_bytes(instruction, computation, kind, size)
    return CollectiveCall(
        name=instruction.name,
        kind=kind,
        axes=axes,
        group_size=size,
        payload_bytes=payload,
        wire_bytes=ring_wire_bytes(kind, payload, size),
        source=instruction.source,
    )


def _payload_bytes(instruction: Instruction, computation: Computation, kind: str, group_size: int) -> float:
    """Bytes by the definition of `Collective.bytes_each`; from the operands, as a start mixes outputs with state."""
    sent = len(instruction.operands)
    if kind == "collective-permute":
        sent = _permuted(instruction)
    elif instruction.opcode.startswith("ragged"):
        sent = 1  # further operands are buffers and indices
    makers = (computation.operand(instruction, index) for index in range(sent))
    local = float(sum(array.num_bytes for maker in makers if maker for array in maker.outputs))
    return local * group_size if kind == "all-gather" else local


def _permuted(instruction: Instruction) -> int:
    """Arrays that a permute sends: of one in place, further operands are buffers and indices.

    The GPU compiler joins several permutes into one: `(a, b)` of operands, or `((a, b), (a, b))` where it only starts.
    """
    if instruction.type_text.startswith("(("):
        return len(instruction.outputs) // 2
    is_started = instruction.opcode.endswith("-start")
    return len(instruction.outputs) if instruction.type_text.startswith("(") and not is_started else 1


def ring_wire_bytes(kind: str, payload_bytes: float, group_size: int) -> float:
    """What one device sends in a ring (or direct all-to-all) of `group_size` devices.

    >>> ring_wire_bytes("all-reduce", 8.0, 4)
    12.0
    """
    others = (group_size - 1) / group_size
    factors = {"all-reduce": 2.0 * others, "collective-permute": 1.0, "collective-broadcast": 1.0}
    return payload_bytes * factors.get(kind, others)


def counted_collectives(computation: Computation) -> tuple[Instruction, ...]:
    """The collectives of a fused or asynchronous computation that are to be counted there.

    The TPU compiler spreads one collective over a chain of fusions, each with a copy of the op: the first holds
    `AsyncCollectiveStart`, the last `AsyncCollectiveDone`, those between compute. It is counted in the first.
    """
    found = tuple(i for i in computation.instructions if is_collective(i))
    if any("chain_id=" in i.attributes for i in found) and not starts_chain(computation):
        return tuple(i for i in found if "chain_id=" not in i.attributes)
    return found


def starts_chain(computation: Computation) -> bool:
    """Whether a fused computation starts a collective that later fusions carry on."""
    return any(i.custom_call_target == _CHAIN_START for i in computation.instructions)


def ends_chain(computation: Computation) -> bool:
    """Whether a fused computation waits for a collective that an earlier fusion started."""
    return any(i.custom_call_target == _CHAIN_DONE for i in computation.instructions)


def summarize(calls: Iterable[tuple[CollectiveCall, float, bool]]) -> tuple[Collective, ...]:
    """Join calls of one kind, axes and payload; each comes with its runs a step and whether compute is beside it."""
    counts: dict[tuple, float] = {}
    wires: dict[tuple, float] = {}
    for call, runs, overlapped in calls:
        key = (call.kind, call.axes, call.payload_bytes, scope_name(call.source), overlapped)
        counts[key] = counts.get(key, 0.0) + runs
        wires[key] = wires.get(key, 0.0) + runs * call.wire_bytes
    order = sorted(counts, key=lambda key: -wires[key])
    return tuple(
        Collective(
            kind=key[0],
            axes=key[1],
            name=key[3],
            bytes_each=key[2],
            count=counts[key],
            wire_bytes=wires[key],
            asynchronous=key[4],
        )
        for key in order
    )


def scope_name(source: str) -> str:
    """The innermost scope of an op's path that says what it belongs to; without JAX's own wrappers.

    >>> scope_name("jit(step)/shard_map/transpose(jvp(mlp))/while/body/closed_call/checkpoint/all_gather")
    'mlp'
    """
    wrappers = ("transpose", "jvp", "vmap", "jit", "remat", "checkpoint", "custom_vjp", "custom_jvp")
    skipped = {"", "while", "body", "cond", "closed_call", "shard_map", "rematted_computation", "checkpoint", "step"}
    names = []
    for part in source.split("/")[:-1]:
        while part.endswith(")") and part.partition("(")[0] in wrappers:
            is_function = part.startswith("jit(")
            part = "" if is_function else part.partition("(")[2][:-1]
        if part not in skipped and not part.startswith(("branch_", "remat")):
            names.append(part)
    return names[-1] if names else ""
