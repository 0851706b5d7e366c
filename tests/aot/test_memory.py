import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.aot.assignment import (
    Allocation,
    Value,
    assigned_memory,
    covered_bytes,
    largest_buffers,
    live_at_peak,
    live_levels,
    parse_assignment,
    parse_live_ranges,
    parse_points,
)
from jaxscale.aot.hlo.text import parse_module
from jaxscale.aot.memory import out_of_memory_bytes
from jaxscale.aot.result import CompiledMemory

GIB = 2.0**30
REFUSAL = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (20.13G) exceeds available HBM (15.75G). HLO module: jit_f."
)
ASSIGNMENT = """BufferAssignment:
allocation 1: size 512, page 0, thread-local:
 value: <5 sum @0> (size=512,offset=0): f32[]{:T(128)}
allocation 2: size 14407680000, page 0, parameter 0, shape |f32[60000,60000]| at ShapeIndex {}:
 value: <27 param @0> (size=14407680000,offset=0): f32[60000,60000]{1,0:T(8,128)}
allocation 3: size 900, color 1, page 0, preallocated-temp:
 value: <40 vmem @0> (size=900,offset=0): f32[225]{0}
allocation 9: size 7203865088, page 0, preallocated-temp:
 value: <28 fusion.1{} @0> (size=512,offset=7203864576): (f32[]{:T(128)}, bf16[60000,60000]{1,0:T(8,128)(2,1)})
 value: <30 fusion.1{1} @0> (size=7203840000,offset=0): bf16[60000,60000]{1,0:T(8,128)(2,1)}
 value: <31 fusion @0> (size=512,offset=0): f32[]{:T(128)}
"""
PROGRAM = """HloModule jit_f

ENTRY %main (param: f32[60000,60000]) -> f32[] {
  %param = f32[60000,60000]{1,0} parameter(0)
  %fusion.1 = (f32[], bf16[60000,60000]{1,0}) custom-call(%param), custom_call_target="x", metadata={op_name="jit(f)/mlp/dot_general"}
  ROOT %fusion = f32[] get-tuple-element(%fusion.1), index=0
}
"""  # noqa: E501


def test_the_compilers_refusal_gives_need_and_limit():
    assert out_of_memory_bytes(REFUSAL) == pytest.approx((20.13 * GIB, 15.75 * GIB))
    assert out_of_memory_bytes("something else") is None


def test_largest_buffers_are_named_by_op():
    """On-chip and thread-local values are left out, and of values in one place the largest counts."""
    buffers = largest_buffers(parse_assignment(ASSIGNMENT), parse_module(PROGRAM))
    assert [(b.name, b.num_bytes, b.source) for b in buffers] == [
        ("param", 14407680000.0, ""),
        ("fusion.1", 7203840000.0, "jit(f)/mlp/dot_general"),
        ("fusion.1", 512.0, "jit(f)/mlp/dot_general"),
    ]


STEP = """BufferAssignment:
allocation 0: size 64, page 0, parameter 0, shape |f32[16]| at ShapeIndex {}, maybe-live-out:
 value: <1 state @0> (size=64,offset=0): f32[16]{0}
allocation 1: size 8, page 0, parameter 1, shape |s32[2]| at ShapeIndex {}:
 value: <2 batch @0> (size=8,offset=0): s32[2]{0}
allocation 2: size 4, page 0, maybe-live-out:
 value: <3 loss @0> (size=4,offset=0): f32[]
allocation 3: size 90, color 5, page 0, preallocated-temp:
 value: <4 kept_on_host @5> (size=90,offset=0): f32[22]{0:S(5)}
allocation 4: size 100, page 0, preallocated-temp:
 value: <5 while.1{2} (phi) @0> (size=40,offset=0): bf16[20]{0}
 value: <6 update @0> (size=40,offset=0): bf16[20]{0}
 value: <7 logits @0> (size=30,offset=40): bf16[15]{0}
 value: <8 gradient @0> (size=20,offset=80): bf16[10]{0}
"""
RANGES = """HloLiveRange (max 9):
  InstructionSequence:
    0:state
    2:body.add
    3:logits.fusion
    7:backward
    9:tuple
  BufferLiveRange:
    while.1{2}:1-8
    update{}:2-3
    logits{}:3-5
    gradient{}:6-8
  Live ranges at 3 (peak):
    logits{}: 30 bytes (cumulative: 30 bytes)
"""


def test_memory_is_known_before_there_is_code():
    """Values in one place count once, and those that are never alive together do not add up."""
    allocations, ranges = parse_assignment(STEP), parse_live_ranges(RANGES)
    memory = assigned_memory(allocations, ranges)
    assert (memory.arguments_bytes, memory.outputs_bytes, memory.aliased_bytes) == (72.0, 4.0, 64.0)
    assert (memory.temporaries_bytes, memory.host_bytes) == (100.0, 90.0)
    assert memory.peak_bytes == 72.0 + 4.0 + 40.0 + 30.0
    assert {v.name for v in live_at_peak(allocations, ranges)} == {"while.1", "update", "logits"}


def test_largest_buffers_are_those_of_the_peak():
    names = [b.name for b in largest_buffers(parse_assignment(STEP), None, parse_live_ranges(RANGES))]
    assert names == ["state", "while.1", "logits", "batch", "loss"]


def test_an_op_holds_the_most_until_the_next_one_begins():
    """Before the first op counts to it; what lives between two ops counts to the earlier."""
    allocations, ranges, points = parse_assignment(STEP), parse_live_ranges(RANGES), parse_points(RANGES)
    assert points == {"state": 0, "body.add": 2, "logits.fusion": 3, "backward": 7, "tuple": 9}
    levels = live_levels(allocations, ranges, points, ("body.add", "logits.fusion", "backward", "absent"))
    assert levels == {"body.add": 40.0, "logits.fusion": 70.0, "backward": 60.0}
    assert live_levels(allocations, {}, points, points) == {}


places = st.tuples(st.integers(0, 50), st.integers(1, 20), st.integers(0, 15), st.integers(0, 8))


@given(st.lists(places, min_size=1, max_size=12), st.sets(st.integers(0, 20), min_size=1))
def test_the_highest_level_is_the_peak(drawn, points):
    values = tuple(
        Value(name=f"v{i}", index="", num_bytes=size, offset=at, type_text="")
        for i, (at, size, _, _) in enumerate(drawn)
    )
    ranges = {v.key: (begin, begin + length) for v, (_, _, begin, length) in zip(values, drawn, strict=True)}
    allocation = Allocation(
        num_bytes=99, color="", is_parameter=False, is_temporary=True, is_output=False, values=values
    )
    schedule = {f"op{point}": point for point in points}
    levels = live_levels((allocation,), ranges, schedule, schedule)
    assert max(levels.values()) == covered_bytes(live_at_peak((allocation,), ranges))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=12))
def test_covered_bytes_are_those_of_a_drawn_map(places):
    values = [Value(name="v", index="", num_bytes=size, offset=at, type_text="") for at, size in places]
    drawn = {byte for at, size in places for byte in range(at, at + size)}
    assert covered_bytes(values) == len(drawn)


@pytest.mark.parametrize("peak", [5.0, 12.0, 100.0])
def test_classes_sum_to_the_peak(peak):
    memory = CompiledMemory(
        arguments_bytes=8.0, outputs_bytes=2.0, temporaries_bytes=4.0, code_bytes=1.0, aliased_bytes=8.0,
        host_bytes=0.0, peak_bytes=peak,
    )  # fmt: skip
    assert sum(memory.parts_bytes.values()) == pytest.approx(peak)
