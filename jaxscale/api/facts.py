"""What a compiled step tells a report: buffers, and every op with its price."""

from collections.abc import Iterator

from jaxscale.aot.hlo import Program, ScheduledOp
from jaxscale.aot.result import CompiledStep
from jaxscale.api.compiled import step_prices
from jaxscale.cost.problem import Problem
from jaxscale.report.figures.roofline import OpPoint
from jaxscale.report.kinds.compile import CompilerFacts

MOST_OPS = 400  # the longest; the rest take no time that could be seen
_SOURCE_CHARS = 60  # the end of an op's path, which says most


def compiler_facts(step: CompiledStep, p: Problem) -> CompilerFacts:
    """What only the compiler knows of a step, for its report."""
    return CompilerFacts(
        status=step.status,
        message=step.message,
        compile_s=step.total_s,
        cached=step.cached,
        buffers=[(f"{b.name} {_tail(b.source)}".strip(), b.num_bytes) for b in step.largest_buffers],
        ops=_ops(step, p),
        cycles_s=step.cycles_s,
        versions=step.versions,
        flags=step.flags,
        note=step.target.note,
    )


def _ops(step: CompiledStep, p: Problem) -> tuple[OpPoint, ...]:
    """The ops that compute, longest first; those of one source and size are one point."""
    if step.program is None or step.status != "compiled":
        return ()
    op_s = step_prices(step, p).op_s
    joined: dict[tuple[str, float, float], OpPoint] = {}
    for op, runs in _computing(step.program):
        name = _tail(op.source) or op.name
        key = (name, op.flops, op.device_bytes)
        before = joined[key].runs if key in joined else 0.0
        joined[key] = OpPoint(
            name=name, kind=_kind(op), flops=op.flops or op.device_bytes, num_bytes=op.device_bytes, seconds=op_s(op),
            runs=before + runs,
        )  # fmt: skip
    return tuple(sorted(joined.values(), key=lambda point: -point.step_s)[:MOST_OPS])


def _computing(program: Program) -> Iterator[tuple[ScheduledOp, float]]:
    """Ops that are neither a loop nor a transfer, with their runs a step."""
    for op, runs, _ in program.runs():
        if not (op.body or op.collectives or op.host_bytes or op.waits_for) and op.device_bytes > 0:
            yield op, runs


def _kind(op: ScheduledOp) -> str:
    if op.is_kernel:
        return "attention kernel"
    return "with matmuls" if op.matmuls else "element-wise and copies"


def _tail(source: str) -> str:
    return "/".join(source.replace("\\'", "'").split("/")[-2:])[-_SOURCE_CHARS:]
