"""The compile tier: the real TPU, GPU and CPU compilers as oracle, on a machine without accelerators.

| what | where |
|---|---|
| `compile_step(CompileRequest(...))` -> `CompiledStep` | one step, in a child process, kept in a cache |
| `compile_layouts(requests)` -> (index, `CompiledStep`) as they finish | many, within the machine's memory and cores |
| `hlo.read_program(text, mesh)` -> `Program` | FLOPs, bytes, collectives by mesh axis, and the schedule |
| `assemble.assemble(program, prices)` -> `AssembledTime` | a step time from the compiled schedule |
| `agreement.compare(predicted, compiled)` -> `Agreement` | field by field |

No compiler is loaded here: only `child`, the program of the compiling process, imports jax.
"""

from jaxscale.aot.cache import Cache
from jaxscale.aot.compile import compile_step
from jaxscale.aot.pool import compile_layouts
from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import CompiledStep

__all__ = ["Cache", "CompileRequest", "CompiledStep", "compile_layouts", "compile_step"]
