"""A sweep whose every measurement spans several hosts: the first host leads, the others do what it says.

Every host runs the same command. The leader takes jobs and keeps results as it would alone; each request goes to the
followers too, a line of JSON on a TCP connection, and every host runs it in a measuring process that joins the others
under `jax.distributed`. The leader listens one port above the coordinator's.
"""

import dataclasses
import json
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from jaxscale.errors import MeasurementError
from jaxscale.measure.hosts import Host
from jaxscale.study.pool import Lost, Task, Workers
from jaxscale.types.codec import decode, encode
from jaxscale.types.measurement import Measurement, MeasureRequest

GATHER_TIMEOUT_S = 600.0  # for all hosts to start
_RETRY_S = 1.0


class PodWorkers:
    """A pool of one place that spans all hosts; this process is on the leading one."""

    def __init__(self, host: Host, task: Task) -> None:
        self._host = host
        self._local = Workers(1, task)
        self._followers: list[TextIO] = []

    def __enter__(self) -> "PodWorkers":
        self._followers = _gather(_address(self._host), self._host.count - 1)
        self._local.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._local.__exit__(kind, error, trace)
        for follower in self._followers:
            follower.close()

    @property
    def free(self) -> int:
        """How many more requests can be handed in: one at a time has all hosts."""
        return self._local.free

    @property
    def busy(self) -> int:
        """How many are being measured."""
        return self._local.busy

    def submit(self, ticket: int, request: MeasureRequest) -> None:
        """Begin to measure a request on every host."""
        for follower in self._followers:
            _write(follower, encode(request))
        self._local.submit(ticket, request)

    def results(self, timeout_s: float) -> Sequence[tuple[int, Measurement | Lost]]:
        """What has ended on every host."""
        return [(ticket, self._together(result)) for ticket, result in self._local.results(timeout_s)]

    def _together(self, result: Measurement | Lost) -> Measurement | Lost:
        """The leader's result; where it failed because another host ran out of memory, that is what happened."""
        answers = [json.loads(_read(follower)) for follower in self._followers]
        if isinstance(result, Lost) or result.status in ("ok", "out_of_memory"):
            return result
        full = next((answer for answer in answers if answer["status"] == "out_of_memory"), None)
        return dataclasses.replace(result, **full) if full else result


def follow(host: Host, task: Task) -> int:
    """Do what the leader says until it hangs up; returns how many requests that were."""
    count = 0
    with _connect(_address(host)) as connection, connection.makefile("rw", encoding="utf-8") as leader:
        while line := leader.readline():
            result = task(decode(MeasureRequest, json.loads(line)))
            message = f"host {host.index}: {result.message}" if result.message else ""
            _write(leader, {"status": result.status, "message": message})
            count += 1
    return count


def _address(host: Host) -> tuple[str, int]:
    name, _, port = host.coordinator.rpartition(":")
    return name.strip("[]"), int(port) + 1


def _gather(address: tuple[str, int], count: int) -> list[TextIO]:
    """Wait until all followers have called."""
    end = time.monotonic() + GATHER_TIMEOUT_S
    followers: list[TextIO] = []
    with socket.create_server(("", address[1]), backlog=count) as server:
        while len(followers) < count:
            server.settimeout(max(end - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                raise MeasurementError(
                    f"{len(followers)} of {count} other hosts had called after {GATHER_TIMEOUT_S:g} s"
                ) from None
            connection.settimeout(None)
            with connection:  # the file keeps it open
                followers.append(connection.makefile("rw", encoding="utf-8"))
    return followers


def _connect(address: tuple[str, int]) -> socket.socket:
    end = time.monotonic() + GATHER_TIMEOUT_S
    while True:
        try:
            connection = socket.create_connection(address, timeout=GATHER_TIMEOUT_S)
        except OSError as error:
            if time.monotonic() > end:
                where = f"{address[0]}:{address[1]}"
                raise MeasurementError(f"the leading host does not answer at {where}: {error}") from error
            time.sleep(_RETRY_S)
        else:
            connection.settimeout(None)
            return connection


def _write(file: TextIO, value: object) -> None:
    try:
        file.write(json.dumps(value) + "\n")
        file.flush()
    except OSError as error:
        raise MeasurementError(f"another host of this sweep is gone: {error}") from error


def _read(file: TextIO) -> str:
    try:
        line = file.readline()
    except OSError as error:
        raise MeasurementError(f"another host of this sweep is gone: {error}") from error
    if not line:
        raise MeasurementError("another host of this sweep is gone: it hung up")
    return line
