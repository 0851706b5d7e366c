"""A sweep: many measurements, those that the store has left out, shared with whoever sweeps on the same store."""

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from jaxscale.measure.step import child_environment
from jaxscale.measure.surroundings import look_around
from jaxscale.study.claims import Owner, claim, num_measured, renewing, save_claimed
from jaxscale.study.pool import Lost, Pool
from jaxscale.study.record import program_of, readable
from jaxscale.study.store import Store
from jaxscale.types.measurement import Measurement, MeasureRequest, Surroundings

POLL_S = 2.0  # between looks at what others have in hand
MAX_LOSSES = 2  # of workers at one request, after which it counts as a crash

Source = Literal["here", "store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement to make: what to run, and the digest by which the store knows the program."""

    request: MeasureRequest
    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One job that is done: measured here, or found in the store."""

    index: int  # of the job
    source: Source
    measurement: Measurement | None  # None where the store's record of it cannot be believed


def job_of(request: MeasureRequest) -> Job:
    """A request as a job of this machine's code, versions and flags."""
    here = _surroundings(request.emulated)
    program = program_of(request, here.versions, here.source_digest, here.flags)
    return Job(request=request, program=program)


@lru_cache(maxsize=2)
def _surroundings(emulated: bool) -> Surroundings:
    return look_around(child_environment(emulated=emulated))


def stored(store: Store, jobs: Sequence[Job], *, retry: bool = False) -> list[bool]:
    """Whether the store has each job already; with `retry`, hangs and crashes do not count."""
    with store.reading() as connection:
        return [num_measured(connection, job.program, retry=retry) > 0 for job in jobs]


def run_sweep(
    jobs: Sequence[Job],
    store: Store,
    pool: Pool,
    *,
    retry: bool = False,
    on_start: Callable[[int], None] = lambda index: None,
) -> Iterator[Outcome]:
    """Measure every job that the store lacks, and yield each once it is in the store.

    Jobs, each of another program, that are in the hands of another sweep on the same store are waited for. When the
    caller stops listening, nothing is left claimed; what was yielded is on the disk. Raises StoreError where a result
    cannot be saved.
    """
    sweep = _Sweep(jobs=jobs, store=store, pool=pool, owner=Owner(), retry=retry, on_start=on_start)
    with renewing(store, sweep.owner):
        yield from sweep.run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweep:
    jobs: Sequence[Job]
    store: Store
    pool: Pool
    owner: Owner
    retry: bool
    on_start: Callable[[int], None]
    losses: Counter[int] = field(default_factory=Counter)  # of workers, by job

    def run(self) -> Iterator[Outcome]:
        todo, taken = deque(range(len(self.jobs))), deque[int]()  # taken: by other sweeps
        asked_at = time.monotonic()
        while todo or taken or self.pool.busy:
            yield from self._hand_out(todo, taken)
            for index, result in self.pool.results(POLL_S):
                measurement = self._measurement(index, result)
                if measurement is None:
                    todo.appendleft(index)
                    continue
                save_claimed(self.store, measurement, self.jobs[index].program, self.owner)
                yield Outcome(index=index, source="here", measurement=measurement)
            if taken and not todo:
                time.sleep(0.0 if self.pool.busy else POLL_S)
                if time.monotonic() - asked_at >= POLL_S:
                    todo, taken, asked_at = taken, todo, time.monotonic()

    def _hand_out(self, todo: deque[int], taken: deque[int]) -> Iterator[Outcome]:
        """Give the pool work until it is full; what the store has is done."""
        while todo and self.pool.free:
            index = todo.popleft()
            answer = claim(self.store, self.jobs[index].program, self.owner, retry=self.retry)
            if answer == "yours":
                self.on_start(index)
                self.pool.submit(index, self.jobs[index].request)
            elif answer == "done":
                yield Outcome(index=index, source="store", measurement=self._kept(index))
            else:
                taken.append(index)

    def _kept(self, index: int) -> Measurement | None:
        """The newest record of a job that can be believed."""
        found, _ = readable(self.store.rows(program=self.jobs[index].program))
        return found[0] if found else None

    def _measurement(self, index: int, result: Measurement | Lost) -> Measurement | None:
        """What came out; None where the worker was lost and the job deserves another try."""
        if not isinstance(result, Lost):
            return result
        self.losses[index] += 1
        return _crash(self.jobs[index].request, result) if self.losses[index] >= MAX_LOSSES else None


def _crash(request: MeasureRequest, lost: Lost) -> Measurement:
    return Measurement(
        identifier=uuid.uuid4().hex,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        request=request,
        status="crash",
        message=f"{MAX_LOSSES} workers were lost at it; the last {lost.how}",
        surroundings=_surroundings(request.emulated),
    )
