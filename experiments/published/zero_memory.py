"""ZeRO's table of model states: bytes per device of a 7.5B model on 64 GPUs, and 1T on 1024 (arXiv 1910.02054, fig. 1).

    python experiments/published/zero_memory.py

fp16 parameters and gradients, and 12 bytes a parameter of optimizer state (float32 copy, two moments).
"""

import dataclasses

from compare import Line, show

from jaxscale.calibrate import Software, calibration_for
from jaxscale.catalog import load_cluster
from jaxscale.cost import count_parameters, estimate
from jaxscale.types import Layout, ModelShape, Workload, precision_named

FIGURES = (("none", 64, 7.5e9, 120.0), ("optimizer", 64, 7.5e9, 31.4), ("+ gradients", 64, 7.5e9, 16.6),
           ("+ parameters", 64, 7.5e9, 1.88), ("+ parameters", 1024, 1e12, 15.6))  # fmt: skip
SHARDS = {
    "none": ("none", "none", "none"), "optimizer": ("none", "none", "fsdp"), "+ gradients": ("none", "fsdp", "fsdp"),
    "+ parameters": ("fsdp", "fsdp", "fsdp"),
}  # fmt: skip


# Gradients are counted once, as a framework that reduces them in place does.
EAGER = calibration_for("torch", "h100").stack_for(Software(stack="torch"))


def shape_of(parameters: float) -> ModelShape:
    """A GPT whose parameters come nearest: 12 L D^2, with the depth that makes it so."""
    width = 4096 if parameters < 1e11 else 25600
    return ModelShape(
        name="zero", num_layers=round(parameters / 12 / width**2), d_model=width, num_heads=32, num_kv_heads=32,
        head_dim=width // 32, d_ff=4 * width, vocab_size=1024, mlp="gelu", tied_embeddings=True, positions="none",
    )  # fmt: skip


def gigabytes(stage: str, devices: int, parameters: float) -> float:
    shape = shape_of(parameters)
    params, grads, optimizer = SHARDS[stage]
    layout = Layout(fsdp=devices, params_shard=params, grads_shard=grads, optimizer_shard=optimizer)
    precision = dataclasses.replace(precision_named("fp16"), grad_bytes=2)
    workload = Workload(seq_len=1024, global_batch_size=devices, precision=precision)
    parts = estimate(shape, workload, load_cluster(f"h100-sxm:8x{devices // 8}"), layout, EAGER).memory_parts_bytes
    total = parts["parameters"] + parts["gradients"] + parts["optimizer"]
    # Where parameters and optimizer are split alike jaxscale keeps one float32 copy; ZeRO keeps fp16 ones beside it.
    working_copy = {"none": 2.0 * parameters, "+ parameters": 2.0 * parameters / devices}.get(stage, 0.0)
    return (total * parameters / count_parameters(shape).total + working_copy) / 1e9


if __name__ == "__main__":
    lines = [
        Line(name=f"{n / 1e9:g}B on {devices}, split: {stage}", printed=printed, predicted=gigabytes(stage, devices, n))
        for stage, devices, n, printed in FIGURES
    ]  # fmt: skip
    show("ZeRO, arXiv 1910.02054, figure 1", "GB per device", lines)
