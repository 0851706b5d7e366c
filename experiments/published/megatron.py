"""Megatron-LM on A100s: weak scaling from 1.7B to 1T (arXiv 2104.04473, table 1) and the iteration times of selective
recompute with sequence parallelism (arXiv 2205.05198, table 5).

    python experiments/published/megatron.py

TFLOP/s per GPU are the paper's own count, which includes the forward pass that full recompute repeats (its eq. 3):
96 B s L h^2 (1 + s / 6h + V / 16Lh). The constants are those of the shipped `megatron` stack on A100, fitted to
these tables among others: the errors are in sample. `jaxscale/calibrate/stacks/megatron-a100.yaml` states the error on
rows left out.
"""

import dataclasses

from compare import Line, show

from jaxscale.calibrate import Software, calibration_for
from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate
from jaxscale.types import Layout, ModelShape, Workload, precision_named

SEQ_LEN, VOCABULARY = 2048, 51200
# billions of parameters, heads, d_model, layers, tensor, pipeline, GPUs, batch, microbatch, TFLOP/s per GPU
WEAK_SCALING = (
    (1.7, 24, 2304, 24, 1, 1, 32, 512, 16, 137), (3.6, 32, 3072, 30, 2, 1, 64, 512, 16, 138),
    (7.5, 32, 4096, 36, 4, 1, 128, 512, 16, 142), (18.4, 48, 6144, 40, 8, 1, 256, 1024, 8, 135),
    (39.1, 64, 8192, 48, 8, 2, 512, 1536, 4, 138), (76.1, 80, 10240, 60, 8, 4, 1024, 1792, 2, 140),
    (145.6, 96, 12288, 80, 8, 8, 1536, 2304, 2, 148), (310.1, 128, 16384, 96, 8, 16, 1920, 2160, 1, 155),
    (529.6, 128, 20480, 105, 8, 35, 2520, 2520, 1, 163), (1008.0, 160, 25600, 128, 8, 64, 3072, 3072, 1, 163),
)  # fmt: skip
# billions, heads, d_model, layers, pipeline, chunks, GPUs, batch, microbatch, seconds: full recompute, selective + SP
SELECTIVE = (
    (22, 64, 6144, 48, 1, 1, 8, 4, 4, 1.42, 1.10), (175, 96, 12288, 96, 8, 3, 64, 64, 1, 18.13, 13.75),
    (530, 128, 20480, 105, 35, 3, 280, 280, 1, 49.05, 37.83), (1000, 160, 25600, 128, 64, 1, 512, 512, 1, 94.42, 71.49),
)  # fmt: skip


def gpt(size: float, heads: int, width: int, layers: int) -> ModelShape:
    return ModelShape(
        name=f"gpt-{size}b", num_layers=layers, d_model=width, num_heads=heads, num_kv_heads=heads,
        head_dim=width // heads, d_ff=4 * width, vocab_size=VOCABULARY, mlp="gelu", tied_embeddings=True,
        norm="layernorm", norm_bias=True, qkv_bias=True, attention_out_bias=True, mlp_bias=True, positions="none",
    )  # fmt: skip


def step_s(shape: ModelShape, gpus: int, batch: int, layout: Layout, *, selective: bool = False) -> float:
    software = Software(stack="megatron", attention_kernel="naive", gated=False, score_recompute=selective)
    stack = calibration_for("megatron", "a100").stack_for(software)
    cluster = load_cluster(f"a100-sxm-80gb:8x{gpus // 8}" if gpus > 8 else "a100-sxm-80gb:8")
    # Megatron-LM accumulates and reduces gradients in float32.
    precision = dataclasses.replace(precision_named("fp16"), reduce_bytes=4)
    workload = Workload(seq_len=SEQ_LEN, global_batch_size=batch, precision=precision)
    return estimate(shape, workload, cluster, layout, stack).step_time_s


def replicated(gpus: int, tensor: int, pipeline: int, micro: int, **options) -> Layout:
    return Layout(
        fsdp=gpus // (tensor * pipeline), tensor=tensor, pipeline=pipeline, microbatch_size=micro, params_shard="none",
        grads_shard="none", optimizer_shard="none", **options,
    )  # fmt: skip


def weak_scaling() -> list[Line]:
    lines = []
    for size, heads, width, layers, tensor, pipeline, gpus, batch, micro, printed in WEAK_SCALING:
        layout = replicated(gpus, tensor, pipeline, micro, remat="full")
        seconds = step_s(gpt(size, heads, width, layers), gpus, batch, layout)
        terms = 1.0 + SEQ_LEN / (6.0 * width) + VOCABULARY / (16.0 * layers * width)
        flops = 96.0 * batch * SEQ_LEN * layers * width**2 * terms
        lines.append(Line(name=f"{size}B, {gpus} GPUs", printed=printed, predicted=flops / seconds / gpus / 1e12))
    return lines


def iteration_times() -> list[Line]:
    lines = []
    for size, heads, width, layers, pipeline, chunks, gpus, batch, micro, full, selective in SELECTIVE:
        shape = gpt(size, heads, width, layers)
        schedule = {"schedule": "interleaved", "virtual_stages": chunks} if chunks > 1 else {}
        for what, printed, options in (
            ("full recompute", full, {"remat": "full"}),
            ("selective, SP", selective, {"remat": "none", "sequence_parallel": True}),
        ):
            layout = replicated(gpus, 8, pipeline, micro, **options, **schedule)
            seconds = step_s(shape, gpus, batch, layout, selective=what != "full recompute")
            lines.append(Line(name=f"{size}B, {gpus} GPUs, {what}", printed=printed, predicted=seconds))
    return lines


if __name__ == "__main__":
    show("Megatron-LM weak scaling, arXiv 2104.04473, table 1", "TFLOP/s per GPU", weak_scaling())
    show("Selective recompute, arXiv 2205.05198, table 5", "seconds per iteration", iteration_times())
