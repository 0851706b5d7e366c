"""Rules of thumb on the same measured runs, with the same metrics.

    python experiments/peers/rules_of_thumb.py RUNS.csv

What people compute on the back of an envelope, each rule with its source:

* half of the chip's peak (a good MFU), 4/3 as many FLOPs where everything is recomputed, and 1F1B's bubble
  (p - 1) / m (Narayanan et al. 2021, arXiv 2104.04473);
* 16 bytes a parameter, of which ZeRO splits 12, 14 or all (Rajbhandari et al. 2020, arXiv 1910.02054);
* activations of s b h (34 + 5 a s / h) bytes a layer, without the second term where attention is fused, 2 s b h where
  everything is recomputed, for p microbatches in flight (Korthikanti et al. 2022, arXiv 2205.05198, table 2).
"""

import argparse
import math
from pathlib import Path

import numpy as np

from jaxscale.calibrate import Run
from jaxscale.cost import count_parameters, problem
from jaxscale.cost.metrics import model_flops_per_token
from jaxscale.validate import Predictions, predict, read_runs, scores_by_source
from jaxscale.validate.text import scores_text

UTILISATION = 0.5
STATE_BYTES = {0: (16.0, 0.0), 1: (4.0, 12.0), 2: (2.0, 14.0), 3: (0.0, 16.0)}  # whole and split, by ZeRO stage


def step_time_s(run: Run) -> float:
    """Seconds of a step at half of peak, with recompute and bubble."""
    p = problem(run.shape, run.workload, run.cluster)
    flops = float(model_flops_per_token(p)) * run.workload.seq_len * run.workload.global_batch_size
    flops *= 4.0 / 3.0 if run.layout.remat == "full" else 1.0
    bubble = (run.layout.pipeline - 1) / (run.num_microbatches * run.layout.virtual_stages)
    peak = run.cluster.num_chips * run.cluster.chip.peak(run.workload.precision.matmul)
    return flops / (UTILISATION * peak) * (1.0 + bubble)


def peak_bytes(run: Run) -> float:
    """Bytes of training state and activations on one device."""
    layout, shape = run.layout, run.shape
    own = count_parameters(shape).total / (layout.tensor * layout.pipeline)
    stage = [layout.optimizer_shard, layout.grads_shard, layout.params_shard].count("fsdp")
    whole, split = STATE_BYTES[stage]
    tokens = layout.microbatch_size * run.workload.seq_len / layout.context
    scores = 5.0 * shape.num_heads * run.workload.seq_len / shape.d_model
    factor = 34.0 + (scores if run.software.attention_kernel == "naive" else 0.0)
    a_layer = 2.0 if layout.remat == "full" else factor / layout.tensor
    in_flight = min(layout.pipeline, run.num_microbatches)
    activations = tokens * shape.d_model * a_layer * shape.num_layers / layout.pipeline * in_flight
    return own * (whole + split / (layout.fsdp * layout.context)) + activations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    runs, refusals = read_runs(parser.parse_args().runs)
    times, memory = (np.array([rule(run) for run in runs]) for rule in (step_time_s, peak_bytes))
    limits = np.array([run.cluster.chip.hbm_bytes for run in runs])
    none = np.full(len(runs), math.nan)
    theirs = Predictions(
        step_time_s=times, lower_s=none, upper_s=none, mfu=none, peak_memory_bytes=memory, fits=memory <= limits
    )
    print("rules of thumb\n" + scores_text(scores_by_source(runs, theirs, refusals)))
    print("\njaxscale, the same rows\n" + scores_text(scores_by_source(runs, predict(runs), refusals)))


if __name__ == "__main__":
    main()
