"""A step's time from its compiled schedule: what runs, how often and what overlaps is read, only prices are given.

Ops of a computation run in the order of the schedule. A collective or a copy that was started goes on while later ops
compute, on a channel of its own for each group of mesh axes (and one to the host); what waits for it waits for the
rest. A loop's body counts its trips, nothing carried over from one to the next.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxscale.aot.hlo import CollectiveCall, Program, ScheduledOp

HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Seconds of one op alone on the device, of one collective, and of a transfer to or from host memory."""

    op_s: Callable[[ScheduledOp], float]
    collective_s: Callable[[CollectiveCall], float]
    host_s: Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledTime:
    """Seconds of a step (or of one computation), and where they go. `compute_s` and `exposed_s` sum to `total_s`."""

    total_s: float
    compute_s: float
    exposed_s: Mapping[str, float]  # by group of axes, such as "fsdp" or "data+fsdp", and "host"
    communication_s: Mapping[str, float]  # exposed or hidden

    @property
    def lower_s(self) -> float:
        """With all overlapped that could be: the longest of compute and each channel."""
        return max(self.compute_s, *self.communication_s.values(), 0.0)

    @property
    def upper_s(self) -> float:
        """With nothing overlapped."""
        return self.compute_s + sum(self.communication_s.values())


def assemble(program: Program, prices: Prices) -> AssembledTime:
    """Run the schedule once through with these prices."""
    return _Replay(program, prices).computation(program.entry)


def channel_name(axes: tuple[str, ...]) -> str:
    """The channel of a group of mesh axes."""
    return "+".join(axes) or "self"


class _Replay:
    """Replays computations, each once."""

    def __init__(self, program: Program, prices: Prices) -> None:
        self._program = program
        self._prices = prices
        self._done: dict[str, AssembledTime] = {}

    def computation(self, name: str) -> AssembledTime:
        """Time of one run of a computation."""
        if name not in self._done:
            clock = _Clock()
            for op in self._program.schedules[name]:
                self._run(op, clock)
            self._done[name] = clock.read()
        return self._done[name]

    def _run(self, op: ScheduledOp, clock: "_Clock") -> None:
        if op.body:
            clock.add(self.computation(op.body), op.trips)
            return
        if op.waits_for:
            clock.wait(op.waits_for)
        transfers = [(channel_name(call.axes), self._prices.collective_s(call)) for call in op.collectives]
        if op.host_bytes:
            transfers.append((HOST, self._prices.host_s(op.host_bytes)))
        for channel, seconds in transfers:
            clock.transfer(op.name, channel, seconds)
        if not op.starts:
            if transfers:
                clock.wait(op.name)
            if not op.collectives:
                clock.compute(self._prices.op_s(op))


class _Clock:
    """Time as ops run one after another beside transfers on their channels."""

    def __init__(self) -> None:
        self._now = 0.0
        self._compute = 0.0
        self._exposed: dict[str, float] = {}
        self._communication: dict[str, float] = {}
        self._free: dict[str, float] = {}  # when a channel has sent all that was started
        self._started: dict[str, list[tuple[str, float]]] = {}  # op -> (channel, when it ends)

    def compute(self, seconds: float) -> None:
        self._now += seconds
        self._compute += seconds

    def transfer(self, op: str, channel: str, seconds: float) -> None:
        end = max(self._now, self._free.get(channel, 0.0)) + seconds
        self._free[channel] = end
        self._started.setdefault(op, []).append((channel, end))
        self._communication[channel] = self._communication.get(channel, 0.0) + seconds

    def wait(self, op: str) -> None:
        for channel, end in self._started.pop(op, []):
            if end > self._now:
                self._exposed[channel] = self._exposed.get(channel, 0.0) + end - self._now
                self._now = end

    def add(self, inner: AssembledTime, times: float) -> None:
        """Run a whole computation `times` times; it finds and leaves the channels free."""
        self._now += inner.total_s * times
        self._compute += inner.compute_s * times
        for mine, its in ((self._exposed, inner.exposed_s), (self._communication, inner.communication_s)):
            for channel, seconds in its.items():
                mine[channel] = mine.get(channel, 0.0) + seconds * times

    def read(self) -> AssembledTime:
        for op in list(self._started):
            self.wait(op)
        return AssembledTime(
            total_s=self._now,
            compute_s=self._compute,
            exposed_s=self._exposed,
            communication_s=self._communication,
        )
