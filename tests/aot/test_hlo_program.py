"""The reader against programs whose FLOPs and collectives are counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxscale.aot.hlo import MeshAxes, read_program
from jaxscale.aot.hlo.collectives import ring_wire_bytes, scope_name
from jaxscale.aot.hlo.kernels import attention_flops
from tests.aot import programs

MESH = MeshAxes(names=programs.MESH_AXES, sizes=programs.MESH_SIZES)
ONE_DEVICE = MeshAxes(names=("data",), sizes=(1,))
WEIGHT = programs.D_MODEL * programs.D_FF // 2  # elements of one gathered matrix on a device
ACTIVATION = programs.BATCH // 4 * programs.SEQ * programs.D_MODEL
L = programs.LAYERS


def golden(name: str):
    return read_program((programs.GOLDENS / f"{name}.hlo").read_text(), MESH)


def totals(program) -> dict:
    """(kind, axes, payload) -> count."""
    sums = {}
    for c in program.collectives:
        key = (c.kind, c.axes, c.bytes_each)
        sums[key] = sums.get(key, 0) + c.count
    return sums


def expected(weight_bytes: int, activation_bytes: int) -> dict:
    weight, activation = WEIGHT * weight_bytes, ACTIVATION * activation_bytes
    return {
        ("all-gather", ("fsdp",), weight): 4 * L,
        ("all-reduce", ("tensor",), activation): 2 * L,
        ("reduce-scatter", ("fsdp",), weight): 2 * L,
        ("all-reduce", ("data",), 4 * L * WEIGHT): 1,  # both gradients, each half of a matrix, in float32
        ("collective-permute", ("data",), activation): 2,
        ("all-to-all", ("tensor",), activation): 2,
        ("all-reduce", ("data", "fsdp"), 4): 1,
    }


def test_cpu_counts_by_hand():
    """The CPU compiler raises bfloat16 collectives to float32; everything else is as written."""
    program = golden("layered_cpu")
    assert totals(program) == expected(4, 4)
    assert program.flops == programs.layered_flops()


def test_the_same_program_compiled_here_reads_as_its_golden():
    program = read_program(programs.layered_step(jax.devices()).compile().as_text(), MESH)
    assert totals(program) == expected(4, 4)
    assert program.flops == programs.layered_flops()


def test_sparse_core_collectives_of_tpu7x():
    program = golden("layered_tpu7x")
    assert totals(program) == expected(2, 2)
    overlapped = {(c.kind, c.axes) for c in program.collectives if c.asynchronous}
    assert {("all-gather", ("fsdp",)), ("reduce-scatter", ("fsdp",))} <= overlapped


def test_work_begins_where_a_sparse_core_is_handed_its_operands():
    """tpu7x starts an asynchronous op before its operand is made; the update that brings it begins the transfer."""
    program = golden("layered_tpu7x")
    opcodes = {op.opcode for op, _, _ in program.runs() if op.collectives and op.starts}
    assert opcodes == {"async-update", "collective-permute-start"}
    began = {op.name for op, _, _ in program.runs() if op.starts and op.collectives}
    awaited = {op.waits_for for op, _, _ in program.runs() if op.waits_for}
    assert began <= awaited


@pytest.mark.parametrize("chip", ["v5e", "v5p"])
def test_tpu_turns_one_reduce_scatter_into_an_all_reduce(chip):
    """Scattering 256 columns over 2 leaves 128-lane rows split: the compiler sums and slices instead."""
    program = golden(f"layered_{chip}")
    want = expected(2, 2)
    want["reduce-scatter", ("fsdp",), WEIGHT * 2] = L
    want["all-reduce", ("fsdp",), WEIGHT * 2] = L
    assert totals(program) == want
    assert program.flops == programs.layered_flops()
    assert program.cycles > 0


def test_a_collective_spread_over_a_chain_of_fusions_counts_once_and_as_overlapped():
    gathers = {c.asynchronous: c.count for c in golden("layered_v5e").collectives if c.kind == "all-gather"}
    assert gathers == {False: 3 * L, True: L}


@pytest.mark.parametrize("name", ["layered_cpu", "layered_v5e", "layered_v5p", "layered_tpu7x"])
def test_loops_have_their_trip_counts(name):
    assert [found.trip_count for found in golden(name).loops] == [L, L]


@pytest.mark.parametrize("name", ["layered_cpu", "layered_v5e", "layered_v5p", "layered_tpu7x"])
def test_wire_bytes_follow_the_ring_formulas(name):
    sizes = {("data",): 2, ("fsdp",): 2, ("tensor",): 2, ("data", "fsdp"): 4}
    for c in golden(name).collectives:
        assert c.wire_bytes == c.count * ring_wire_bytes(c.kind, c.bytes_each, sizes[c.axes])


def test_kernels_over_several_lines_are_all_seen():
    text = (programs.GOLDENS / "kernel_v5e.hlo").read_text()
    mesh = MeshAxes(names=("data",), sizes=(2,))
    program = read_program(text, mesh)
    assert sorted(source.rpartition("/")[0].rpartition("/")[2] for source in program.uncounted_kernels) == [
        "splash_mha_dkv_no_residuals",
        "splash_mha_dq_no_residuals",
        "splash_mha_fwd_residuals",
    ]
    assert program.flops == programs.KERNEL_FLOPS
    given = read_program(text, mesh, kernels=lambda kernel, _: 1000.0 if "splash" in kernel.name else None)
    assert given.flops == programs.KERNEL_FLOPS + 3 * 1000
    assert not given.uncounted_kernels


def test_splash_attention_counts_nine_matmuls():
    """Two forward, four for dK and dV, three for dQ; one sequence of 256 tokens, 2 heads of 128, on each device."""
    text = (programs.GOLDENS / "kernel_v5e.hlo").read_text()
    program = read_program(text, MeshAxes(names=("data",), sizes=(2,)), kernels=attention_flops)
    assert program.flops == programs.KERNEL_FLOPS + 9 * 2 * 2 * 256 * 256 * 128
    assert not program.uncounted_kernels


@pytest.mark.parametrize(("target", "matmuls"), [("__cudnn$fmhaSoftmax", 2), ("__cudnn$fmhaSoftmaxBackward", 5)])
def test_cudnn_attention_counts_from_the_shape_of_its_scores(target, matmuls):
    config = '{"cudnn_fmha_backend_config":{"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["2","4","64","32"]}}}'  # noqa: E501
    text = f"""HloModule fmha

