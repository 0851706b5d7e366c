"""Frontier's figures for 22B, 175B and 1T on MI250X: 38.38%, 36.14% and 31.96% of peak (arXiv 2312.12705, abstract).

    python experiments/published/frontier.py

The recipes (tensor, pipeline, microbatch, batch) are not in the sources that this project has, and no run on this chip
was used for calibration. So each line takes the best layout of Megatron-DeepSpeed's kind that the model finds, at an
assumed batch of 640 to 1536 sequences. The FLOPs are the model's, without recompute.
An unknown recipe and an uncalibrated chip: read the error as that of a guess, not of a prediction.
"""

import itertools

import numpy as np
from compare import Line, show
from megatron import gpt

from jaxscale.calibrate import Software, calibration_for
from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate_batch, metrics, problem
from jaxscale.types import Layout, LayoutBatch, Workload

SEQ_LEN = 2048
# billions, heads, d_model, layers, MI250X (two devices each), sequences a step, printed share of peak
RUNS = (
    (22, 48, 6144, 48, 64, 1024, 0.3838),
    (175, 96, 12288, 96, 512, 640, 0.3614),
    (1000, 160, 25600, 128, 1536, 1536, 0.3196),
)


def best_mfu(size: int, heads: int, width: int, layers: int, chips: int, batch: int) -> tuple[float, Layout]:
    cluster = load_cluster(f"mi250x:4x{chips // 4}")
    software = Software(stack="megatron_deepspeed", attention_kernel="flash2", gated=False)
    stack = calibration_for("megatron_deepspeed", "mi250x").stack_for(software)
    p = problem(gpt(size, heads, width, layers), Workload(seq_len=SEQ_LEN, global_batch_size=batch), cluster, stack)
    rows = [
        Layout(
            fsdp=cluster.num_devices // (tensor * pipeline), tensor=tensor, pipeline=pipeline, microbatch_size=micro,
            params_shard="none", grads_shard="none", optimizer_shard="fsdp", remat="full",
        )
        for tensor, pipeline, micro in itertools.product((1, 2, 4, 8), (1, 2, 4, 8, 16, 32, 64), (1, 2, 4))
        if cluster.num_devices % (tensor * pipeline) == 0
        and layers % pipeline == 0
        and batch % (cluster.num_devices // (tensor * pipeline) * micro) == 0
    ]  # fmt: skip
    priced = estimate_batch(p, LayoutBatch.from_layouts(rows), bounds=False)
    seconds = np.where(priced.fits(p.device.usable_hbm_bytes), priced.step_time_s, np.inf)
    fastest = int(np.argmin(seconds))
    flops = metrics.model_flops_per_token(p) * p.tokens_per_step
    return float(metrics.mfu(p, flops, seconds[fastest])), rows[fastest]


if __name__ == "__main__":
    lines = []
    for *run, printed in RUNS:
        mfu, layout = best_mfu(*run)
        lines.append(Line(name=f"{run[0]}B, {run[4]} MI250X", printed=printed, predicted=mfu))
        print(f"{run[0]}B: {layout}")
    show("Frontier, arXiv 2312.12705", "share of peak", lines)
