"""A child process that reports what it does, line by line, and is killed when it goes silent.

The child writes one JSON object a line on an inherited pipe. What it reported before it died is kept, so that a step
that runs out of memory after ten others has ten times to show.
"""

import contextlib
import ctypes
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]

_PR_SET_PDEATHSIG = 1
_STDERR_LINES = 6
_STDERR_BYTES = 8192
_READ_BYTES = 65536
_EXIT_GRACE_S = 30.0  # to end by itself after its last report


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a child ended: `returncode` is None where the watchdog ended it; `last_words` are of its stderr."""

    returncode: int | None
    last_words: str

    @property
    def sentence(self) -> str:
        """The ending in words."""
        if self.returncode is None:
            how = "was stopped by the watchdog"
        elif self.returncode < 0:
            how = f"was killed by {signal.Signals(-self.returncode).name}"
        else:
            how = f"exited with code {self.returncode}"
        return f"the measuring process {how}" + (f": {self.last_words}" if self.last_words else "")


def run_child(
    module: str, request: Any, *, environment: Mapping[str, str], watchdog_s: float, timeout_s: float = math.inf
) -> Iterator[Event | Ending]:
    """Run `python -m module PIPE` with `request` as JSON on stdin; yield its events, and at last its `Ending`.

    It is killed, with what it started, when nothing was reported for `watchdog_s`, when it is not done after
    `timeout_s`, or when the caller stops listening.
    """
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(write_end)],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=os.environ | environment,
            pass_fds=(write_end,),
            start_new_session=True,  # a process group of its own, to be killed as one
        )
        os.close(write_end)
        try:
            late = yield from _events(read_end, watchdog_s, timeout_s)
            returncode = None if late else _wait(process)
        finally:
            os.close(read_end)
            _kill(process)
        yield Ending(returncode=returncode, last_words=_last_words(stderr))


def _events(pipe: int, watchdog_s: float, timeout_s: float) -> Iterator[Event]:
    """Yield events until the pipe closes; returns whether the watchdog or the timeout came first."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        heard = time.monotonic()
        end = heard + timeout_s
        while (patience_s := min(heard + watchdog_s, end) - time.monotonic()) > 0 and selector.select(patience_s):
            chunk = os.read(pipe, _READ_BYTES)
            if not chunk:
                return False
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)
                heard = time.monotonic()
    return True


def _wait(process: subprocess.Popen) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(_EXIT_GRACE_S)
    return None


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(stderr: Any) -> str:
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(stderr.tell() - _STDERR_BYTES, 0))
    lines = [line for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_STDERR_LINES:])


class Reporter:
    """The child's end of the pipe."""

    def __init__(self, pipe: int) -> None:
        self._file = os.fdopen(pipe, "w")

    def __call__(self, **event: Any) -> None:
        """Report one event, at once."""
        self._file.write(json.dumps(event) + "\n")
        self._file.flush()


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that started it dies, so that nothing is left behind.

    One that died before this call is noticed at the first report, which meets a broken pipe.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