ENTRY %main (q: bf16[2,64,4,16]) -> bf16[2,64,4,16] {{
  %q = bf16[2,64,4,16] parameter(0)
  ROOT %call = bf16[2,64,4,16] custom-call(%q, %q, %q), custom_call_target="{target}", backend_config={config}
}}
"""
    program = read_program(text, ONE_DEVICE, kernels=attention_flops)
    assert program.flops == matmuls * 2 * (2 * 4 * 64 * 32) * 16


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (lambda a, b: a @ b, ((64, 32), (32, 48)), 2 * 64 * 32 * 48),
        (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), ((3, 64, 32), (3, 32, 48)), 3 * 2 * 64 * 32 * 48),
        (lambda a, b: jax.lax.map(lambda x: x @ b, a), ((5, 64, 32), (32, 48)), 5 * 2 * 64 * 32 * 48),
        (
            lambda a, b: jax.lax.fori_loop(0, 3, lambda i, x: jax.lax.fori_loop(0, 2, lambda j, y: y @ b, x), a),
            ((64, 32), (32, 32)),
            6 * 2 * 64 * 32 * 32,
        ),
        (
            lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a @ b @ b),
            ((64, 32), (32, 32)),
            2 * 2 * 64 * 32 * 32,  # the heavier branch
        ),
    ],
)
def test_matmul_flops_by_hand(function, shapes, flops):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    assert read_program(jax.jit(function).lower(*arguments).compile().as_text(), ONE_DEVICE).flops == flops


CONVOLUTION = """HloModule conv

