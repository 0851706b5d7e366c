"""Times of schedules small enough to work out by hand, and laws for those that are not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.aot.assemble import COMPUTE, Prices, assemble, replay
from jaxscale.aot.hlo import CollectiveCall, MeshAxes, Program, ScheduledOp, read_program
from tests.aot import programs

MESH = MeshAxes(names=("fsdp", "tensor"), sizes=(2, 2))
PRICES = Prices(op_s=lambda op: op.flops, collective_s=lambda call: call.wire_bytes, host_s=lambda num_bytes: num_bytes)


def compute(seconds: float, **fields) -> ScheduledOp:
    return ScheduledOp(**({"name": "op", "opcode": "fusion", "source": "", "flops": seconds} | fields))


def gather(seconds: float, *, name: str = "ag", axes: tuple[str, ...] = ("fsdp",), starts: bool = False) -> ScheduledOp:
    call = CollectiveCall(
        name=name, kind="all-gather", axes=axes, group_size=2, payload_bytes=2 * seconds, wire_bytes=seconds, source=""
    )
    return ScheduledOp(name=name, opcode="all-gather", source="", collectives=(call,), starts=starts)


def done(start: str) -> ScheduledOp:
    return ScheduledOp(name=f"{start}-done", opcode="all-gather-done", source="", waits_for=start)


def time_of(*ops: ScheduledOp, **bodies: tuple[ScheduledOp, ...]):
    schedules = {"main": ops} | bodies
    return assemble(Program(entry="main", schedules=schedules, loops=(), mesh=MESH), PRICES)


def test_a_synchronous_collective_adds_up():
    time = time_of(compute(3.0), gather(2.0), compute(1.0))
    assert (time.total_s, time.compute_s, dict(time.exposed_s)) == (6.0, 4.0, {"fsdp": 2.0})


def test_what_is_started_hides_behind_compute_until_it_is_waited_for():
    time = time_of(gather(5.0, starts=True), compute(3.0), done("ag"), compute(1.0))
    assert (time.total_s, dict(time.exposed_s)) == (6.0, {"fsdp": 2.0})
    assert (time.lower_s, time.upper_s) == (5.0, 9.0)


def test_the_end_of_a_collective_is_no_compute_of_its_own():
    end = ScheduledOp(name="end", opcode="fusion", source="", waits_for="ag", device_bytes=7.0)
    priced = Prices(op_s=lambda op: op.flops + op.device_bytes, collective_s=PRICES.collective_s, host_s=PRICES.host_s)
    program = Program(
        entry="main", schedules={"main": (gather(2.0, starts=True), compute(3.0), end)}, loops=(), mesh=MESH
    )
    assert assemble(program, priced).total_s == 3.0


def test_seconds_of_no_op_lie_on_top():
    time = time_of(gather(5.0, starts=True), compute(3.0), done("ag")).beside({"overhead": 1.0, "stragglers": 0.5})
    assert (time.lower_s, time.total_s, time.upper_s) == (6.5, 6.5, 9.5)
    assert time.compute_s + sum(time.exposed_s.values()) + sum(time.other_s.values()) == time.total_s
    assert time.hidden_s == 3.0


def test_one_channel_is_a_queue_and_two_are_not():
    one = time_of(gather(4.0, starts=True), gather(4.0, name="b", starts=True), compute(5.0), done("ag"), done("b"))
    two = time_of(
        gather(4.0, starts=True),
        gather(4.0, name="b", axes=("tensor",), starts=True),
        compute(5.0),
        done("ag"),
        done("b"),
    )
    assert (one.total_s, two.total_s) == (8.0, 5.0)


def test_loops_count_their_trips():
    loop = ScheduledOp(name="while", opcode="while", source="", body="body", trips=3.0)
    body = (gather(2.0, starts=True), compute(1.0), done("ag"))
    time = time_of(compute(1.0), loop, body=body)
    assert (time.total_s, time.compute_s, dict(time.exposed_s)) == (7.0, 4.0, {"fsdp": 3.0})


def test_copies_to_the_host_have_their_own_channel():
    copy = ScheduledOp(name="out", opcode="copy-start", source="", host_bytes=4.0, starts=True)
    time = time_of(copy, compute(3.0), done("out"))
    assert dict(time.exposed_s) == {"host": 1.0}


OPS = st.one_of(
    st.floats(0, 10).map(compute),
    st.tuples(st.floats(0, 10), st.sampled_from([("fsdp",), ("tensor",)])).map(lambda p: gather(p[0], axes=p[1])),
)


@given(st.lists(OPS, max_size=8), st.integers(0, 8), st.floats(0, 10))
def test_time_lies_between_its_bounds_and_its_parts_sum_to_it(ops, position, seconds):
    ops.insert(min(position, len(ops)), gather(seconds, name="early", starts=True))
    time = time_of(*ops, done("early"))
    assert time.compute_s + sum(time.exposed_s.values()) == pytest.approx(time.total_s)
    assert time.lower_s - 1e-9 <= time.total_s <= time.upper_s + 1e-9


@pytest.mark.parametrize("name", ["layered_cpu", "layered_v5e", "layered_tpu7x", "layered_h100"])
def test_compiled_schedules_assemble(name):
    mesh = MeshAxes(names=programs.MESH_AXES, sizes=programs.MESH_SIZES)
    program = read_program((programs.GOLDENS / f"{name}.hlo").read_text(), mesh)
    prices = Prices(op_s=lambda op: op.flops / 1e12, collective_s=lambda c: c.wire_bytes / 1e9, host_s=lambda b: 0.0)
    time = assemble(program, prices)
    assert time.compute_s == pytest.approx(program.flops / 1e12)
    assert sum(time.communication_s.values()) == pytest.approx(sum(c.wire_bytes for c in program.collectives) / 1e9)
    assert time.lower_s <= time.total_s <= time.upper_s


@pytest.mark.parametrize("name", ["layered_v5e", "layered_h100"])
def test_a_replay_draws_the_time_that_is_assembled(name):
    mesh = MeshAxes(names=programs.MESH_AXES, sizes=programs.MESH_SIZES)
    program = read_program((programs.GOLDENS / f"{name}.hlo").read_text(), mesh)
    prices = Prices(op_s=lambda op: op.flops / 1e12, collective_s=lambda c: c.wire_bytes / 1e9, host_s=lambda b: 0.0)
    whole = replay(program, prices, trips=100).slices
    time = assemble(program, prices)
    assert max(s.end_s for s in whole) == pytest.approx(time.total_s)
    assert sum(s.end_s - s.begin_s for s in whole if s.track == COMPUTE) == pytest.approx(time.compute_s)
    for channel, seconds in time.communication_s.items():
        assert sum(s.end_s - s.begin_s for s in whole if s.track == channel) == pytest.approx(seconds)
    short = replay(program, prices, trips=1).slices
    assert len(short) < len(whole)
    assert max(s.end_s for s in short) == pytest.approx(time.total_s)


def test_slices_of_one_channel_never_overlap_and_late_trips_are_one_slice():
    loop = ScheduledOp(name="while", opcode="while", source="", body="body", trips=5.0)
    body = (gather(2.0, starts=True), gather(1.0, name="b", starts=True), compute(1.0), done("ag"), done("b"))
    program = Program(entry="main", schedules={"main": (loop,), "body": body}, loops=(), mesh=MESH)
    slices = replay(program, PRICES).slices
    sent = sorted((s.begin_s, s.end_s) for s in slices if s.track == "fsdp")
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(sent))
    assert max(s.end_s for s in slices) == pytest.approx(15.0)
    assert [s.name for s in slices if s.track == "loops"] == ["3 more of while"]
