"""Runs whose times come from the model itself, under constants that the fit has to find."""

import dataclasses
import math

import numpy as np

from jaxscale.calibrate import Calibration, Run, Software, prior_on
from jaxscale.calibrate.table import blocks, estimates
from jaxscale.catalog import load_cluster
from jaxscale.types import Layout, ModelShape, Workload

SOFTWARE = Software(stack="megatron", attention_kernel="flash2")
SHAPE = ModelShape(
    name="synthetic", num_layers=16, d_model=4096, num_heads=32, num_kv_heads=32, head_dim=128, d_ff=11008,
    vocab_size=32000,
)  # fmt: skip


def layouts() -> list[Layout]:
    """Layouts of 16 devices that differ in every axis the constants act through."""
    made = []
    for tensor in (1, 2, 4):
        for pipeline in (1, 2, 4):
            for microbatch in (1, 2):
                for remat in ("none", "full"):
                    made.append(
                        Layout(
                            fsdp=16 // tensor // pipeline, tensor=tensor, pipeline=pipeline, microbatch_size=microbatch,
                            params_shard="none", grads_shard="none", optimizer_shard="fsdp", remat=remat,
                        )
                    )  # fmt: skip
    return made


def synthetic_runs(
    truth: Calibration, *, noise: float = 0.0, seed: int = 0, software: Software = SOFTWARE
) -> list[Run]:
    """One timed run for every layout and two sequence lengths, with lognormal noise."""
    cluster = load_cluster("a100-sxm-80gb:8x2")
    runs = [
        Run(
            id=f"{seq_len}-{i}", group="synthetic", family=f"seq-{seq_len}", shape=SHAPE,
            workload=Workload(seq_len=seq_len, global_batch_size=64), cluster=cluster, layout=layout, software=software,
            outcome="ok", step_time_s=math.nan, peak_memory_bytes=math.nan, mfu_reported=math.nan, mfu_note="",
            weight=1.0, comparable=f"seq-{seq_len}",
        )
        for seq_len in (2048, 4096)
        for i, layout in enumerate(layouts())
    ]  # fmt: skip
    seconds, peaks = times_and_peaks(runs, truth)
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(runs)))
    limit = cluster.chip.usable_hbm_bytes
    return [
        dataclasses.replace(
            run, step_time_s=float(s * f), peak_memory_bytes=float(b), outcome="ok" if b <= limit else "oom"
        )
        for run, s, f, b in zip(runs, seconds, scatter, peaks, strict=True)
    ]  # fmt: skip


def times_and_peaks(runs: list[Run], calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Predicted step times and peaks, [n]."""
    seconds, peaks = np.zeros(len(runs)), np.zeros(len(runs))
    for block in blocks(runs, lambda run: calibration.stack_for(run.software)):
        batch = estimates(block)
        seconds[block.rows], peaks[block.rows] = batch.step_time_s, batch.memory_bytes
    return seconds, peaks


def other_truth() -> Calibration:
    """A plausible cluster that is not the prior: slower matmuls and network, and fatter memory."""
    from jaxscale.calibrate import CONSTANTS, Fitted

    start = prior_on("megatron", "a100")
    values = {
        "matmul_efficiency": 0.66, "outer_efficiency": 0.35, "elementwise_passes": 3.2, "collective_efficiency": 0.6,
        "kernel_gap_s": 9e-6, "step_overhead_s": 0.2, "logit_copies": 3.5, "reserved_bytes": 4e9,
    }  # fmt: skip
    named = {c.name: c for c in CONSTANTS}
    fitted = {n: Fitted(value=v, low=v, high=v, spread=named[n].spread) for n, v in values.items()}
    return dataclasses.replace(start, fitted={**start.fitted, **fitted})
