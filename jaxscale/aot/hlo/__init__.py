"""Read optimized HLO text: FLOPs, bytes and collectives with loops run out, and the schedule they run in."""

from jaxscale.aot.hlo.collectives import CollectiveCall, ring_wire_bytes
from jaxscale.aot.hlo.flops import Matmul
from jaxscale.aot.hlo.groups import MeshAxes
from jaxscale.aot.hlo.loops import Loop
from jaxscale.aot.hlo.program import Program, ScheduledOp, read_program

__all__ = ["CollectiveCall", "Loop", "Matmul", "MeshAxes", "Program", "ScheduledOp", "read_program", "ring_wire_bytes"]
