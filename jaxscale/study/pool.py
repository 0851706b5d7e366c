"""Processes that measure one request after the other; the one that started them keeps what they bring."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Protocol

from jaxscale.errors import JaxscaleError
from jaxscale.measure.events import die_with_parent
from jaxscale.types.measurement import Measurement, MeasureRequest

Task = Callable[[MeasureRequest], Measurement]  # picklable: a function of a module, or a partial of one

_STOP_GRACE_S = 10.0  # to end its measuring process and itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """In place of a measurement: the worker that was at it is gone."""

    how: str


class Pool(Protocol):
    """Somewhere to measure: `free` requests can be handed in now; results come in the order in which they end."""

    @property
    def free(self) -> int:
        """How many more requests can be handed in."""

    @property
    def busy(self) -> int:
        """How many are being measured."""

    def submit(self, ticket: int, request: MeasureRequest) -> None:
        """Begin to measure a request; `ticket` comes back with its result."""

    def results(self, timeout_s: float) -> Sequence[tuple[int, Measurement | Lost]]:
        """What has ended, after waiting for at most `timeout_s`; an error of the task is raised."""


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    ticket: int | None = None  # of the request at hand


class Workers:
    """A pool of processes on this machine. A context: at its end they are stopped, with what they measure."""

    def __init__(self, count: int, task: Task) -> None:
        self._task = task
        self._count = count
        self._workers: list[_Worker] = []
        self._spawn = multiprocessing.get_context("spawn")

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_STOP_GRACE_S)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    @property
    def free(self) -> int:
        """How many more requests can be handed in."""
        return self._count - self.busy

    @property
    def busy(self) -> int:
        """How many are being measured."""
        return sum(worker.ticket is not None for worker in self._workers)

    def submit(self, ticket: int, request: MeasureRequest) -> None:
        """Begin to measure a request in an idle worker, or a new one."""
        worker = next((worker for worker in self._workers if worker.ticket is None), None) or self._start()
        worker.ticket = ticket
        with contextlib.suppress(OSError):  # of one that has died since; it is found by its sentinel
            worker.pipe.send(request)

    def results(self, timeout_s: float) -> list[tuple[int, Measurement | Lost]]:
        """What has ended; a worker that died in between is replaced with the next request."""
        at_work = [worker for worker in self._workers if worker.ticket is not None]
        if not at_work:
            return []
        ready = wait([worker.pipe for worker in at_work] + [worker.process.sentinel for worker in at_work], timeout_s)
        found: list[tuple[int, Measurement | Lost]] = []
        for worker in at_work:
            if worker.pipe in ready or worker.process.sentinel in ready:
                found.append((worker.ticket, self._result(worker)))  # type: ignore[arg-type]
                worker.ticket = None
        return found

    def _result(self, worker: _Worker) -> Measurement | Lost:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.process.join()
            worker.pipe.close()
            return Lost(how=_how(worker.process.exitcode))
        if isinstance(answer, JaxscaleError):
            raise answer
        return answer

    def _start(self) -> _Worker:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(target=_work, args=(theirs, self._task), daemon=False)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process=process, pipe=ours))
        return self._workers[-1]


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"exited with code {exitcode}"


def _work(pipe: Connection, task: Task) -> None:
    """Measure what comes through the pipe until it closes."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent says when to stop
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(EOFError, BrokenPipeError, SystemExit):
        while True:
            pipe.send(_answer(task, pipe.recv()))


def _answer(task: Task, request: MeasureRequest) -> Measurement | JaxscaleError:
    try:
        return task(request)
    except JaxscaleError as error:
        return error


def _leave(number: int, frame: Any) -> None:
    raise SystemExit  # so that the measuring process is ended on the way out
