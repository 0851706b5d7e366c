import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.aot.hlo.collectives import read_collective
from jaxscale.aot.hlo.groups import MeshAxes, group_axes, permute_pairs, replica_groups
from jaxscale.aot.hlo.shapes import parse_type
from jaxscale.aot.hlo.text import parse_module
from jaxscale.errors import CompileError

MESH = MeshAxes(names=("data", "fsdp", "tensor"), sizes=(2, 3, 4))


def test_types_of_tuples_are_flattened_with_memory_space():
    arrays = parse_type("(bf16[4,128]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/(f32[], s4[3]{0:S(5)}), pred[2]{0})")
    assert [(a.dtype, a.dims, a.memory_space) for a in arrays] == [
        ("bf16", (4, 128), 1),
        ("f32", (), 0),
        ("s4", (3,), 5),
        ("pred", (2,), 0),
    ]
    assert [a.num_bytes for a in arrays] == [1024, 4, 2, 2]


def test_bounded_dynamic_dims_count_as_their_bound():
    assert parse_type("f32[<=8,4]{1,0}")[0].dims == (8, 4)


@pytest.mark.parametrize(
    "text",
    [
        "replica_groups={{0,4,8},{1,5,9},{2,6,10},{3,7,11},{12,16,20},{13,17,21},{14,18,22},{15,19,23}}",
        "replica_groups=[8,3]<=[2,3,4]T(0,2,1)",
        'replica_groups=@mesh<"data"=2,"fsdp"=3,"tensor"=4> {"fsdp"}',
        'replica_groups=@mesh<"data"=2,"rest"=12> {"rest":(1)3}',
    ],
)
def test_every_printed_form_of_groups_reads_alike(text):
    groups = replica_groups(text, MESH.num_devices)
    assert sorted(groups)[:2] == [(0, 4, 8), (1, 5, 9)]
    assert group_axes(groups, MESH) == ("fsdp",)


def test_groups_over_two_parts_of_one_axis():
    groups = replica_groups('replica_groups=@mesh<"a"=8> {"a":(1)2,"a":(4)2}', 8)
    assert sorted(groups) == [(0, 1, 4, 5), (2, 3, 6, 7)]


def test_no_groups_means_all_devices():
    assert replica_groups("replica_groups={}", 4) == ((0, 1, 2, 3),)
    assert group_axes(replica_groups("channel_id=1", 24), MESH) == MESH.names


def test_permute_pairs_span_the_axis_they_step_along():
    pairs = permute_pairs("source_target_pairs={{0,12},{12,0},{1,13},{13,1}}")
    assert group_axes(pairs, MESH) == ("data",)


@given(st.permutations(range(3)), st.integers(1, 2))
def test_iota_groups_are_the_slices_of_the_transposed_mesh(order, grouped):
    """Groups over the last axes of a transposed mesh span exactly those axes."""
    sizes = [MESH.sizes[i] for i in order]
    size = 1
    for value in sizes[-grouped:]:
        size *= value
    text = f"replica_groups=[{24 // size},{size}]<=[2,3,4]T({','.join(map(str, order))})"
    groups = replica_groups(text, 24)
    assert sorted(device for group in groups for device in group) == list(range(24))
    assert set(group_axes(groups, MESH)) == {MESH.names[i] for i in order[-grouped:]}


MODULE = """HloModule tiny, is_scheduled=true, num_partitions=4

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(8,128)} parameter(0)
  %kernel = (f32[8]{0}, s32[]) custom-call(%p), custom_call_target="tpu_custom_call", frontend_attributes={metadata={
"note":"{\\"a\\": 1} = (x)"
}}, metadata={op_name="jit(f)/kernel"}
  ROOT %out = f32[8]{0} get-tuple-element(%kernel), index=0
}
"""


def test_an_instruction_may_span_lines():
    entry = parse_module(MODULE).entry
    assert [i.opcode for i in entry.instructions] == ["parameter", "custom-call", "get-tuple-element"]
    kernel = entry.by_name["kernel"]
    assert kernel.custom_call_target == "tpu_custom_call"
    assert kernel.source == "jit(f)/kernel"
    assert kernel.operands == ("p",)
    assert entry.root.name == "out"


@pytest.mark.parametrize(
    ("text", "says"), [("", "HloModule"), ("HloModule cut\n\n%f (a: f32[]) -> f32[] {\n", "ENTRY")]
)
def test_text_that_is_no_program_is_refused(text, says):
    with pytest.raises(CompileError, match=says):
        parse_module(text)


@pytest.mark.parametrize(
    ("permute", "sent_bytes"),
    [
        ("bf16[8]{0} collective-permute(%x)", 16),
        ("(bf16[8]{0}, f32[8]{0}) collective-permute(%x, %y)", 16 + 32),
        ("(bf16[8]{0}, bf16[8]{0}, u32[], u32[]) collective-permute-start(%x)", 16),
        ("((bf16[8]{0}, f32[8]{0}), (bf16[8]{0}, f32[8]{0})) collective-permute-start(%x, %y)", 16 + 32),
        ("(bf16[8]{0}, bf16[8]{0}) collective-permute-start(%x, %y, %i, %i)", 16),  # into a buffer, from an offset
    ],
)
def test_a_permute_sends_what_it_is_given_and_no_buffers(permute: str, sent_bytes: int):
    text = f"""HloModule m, is_scheduled=true

ENTRY %main (x: bf16[8], y: f32[8], i: s32[]) -> bf16[8] {{
  %x = bf16[8]{{0}} parameter(0)
  %y = f32[8]{{0}} parameter(1)
  %i = s32[] parameter(2)
  ROOT %p = {permute}, channel_id=1, source_target_pairs={{{{0,12}},{{12,0}}}}
}}
"""
    main = parse_module(text).entry
    assert read_collective(main.root, main, MESH).payload_bytes == sent_bytes
