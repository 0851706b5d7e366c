import pytest

from jaxscale.aot.hlo.text import parse_module
from jaxscale.aot.memory import largest_buffers, out_of_memory_bytes
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
    buffers = largest_buffers(ASSIGNMENT, parse_module(PROGRAM))
    assert [(b.name, b.num_bytes, b.source) for b in buffers] == [
        ("param", 14407680000.0, ""),
        ("fusion.1", 7203840000.0, "jit(f)/mlp/dot_general"),
        ("fusion.1", 512.0, "jit(f)/mlp/dot_general"),
    ]


@pytest.mark.parametrize("peak", [5.0, 12.0, 100.0])
def test_classes_sum_to_the_peak(peak):
    memory = CompiledMemory(
        arguments_bytes=8.0, outputs_bytes=2.0, temporaries_bytes=4.0, code_bytes=1.0, aliased_bytes=8.0,
        host_bytes=0.0, peak_bytes=peak,
    )  # fmt: skip
    assert sum(memory.parts_bytes.values()) == pytest.approx(peak)