ENTRY %main (a: {a}, b: {b}) -> {out} {{
  %a = {a} parameter(0)
  %b = {b} parameter(1)
  ROOT %c = {out} convolution(%a, %b), window={{{window}}}, dim_labels={labels}
}}
"""


@pytest.mark.parametrize(
    ("a", "b", "out", "window", "labels", "flops"),
    [
        # a weight gradient: contraction over a spatial dim of two sequences and the 128 rows of each
        ("f32[2,128,512]", "f32[2,128,256]", "f32[512,256,1]", "size=2", "0fb_0io->bf0", 2 * 2 * 128 * 512 * 256),
        # 3 taps over 8 positions with a zero at each end: 22 of 24 meet data
        ("f32[1,8,4]", "f32[3,4,5]", "f32[1,8,5]", "size=3 pad=1_1", "b0f_0io->b0f", 2 * 22 * 4 * 5),
        # a batched matmul: output position o of 6 meets only kernel position o
        (
            "f32[6,32,16]", "f32[6,16,8]", "f32[6,32,8]", "size=6 stride=5 pad=0_0 lhs_dilate=6", "0bf_0io->0bf",
            2 * 6 * 32 * 16 * 8,
        ),
    ],
)  # fmt: skip
def test_convolutions_count_only_positions_that_meet_data(a, b, out, window, labels, flops):
    text = CONVOLUTION.format(a=a, b=b, out=out, window=window, labels=labels)
    assert read_program(text, ONE_DEVICE).flops == pytest.approx(flops)


@pytest.mark.parametrize(
    ("a", "b", "out", "window", "labels", "matmul"),
    [
        # a projection to 28 heads of 128: the heads are the weight's, [4096, 3584] x [3584, 28 128]
        (
            "bf16[4096,3584,1]", "bf16[3584,28,128]", "bf16[4096,28,128]", "size=28 pad=27_27 rhs_reversal=1",
            "bf0_i0o->b0f", (4096, 3584, 28 * 128, 1),
        ),
        # and back: the heads are contracted
        ("bf16[4096,28,128]", "bf16[28,128,3584]", "bf16[4096,3584,1]", "size=28", "b0f_0io->bf0",
         (4096, 28 * 128, 3584, 1)),
        # scores of 4 key heads and a block of 512 queries of 7 heads each: a batch of 4
        (
            "bf16[8192,4,1,128]", "bf16[4,512,128,7]", "f32[4,8192,512,7]",
            "size=4x7 stride=3x1 pad=0_0x6_6 lhs_dilate=4x1 rhs_reversal=0x1", "b01f_0oi1->0bf1",
            (8192, 128, 7 * 512, 4),
        ),
    ],
)  # fmt: skip
def test_convolutions_are_matmuls_of_the_shape_that_their_operands_have(a, b, out, window, labels, matmul):
    text = CONVOLUTION.format(a=a, b=b, out=out, window=window, labels=labels)
    ((op, _, _),) = read_program(text, ONE_DEVICE).runs()
    assert [(m.m, m.k, m.n, m.groups) for m in op.matmuls] == [pytest.approx(matmul)]


def test_library_matmuls_are_counted_from_their_configuration():
    text = """HloModule gemm

ENTRY %main (a: bf16[64,32], b: bf16[32,48]) -> bf16[64,48] {
  %a = bf16[64,32] parameter(0)
  %b = bf16[32,48] parameter(1)
  %call = (bf16[64,48]{1,0}, s8[4096]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config=CONFIG
  ROOT %out = bf16[64,48]{1,0} get-tuple-element(%call), index=0
}
"""
    config = '{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}'
    assert read_program(text.replace("CONFIG", config), ONE_DEVICE).flops == 2 * 64 * 32 * 48


def test_slices_of_stacked_weights_are_charged_as_slices():
    """A scan reads each layer's weight once: traffic grows with the layers, not with their square."""

    def traffic(layers):
        def run(x, weights):
            return jax.lax.scan(lambda x, w: (jnp.tanh(x * w), None), x, weights)[0]

        arguments = (jax.ShapeDtypeStruct((4096,), jnp.float32), jax.ShapeDtypeStruct((layers, 4096), jnp.float32))
        return read_program(jax.jit(run).lower(*arguments).compile().as_text(), ONE_DEVICE).device_bytes

    assert traffic(64) < 2.2 * traffic(32)


def test_scope_names_leave_wrappers_out():
    assert (
        scope_name("jit(step)/shard_map/transpose(jvp(mlp))/while/body/closed_call/rematted_computation/psum") == "mlp"
    )
    assert scope_name("jit(step)/shard_map/psum") == ""


def test_gpu_program_moves_the_same_bytes_in_joined_and_peeled_collectives():
    """XLA on GPU joins both gathers of a layer into one call and peels one trip off the backward loop."""
    program = golden("layered_h100")
    assert program.flops == programs.layered_flops()
    moved, want = {}, {}
    for sums, counts in ((moved, totals(program)), (want, expected(2, 2))):
        for (kind, axes, payload), count in counts.items():
            sums[kind, axes] = sums.get((kind, axes), 0) + payload * count
    assert moved == want
