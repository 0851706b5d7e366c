"""Compile one training step ahead of time, in a child process that may die, hang or grow without harm to this one."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from jaxscale.aot.cache import Cache
from jaxscale.aot.machine import available_memory_bytes
from jaxscale.aot.request import CompileRequest, versions
from jaxscale.aot.result import CompiledStep
from jaxscale.errors import CompileError, LayoutError, SpecError
from jaxscale.types.codec import decode, encode
from jaxscale.types.legality import check_layout
from jaxscale.units import format_bytes

DEFAULT_TIMEOUT_S = 900.0
LEAST_FREE_BYTES = 0.75 * 2**30  # below this a compile is killed by the system, or kills something else
CHILD_MODULE = "jaxscale.aot.child"
_STDERR_LINES = 6


def compile_step(
    request: CompileRequest, *, timeout_s: float = DEFAULT_TIMEOUT_S, cache: Cache | None = None
) -> CompiledStep:
    """Compile a layout's step and read the program; a kept answer is returned where there is one.

    Answers are kept in `cache`, the user's own unless another is given (`Cache(max_bytes=0)` keeps nothing). Out of
    memory is an answer (`status="out_of_memory"`). Raises CompileError where there is none: the compiler
    refused the program, died, or took longer than `timeout_s`.
    """
    check_layout(request.shape, request.workload, request.layout, request.cluster.num_devices)
    result = try_compile(request, timeout_s=timeout_s, cache=cache)
    if result.status == "failed":
        raise CompileError(result.message)
    return result


def try_compile(
    request: CompileRequest,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    cache: Cache | None = None,
    canceller: "Canceller | None" = None,
) -> CompiledStep:
    """As `compile_step`, but a failure is an answer too (`status="failed"`): one bad layout stops no search."""
    try:
        check_layout(request.shape, request.workload, request.layout, request.cluster.num_devices)
    except LayoutError as error:
        return failed(request, str(error))
    key = request.key()
    cache = Cache() if cache is None else cache
    whole = dataclasses.replace(request, quick=False).key()  # answers a quick request too
    kept = None if request.dump_dir else cache.get(key) or cache.get(whole)
    if kept is not None:
        return decode(CompiledStep, kept | {"cached": True, "hlo_path": ""})
    if (free := available_memory_bytes()) < LEAST_FREE_BYTES:
        return failed(request, f"{format_bytes(free)} of memory are free; a compile needs up to 3 GiB")
    with Child(request) as child, (canceller or Canceller()).watching(child):
        result = child.wait(timeout_s)
    if result.status != "failed":
        cache.put(key, encode(result))
    return result


class Canceller:
    """Kills the compiling processes it watches when told to; one that comes later is killed at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self._cancelled = False

    @contextlib.contextmanager
    def watching(self, child: "Child") -> Iterator[None]:
        """Watch a child for the length of a `with` block."""
        with self._lock:
            self._children.add(child)
            if self._cancelled:
                child.kill()
        try:
            yield
        finally:
            with self._lock:
                self._children.discard(child)

    def cancel(self) -> None:
        """Kill all, now and later."""
        with self._lock:
            self._cancelled = True
            for child in self._children:
                child.kill()


class Child:
    """A compiling process; leaving the `with` block kills it and what it started."""

    def __init__(self, request: CompileRequest) -> None:
        self._request = request
        self._folder = tempfile.TemporaryDirectory(prefix="jaxscale-compile-")
        folder = Path(self._folder.name)
        self._result, self._stderr = folder / "result.json", folder / "stderr"
        source = folder / "request.json"
        source.write_text(json.dumps(encode(request)))
        with source.open() as stdin, self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", CHILD_MODULE, str(self._result)],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | request.target.environment,
                start_new_session=True,  # a process group of its own, to be killed as one
            )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    def kill(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, timeout_s: float) -> CompiledStep:
        """Return the result; a process that hangs or dies makes one that says so."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._failed(f"no result within {timeout_s:.0f} s; the compiler was stopped (see --timeout)")
        if code == 0 and self._result.exists():
            return self._read()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return self._failed(f"the compiling process {how}{self._last_words()}")

    def _read(self) -> CompiledStep:
        try:
            return decode(CompiledStep, json.loads(self._result.read_text()))
        except (ValueError, TypeError, SpecError) as error:
            return self._failed(f"the result cannot be read: {error}")

    def _last_words(self) -> str:
        lines = [line for line in self._stderr.read_text(errors="replace").splitlines() if line.strip()]
        return ": " + " | ".join(lines[-_STDERR_LINES:]) if lines else ", perhaps for want of memory"

    def _failed(self, message: str) -> CompiledStep:
        r = self._request
        return failed(r, f"compiling {r.shape.name} as {r.layout} for {r.cluster.name}: {message}")


def failed(request: CompileRequest, message: str) -> CompiledStep:
    """The answer to a request that has none."""
    return CompiledStep(
        status="failed",
        message=message,
        layout=request.layout,
        model=request.shape.name,
        cluster=request.cluster.name,
        target=request.target,
        memory=None,
        memory_limit_bytes=request.cluster.chip.usable_hbm_bytes / request.cluster.chip.devices_per_chip,
        versions=versions(),
        flags=request.flags,
    )
