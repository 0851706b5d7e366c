"""The real training step through real compilers, in child processes."""

import dataclasses
import importlib.util
import math

import pytest

from jaxscale.aot.cache import Cache
from jaxscale.aot.compile import compile_step
from jaxscale.aot.request import CompileRequest
from jaxscale.aot.targets import MAX_EMULATED_DEVICES, target_of, unknown_topology
from jaxscale.catalog import load_cluster
from jaxscale.errors import CompileError
from jaxscale.types import Layout, ModelShape, Workload, parse_layout
from tests.aot.requests import SHAPE, cpu_cluster, request

NO_CACHE = Cache(max_bytes=0)
GIB = 2.0**30
needs_libtpu = pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")

TPU_SHAPE = ModelShape(
    name="tiny", num_layers=2, d_model=256, num_heads=2, num_kv_heads=2, head_dim=128, d_ff=512, vocab_size=512
)


def tpu_request(cluster: str, layout: str, shape: ModelShape = TPU_SHAPE, seq_len: int = 256) -> CompileRequest:
    chosen = parse_layout(layout)
    return CompileRequest(
        shape=shape,
        workload=Workload(seq_len=seq_len, global_batch_size=chosen.batch_shards),
        layout=chosen,
        cluster=load_cluster(cluster),
    )


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """A small step on 4 emulated devices, with the compiler's files left in a folder."""
    dump = tmp_path_factory.mktemp("dump")
    asked = request(fsdp=2, tensor=2, sequence_parallel=True, remat="none")
    return compile_step(dataclasses.replace(asked, dump_dir=str(dump)), cache=NO_CACHE), dump


def test_emulated_devices_compile_and_say_what_does_not_hold(emulated):
    step, _ = emulated
    assert step.status == "compiled"
    assert step.target.backend == "cpu"
    assert "temporaries" in step.target.note
    assert step.versions["jax"]
    assert step.total_s >= step.lower_s + step.compile_s
    assert step.peak_rss_bytes > 1e8


def test_arguments_are_the_sharded_state(emulated):
    """float32 weights and two moments, over four devices but for what is kept whole (norms), and an int32 batch."""
    from jaxscale.cost import count_parameters

    step, _ = emulated
    sharded = 12 * count_parameters(SHAPE).total / 4
    batch = 2 * 4 * 8 * 64 / 2
    assert step.memory is not None
    assert step.memory.arguments_bytes == pytest.approx(sharded + batch, rel=0.03)
    assert step.memory.aliased_bytes == pytest.approx(sharded, rel=0.03)


def test_flops_of_the_real_step(emulated):
    """Forward and twice that backward; attention's backward makes its scores again: 7 matmuls for 2 x 3."""
    step, _ = emulated
    tokens = 8 * 64 / 4  # of one device, were the heads not split; each is computed on half the heads
    d, f, kv, heads, vocab = 64, 128, 32, 64, 256
    linear = 2 * (2 * d * (heads + kv) + 3 * d * f) + d * vocab
    attention = 2 * 2 * 64 * heads
    assert step.flops == pytest.approx(tokens * (6 * linear + 2 * 3.5 * attention), rel=0.001)


def test_collectives_span_the_layouts_axes(emulated):
    step, _ = emulated
    kinds = {(c.kind, c.axes) for c in step.collectives if c.bytes_each > 100}
    assert {("all-gather", ("fsdp",)), ("reduce-scatter", ("fsdp",)), ("all-gather", ("tensor",))} <= kinds


def test_the_dump_holds_the_program_and_its_largest_buffers_are_named(emulated):
    step, dump = emulated
    assert (dump / "step.optimized_hlo.txt").read_text().startswith("HloModule")
    assert step.hlo_path == str(dump / "step.optimized_hlo.txt")
    sizes = [buffer.num_bytes for buffer in step.largest_buffers]
    assert sizes == sorted(sizes, reverse=True)
    assert any("state.master" in buffer.source for buffer in step.largest_buffers)


def test_an_estimate_carries_what_the_compiler_knows(emulated):
    step, _ = emulated
    estimate = step.to_estimate(model_flops=1e6, peak_flops_per_s=1e12)
    assert estimate.tier == "compiled"
    assert sum(estimate.memory_parts_bytes.values()) == pytest.approx(estimate.memory_bytes)
    assert estimate.comm_bytes == step.comm_bytes
    assert estimate.hardware_flops == step.flops
    assert estimate.fits
    assert math.isnan(estimate.step_time_s)  # only prices give a time


def test_an_unknown_flag_is_the_compilers_to_refuse():
    asked = dataclasses.replace(request(), flags=(("xla_no_such_flag", "true"),))
    with pytest.raises(CompileError, match="xla_no_such_flag"):
        compile_step(asked, cache=NO_CACHE)


def test_unknown_topologies_list_the_known():
    error = unknown_topology("v5e:3x3", "not divisible")
    assert "v5e:2x2, v5e:2x4" in str(error)
    assert "v5p:2x2x1" not in str(error)


def test_without_a_compiler_the_cpu_stands_in_and_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for cluster in ("v5p-64", "h100-sxm:64"):
        target = target_of(load_cluster(cluster))
        assert target.backend == "cpu"
        assert "is not installed" in target.note
    with pytest.raises(CompileError, match=str(MAX_EMULATED_DEVICES)):
        target_of(load_cluster("v5p-4096"))


def test_emulated_devices_are_bounded():
    with pytest.raises(CompileError, match="it has 1024"):
        compile_step(
            dataclasses.replace(
                request(),
                cluster=cpu_cluster(1024),
                layout=Layout(fsdp=1024),
                workload=Workload(seq_len=64, global_batch_size=1024),
            )
        )


@needs_libtpu
@pytest.mark.tpu_backend
def test_a_tpu_slice_compiles_without_a_tpu():
    step = compile_step(tpu_request("v5p:2x2x1", "fsdp=2,tensor=2,remat=full"), cache=NO_CACHE)
    assert step.status == "compiled"
    assert step.fits
    assert step.program is not None
    assert step.program.cycles > 0
    assert {axes for c in step.collectives for axes in c.axes} == {"fsdp", "tensor"}
    assert step.memory_limit_bytes == pytest.approx(95.73 * GIB, rel=0.001)


@needs_libtpu
@pytest.mark.tpu_backend
def test_out_of_memory_is_an_answer_with_the_largest_buffers_named():
    big = dataclasses.replace(TPU_SHAPE, num_layers=1, d_model=8192, vocab_size=262144)  # 52 GB of embedding and head
    step = compile_step(tpu_request("v5e:2x2", "data=4,zero=0,remat=full", big), cache=NO_CACHE)
    assert step.status == "out_of_memory"
    assert not step.fits
    assert step.peak_bytes > step.memory_limit_bytes == pytest.approx(15.75 * GIB)
    assert "exceeds available HBM" in step.message
    assert any("embedding" in buffer.source for buffer in step.largest_buffers)


@needs_libtpu
@pytest.mark.tpu_backend
@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["v4:2x2x1", "v5e:2x2", "v6e:2x2", "tpu7x:2x2x1", "2xv5p:2x2x1"])
def test_every_generation_compiles(cluster):
    devices = load_cluster(cluster).num_devices
    step = compile_step(tpu_request(cluster, f"data=2,fsdp={devices // 2},remat=full"), cache=NO_CACHE)
    assert step.status == "compiled"
    assert step.flops > 0
    assert {c.axes for c in step.collectives} >= {("fsdp",), ("data",)}
