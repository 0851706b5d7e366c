"""Small programs whose FLOPs and collectives are known by hand, for the HLO reader's tests.

`python -m tests.aot.programs` compiles them for a CPU mesh and for TPU topologies and rewrites `goldens/`.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

from jaxscale.aot.targets.gpu import target_config
from jaxscale.catalog import load_chip

GOLDENS = Path(__file__).parent / "goldens"
MESH_AXES = ("data", "fsdp", "tensor")
MESH_SIZES = (2, 2, 2)
LAYERS, D_MODEL, D_FF, BATCH, SEQ = 4, 256, 1024, 8, 128


def layered_step(devices):
    """Lower a two-matmul layer stack under full remat: FSDP weights, split d_ff, and one of each other collective.

    A device holds BATCH/4 x SEQ tokens and half of d_ff. A step is LAYERS x 2 matmuls forward, as many recomputed but
    one (nothing asks for the last matmul's output), and twice as many backward: 7 matmul passes a layer.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(devices).reshape(MESH_SIZES), MESH_AXES, axis_types=(AxisType.Auto,) * 3)

    def layer(x, weights):
        up, down = weights
        with jax.named_scope("mlp"):
            up = jax.lax.all_gather(up.astype(jnp.bfloat16), "fsdp", axis=0, tiled=True)
            down = jax.lax.all_gather(down.astype(jnp.bfloat16), "fsdp", axis=1, tiled=True)
            return x + jax.lax.psum(jax.nn.relu(x @ up) @ down, "tensor"), None

    def loss(up, down, x):
        x, _ = jax.lax.scan(jax.checkpoint(layer), x, (up, down))
        x = jax.lax.ppermute(x, "data", [(0, 1), (1, 0)])
        x = jax.lax.all_to_all(x, "tensor", 1, 1, tiled=True)
        return jnp.mean(x.astype(jnp.float32) ** 2)

    def step(up, down, x):
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(up, down, x)
        with jax.named_scope("gradients"):
            gradients = jax.lax.psum(gradients, "data")
        return up - gradients[0], down - gradients[1], jax.lax.psum(value, ("data", "fsdp"))

    specs = (P(None, "fsdp", "tensor"), P(None, "tensor", "fsdp"), P(("data", "fsdp")))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(*specs[:2], P()), check_vma=False)
    shapes = ((LAYERS, D_MODEL, D_FF), (LAYERS, D_FF, D_MODEL), (BATCH, SEQ, D_MODEL))
    dtypes = (jnp.float32, jnp.float32, jnp.bfloat16)
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
        for shape, dtype, spec in zip(shapes, dtypes, specs, strict=True)
    ]
    return jax.jit(mapped, donate_argnums=(0, 1)).lower(*arguments)


def layered_flops() -> float:
    """Matmul FLOPs of one device in `layered_step`, by hand."""
    tokens = BATCH // 4 * SEQ
    return LAYERS * 7 * 2.0 * tokens * D_MODEL * (D_FF // 2)


KERNEL_FLOPS = 12345678


def kernel_step(devices):
    """Lower splash attention with its backward pass (calls of several lines) and a kernel with a cost estimate."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import pallas as pl
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(devices[:2]), ("data",))
    mask = splash_attention_mask.MultiHeadMask([splash_attention_mask.CausalMask((256, 256))] * 2)
    splash = splash_attention_kernel.make_splash_mha(mask, head_shards=1, q_seq_shards=1)

    def double(x):
        def kernel(source, target):
            target[...] = source[...] * 2

        estimate = pl.CostEstimate(flops=KERNEL_FLOPS, transcendentals=0, bytes_accessed=0)
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(kernel, out_shape=out, cost_estimate=estimate, name="double")(x)

    def step(q, k, v):
        def loss(q, k, v):
            return jax.vmap(splash)(q, k, v).astype(jnp.float32).sum()

        value, gradients = jax.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)
        return jax.lax.psum(value, "data"), double(gradients[0][0, 0]), gradients[1:]

    out_specs = (P(), P("data"), (P("data"), P("data")))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P("data"),) * 3, out_specs=out_specs, check_vma=False)
    argument = jax.ShapeDtypeStruct((2, 2, 256, 128), jnp.bfloat16, sharding=NamedSharding(mesh, P("data")))
    return jax.jit(mapped).lower(argument, argument, argument)


def compiled_text(lowered) -> str:
    """Optimized HLO; from the compiler's dump where jaxlib cannot read back what a newer TPU compiler made."""
    with tempfile.TemporaryDirectory() as dump:
        compiled = lowered.compile(compiler_options={"xla_dump_to": dump, "xla_dump_hlo_as_text": True})
        try:
            return compiled.as_text()
        except RuntimeError:
            return next(Path(dump).glob("*after_optimizations.txt")).read_text()


def _stripped(text: str) -> str:
    """The text without the tables of source files and frames, and without kernels' encoded bodies."""
    text = re.sub(r"\nFileNames\n.*?\n\n(?=[%E])", "\n\n", text, flags=re.DOTALL)
    return re.sub(r'"body":"[A-Za-z0-9+/=]{200,}"', '"body":""', text)


def _write_goldens(target: str) -> None:
    import jax

    if target == "cpu":
        jax.config.update("jax_num_cpu_devices", 8)
        (GOLDENS / "layered_cpu.hlo").write_text(_stripped(layered_step(jax.devices()).compile().as_text()))
        return
    from jax.experimental import topologies

    if target.startswith("h100"):  # needs jax-cuda12-plugin and jax-cuda12-pjrt, no GPU
        config = target_config(load_chip(target))
        described = topologies.get_topology_desc("gpu", platform="cuda", target_config=config, topology="1x1x8")
        text = layered_step(described.devices).compile().as_text()
        (GOLDENS / "layered_h100.hlo").write_text(_stripped(text))
        return
    devices = topologies.get_topology_desc(topology_name=target, platform="tpu").devices
    name = target.partition(":")[0]
    (GOLDENS / f"layered_{name}.hlo").write_text(_stripped(compiled_text(layered_step(devices))))
    if name == "v5e":
        (GOLDENS / "kernel_v5e.hlo").write_text(_stripped(compiled_text(kernel_step(devices))))


if __name__ == "__main__":
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    for target in sys.argv[1:] or ("cpu", "v5e:2x4", "v5p:2x2x2", "tpu7x:2x2x1", "h100-sxm"):
        _write_goldens(target)
