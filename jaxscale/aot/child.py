"""One compile, in a process of its own: a request as JSON on stdin, a result as JSON in a file.

A compiler may crash, hang, or keep gigabytes; none of that should happen to the process that asks. Run as
`python -m jaxscale.aot.child RESULT_FILE`.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from jaxscale.aot.assignment import (
    Allocation,
    Ranges,
    assigned_memory,
    largest_buffers,
    live_levels,
    parse_assignment,
    parse_live_ranges,
    parse_points,
)
from jaxscale.aot.hlo import MeshAxes, read_program
from jaxscale.aot.hlo.kernels import attention_flops
from jaxscale.aot.hlo.text import parse_module
from jaxscale.aot.memory import memory_classes, out_of_memory_bytes
from jaxscale.aot.request import CompileRequest, versions
from jaxscale.aot.result import CompiledMemory, CompiledStep
from jaxscale.aot.targets.devices import describe_devices
from jaxscale.errors import JaxscaleError
from jaxscale.types.codec import decode, encode

_PR_SET_PDEATHSIG = 1
_KIB = 1024
_LAST_BEFORE_CODE = "after_buffer_assignment.txt"  # of the files that the TPU compiler writes
_POLL_S = 0.1
_OOM_MARKS = ("RESOURCE_EXHAUSTED", "CompileTimeHbmOom")


def main(arguments: list[str]) -> None:
    """Read a request, compile it, write the result."""
    _die_with_parent()
    started = time.monotonic()
    request: CompileRequest = decode(CompileRequest, json.load(sys.stdin))
    try:
        fields = _compile(request)
    except JaxscaleError as error:
        fields = {"status": "failed", "message": str(error)}
    except Exception as error:  # the end of a process: whatever went wrong is told to the one that asked
        words = str(error).strip().partition("\n" + "-" * 20)[0]  # without JAX's remark on its tracebacks
        fields = {"status": "failed", "message": f"{type(error).__name__}: {words}"}
    result = CompiledStep(
        layout=request.layout,
        model=request.shape.name,
        cluster=request.cluster.name,
        target=request.target,
        memory_limit_bytes=request.cluster.chip.usable_hbm_bytes / request.cluster.chip.devices_per_chip,
        clock_hz=request.cluster.chip.clock_hz,
        total_s=time.monotonic() - started,
        peak_rss_bytes=float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB),
        versions=versions(),
        flags=request.flags,
        **({"memory": None, "message": ""} | fields),
    )
    Path(arguments[0]).write_text(json.dumps(encode(result)))
    if request.target.backend == "tpu":
        os._exit(0)  # a compiler that was left at work ends with its process


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it dies, so that nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            sys.exit(1)


def _compile(request: CompileRequest) -> dict[str, Any]:
    """Lower and compile; returns the fields of the result that depend on it."""
    from jaxscale.runtime import build_step

    devices = describe_devices(request.target)
    started = time.monotonic()
    step = build_step(request.shape, request.workload, request.layout, devices, kernels=chosen_kernels(request))
    lowered = step.lower()
    lower_s = time.monotonic() - started
    mesh = MeshAxes(names=tuple(step.mesh.axis_names), sizes=tuple(step.mesh.devices.shape))
    with tempfile.TemporaryDirectory() as scratch:
        compiler = _Compiler(request=request, lowered=lowered, mesh=mesh, scratch=Path(scratch))
        return {"lower_s": lower_s} | compiler.run()


def chosen_kernels(request: CompileRequest) -> Any:
    """The workload's kernels with the attention that the target can compile; None where the runtime's choice can be."""
    if not request.target.attention:
        return None
    from jaxscale.zoo.kernels import execution_for

    precision = request.workload.precision
    chosen = execution_for(
        request.shape,
        request.target.backend,
        seq_len=request.workload.seq_len // request.layout.context,
        compute_bytes=precision.compute_bytes,
        matmul_format=precision.matmul,
        capacity_factor=request.workload.capacity_factor,
    )
    return dataclasses.replace(chosen, attention=request.target.attention)


class _Compiler:
    """Compiles one lowered program; keeps what its steps share."""

    def __init__(self, *, request: CompileRequest, lowered: Any, mesh: MeshAxes, scratch: Path) -> None:
        self.request = request
        self.target = request.target
        self.lowered = lowered
        self.mesh = mesh
        self.dump = Path(request.dump_dir) if request.dump_dir else scratch

    def run(self) -> dict[str, Any]:
        """Compile; out of memory is an answer."""
        started = time.monotonic()
        try:
            compiled = self._compiled()
        except RuntimeError as error:
            compile_s = time.monotonic() - started
            if not any(mark in str(error) for mark in _OOM_MARKS):
                return {"status": "failed", "message": str(error).strip(), "compile_s": compile_s}
            return {"compile_s": compile_s} | self._out_of_memory(str(error))
        compile_s = time.monotonic() - started
        text, path = self._text(compiled)
        allocations, ranges = self._assignment()
        assigned = assigned_memory(allocations, ranges) if compiled is None else None
        program = read_program(text, self.mesh, kernels=attention_flops)
        return {
            "status": "compiled",
            "memory": assigned or memory_classes(compiled.memory_analysis(), self.target),
            "largest_buffers": largest_buffers(allocations, parse_module(text), ranges),
            "program": program,
            "live_bytes": live_levels(allocations, ranges, self._points(), program.leaves),
            "compile_s": compile_s,
            "hlo_path": path,
        }

    def _compiled(self) -> Any:
        """The compiled program; None where the compiler was left before it made code, its files written."""
        if self.request.stops_early:
            return self._until_assigned(self._options())
        return self.lowered.compile(compiler_options=self._options())

    def _until_assigned(self, options: dict[str, Any]) -> Any:
        """Compile until memory is assigned: what the compiler writes next is code, which takes most of its time."""
        work = ThreadPoolExecutor(1).submit(self.lowered.compile, compiler_options=options)
        before = self._dumped(_LAST_BEFORE_CODE)
        while not work.done():
            if self._dumped(_LAST_BEFORE_CODE) != before:
                return None
            wait((work,), timeout=_POLL_S)
        return work.result()

    def _options(self, **more: str) -> dict[str, Any]:
        """The caller's flags, and an order to leave the compiler's own files: they name its buffers."""
        options: dict[str, Any] = dict(self.request.flags) | more
        if self.target.backend != "tpu":
            options = {name: _typed(value) for name, value in options.items()}
        return options | {"xla_dump_to": str(self.dump), "xla_dump_hlo_as_text": True}

    def _text(self, compiled: Any) -> tuple[str, str]:
        """The optimized program, and where it was left if that was asked for.

        A TPU program is taken from the compiler's files: an older jaxlib cannot read all that a newer libtpu makes.
        """
        text = self._dumped_program() if self.target.backend == "tpu" else compiled.as_text()
        if not self.request.dump_dir:
            return text, ""
        path = self.dump / "step.optimized_hlo.txt"
        path.write_text(text)
        return text, str(path)

    def _out_of_memory(self, message: str) -> dict[str, Any]:
        """What takes the memory: on TPUs from a second compile, which goes on to its assignment all the same."""
        fields: dict[str, Any] = {"status": "out_of_memory", "message": message.strip().splitlines()[0]}
        if totals := out_of_memory_bytes(message):
            fields["memory"] = CompiledMemory(
                arguments_bytes=0.0, outputs_bytes=0.0, temporaries_bytes=totals[0], code_bytes=0.0,
                aliased_bytes=0.0, host_bytes=0.0, peak_bytes=totals[0],
            )  # fmt: skip
        if self.target.backend != "tpu":
            return fields
        with contextlib.suppress(RuntimeError):  # some versions stop there by themselves, and call it a failure
            self._until_assigned(self._options(xla_tpu_no_crash_on_oom="true"))
        text, (allocations, ranges) = self._dumped_program(), self._assignment()
        if not text or not allocations:
            return fields
        return fields | {
            "memory": assigned_memory(allocations, ranges),
            "program": read_program(text, self.mesh, kernels=attention_flops),
            "largest_buffers": largest_buffers(allocations, parse_module(text), ranges),
        }

    def _assignment(self) -> tuple[tuple[Allocation, ...], Ranges]:
        files = self._dumped("buffer-assignment.txt"), self._dumped("live-range.txt")
        return parse_assignment(files[0]), parse_live_ranges(files[1])

    def _points(self) -> dict[str, int]:
        return parse_points(self._dumped("live-range.txt"))

    def _dumped_program(self) -> str:
        """After code generation, where the compiler came so far: then with its cycle estimates."""
        return self._dumped("after_codegen.txt") or self._dumped("after_optimizations.txt")

    def _dumped(self, ending: str) -> str:
        """The newest dumped file of a kind; empty where there is none."""
        files = sorted(self.dump.glob(f"*{ending}"), key=lambda path: path.stat().st_mtime)
        return files[-1].read_text() if files else ""


def _typed(value: str) -> Any:
    """A flag's text as the Python value that CPU and GPU options want."""
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    return int(value) if value.lstrip("-").isdigit() else value


if __name__ == "__main__":
    main(sys.argv[1:])
