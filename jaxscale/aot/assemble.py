"""A step's time from its compiled schedule: what runs, how often and what overlaps is read, only prices are given.

Ops of a computation run in the order of the schedule. A collective or a copy that was started goes on while later ops
compute, on a channel of its own for each group of mesh axes (and one to the host); what waits for it waits for the
rest. A loop's body counts its trips, nothing carried over from one to the next.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jaxscale.aot.hlo import CollectiveCall, Program, ScheduledOp

HOST = "host"
COMPUTE, LOOPS = "compute", "loops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Seconds of one op alone on the device, of one collective, and of a transfer to or from host memory."""

    op_s: Callable[[ScheduledOp], float]
    collective_s: Callable[[CollectiveCall], float]
    host_s: Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledTime:
    """Seconds of a step (or of one computation), and where they go: compute, exposed and other sum to `total_s`."""

    total_s: float
    compute_s: float
    exposed_s: Mapping[str, float]  # by group of axes, such as "fsdp" or "data+fsdp", and "host"
    communication_s: Mapping[str, float]  # exposed or hidden
    other_s: Mapping[str, float] = field(default_factory=dict)  # of no op in the schedule, such as stragglers

    @property
    def hidden_s(self) -> float:
        """Communication that compute hides."""
        return sum(self.communication_s.values()) - sum(self.exposed_s.values())

    @property
    def lower_s(self) -> float:
        """With all overlapped that could be: the longest of compute and each channel, rounding apart."""
        others = sum(self.other_s.values())
        return min(self.total_s, max(self.compute_s, *self.communication_s.values(), 0.0) + others)

    @property
    def upper_s(self) -> float:
        """With nothing overlapped, rounding apart."""
        others = sum(self.other_s.values())
        return max(self.total_s, self.compute_s + sum(self.communication_s.values()) + others)

    def beside(self, other_s: Mapping[str, float]) -> "AssembledTime":
        """The same with seconds that no op of the schedule takes."""
        return dataclasses.replace(self, total_s=self.total_s + sum(other_s.values()), other_s=other_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A stretch of the replayed step on one track: `compute`, `loops`, or a channel."""

    track: str
    name: str
    begin_s: float
    end_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A step drawn out in time: its slices, and when each op begins, as often as it is drawn."""

    slices: tuple[Slice, ...]
    begins: tuple[tuple[float, str], ...]  # (seconds, op)


def assemble(program: Program, prices: Prices) -> AssembledTime:
    """Run the schedule once through with these prices."""
    return _Replay(program, prices).computation(program.entry)


def replay(program: Program, prices: Prices, *, trips: int = 2) -> Replayed:
    """The step as slices of time; of each loop the first `trips` trips are drawn, the others are one slice."""
    recorder = _Recorder(program, prices, trips)
    recorder.computation(program.entry)
    return Replayed(slices=tuple(recorder.slices), begins=tuple(recorder.begins))


def channel_name(axes: tuple[str, ...]) -> str:
    """The channel of a group of mesh axes."""
    return "+".join(axes) or "self"


def _only_waits(op: ScheduledOp) -> bool:
    """Whether an op is the end of what another started; the bytes that it moves are the collective's own."""
    return bool(op.waits_for) and not op.flops


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
            self._loop(op, clock)
            return
        if op.waits_for:
            clock.wait(op.waits_for)
        transfers = [(channel_name(call.axes), self._prices.collective_s(call)) for call in op.collectives]
        if op.host_bytes:
            transfers.append((HOST, self._prices.host_s(op.host_bytes)))
        for channel, seconds in transfers:
            self._drawn(op, channel, *clock.transfer(op.name, channel, seconds))
        if op.starts:
            return
        if transfers:
            clock.wait(op.name)
        if not (op.collectives or _only_waits(op)):
            self._drawn(op, COMPUTE, *clock.compute(self._prices.op_s(op)))

    def _loop(self, op: ScheduledOp, clock: "_Clock") -> None:
        clock.add(self.computation(op.body), op.trips)

    def _drawn(self, op: ScheduledOp, track: str, begin_s: float, end_s: float) -> None:
        """Told of every stretch of time; a plain replay keeps none."""


class _Recorder(_Replay):
    """A replay that keeps the stretches of time, with a few trips of each loop in full."""

    def __init__(self, program: Program, prices: Prices, trips: int) -> None:
        super().__init__(program, prices)
        self._trips = trips
        self._offset_s = 0.0
        self.slices: list[Slice] = []
        self.begins: list[tuple[float, str]] = []

    def computation(self, name: str) -> AssembledTime:
        """Time of one run, drawn anew each time."""
        clock = _Clock()
        for op in self._program.schedules[name]:
            self._run(op, clock)
        return clock.read()

    def _run(self, op: ScheduledOp, clock: "_Clock") -> None:
        self.begins.append((self._offset_s + clock.now_s, op.name))
        super()._run(op, clock)

    def _loop(self, op: ScheduledOp, clock: "_Clock") -> None:
        whole = int(op.trips)
        drawn = min(whole, self._trips)
        inner = None
        for _ in range(drawn):
            inner = self._inside(op.body, clock)
        if inner is not None and whole > drawn:
            begin_s = self._offset_s + clock.now_s
            clock.add(inner, whole - drawn)
            end_s = self._offset_s + clock.now_s
            self.slices.append(
                Slice(track=LOOPS, name=f"{whole - drawn} more of {op.name}", begin_s=begin_s, end_s=end_s)
            )

    def _inside(self, body: str, clock: "_Clock") -> AssembledTime:
        outer_s = self._offset_s
        self._offset_s += clock.now_s
        inner = self.computation(body)
        self._offset_s = outer_s
        clock.add(inner, 1.0)
        return inner

    def _drawn(self, op: ScheduledOp, track: str, begin_s: float, end_s: float) -> None:
        if end_s > begin_s:
            at = self._offset_s
            self.slices.append(
                Slice(track=track, name=op.name, begin_s=at + begin_s, end_s=at + end_s, detail=op.source)
            )


class _Clock:
    """Time as ops run one after another beside transfers on their channels."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._compute = 0.0
        self._exposed: dict[str, float] = {}
        self._communication: dict[str, float] = {}
        self._free: dict[str, float] = {}  # when a channel has sent all that was started
        self._started: dict[str, list[tuple[str, float]]] = {}  # op -> (channel, when it ends)

    def compute(self, seconds: float) -> tuple[float, float]:
        """Run for some seconds; returns when it began and ended."""
        begin_s = self.now_s
        self.now_s += seconds
        self._compute += seconds
        return begin_s, self.now_s

    def transfer(self, op: str, channel: str, seconds: float) -> tuple[float, float]:
        """Start sending as soon as the channel is free; returns when it begins and ends."""
        begin = max(self.now_s, self._free.get(channel, 0.0))
        end = begin + seconds
        self._free[channel] = end
        self._started.setdefault(op, []).append((channel, end))
        self._communication[channel] = self._communication.get(channel, 0.0) + seconds
        return begin, end

    def wait(self, op: str) -> None:
        """Stand still until what an op started has arrived."""
        for channel, end in self._started.pop(op, []):
            if end > self.now_s:
                self._exposed[channel] = self._exposed.get(channel, 0.0) + end - self.now_s
                self.now_s = end

    def add(self, inner: AssembledTime, times: float) -> None:
        """Run a whole computation `times` times; it finds and leaves the channels free."""
        self.now_s += inner.total_s * times
        self._compute += inner.compute_s * times
        for mine, its in ((self._exposed, inner.exposed_s), (self._communication, inner.communication_s)):
            for channel, seconds in its.items():
                mine[channel] = mine.get(channel, 0.0) + seconds * times

    def read(self) -> AssembledTime:
        """The time so far, after waiting for all that is under way."""
        for op in list(self._started):
            self.wait(op)
        return AssembledTime(
            total_s=self.now_s,
            compute_s=self._compute,
            exposed_s=self._exposed,
            communication_s=self._communication,
        )
