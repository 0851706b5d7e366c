"""llm-analysis on the same measured runs, with the same metrics.

    pip install llm-analysis
    python experiments/peers/llm_analysis_rows.py RUNS.csv

llm-analysis (github.com/cli99/llm-analysis) is not a dependency of jaxscale. Its settings are those of its README:
half of peak FLOP/s, nine tenths of memory bandwidth. It has no pipeline bubble: m microbatches over p stages are
counted here as (m + p - 1) / m. It wants an MLP width that d_model divides: a gated MLP is given to it as a plain one
of the nearest such width with as many parameters. A run that it cannot express (experts, context parallelism, an
unknown chip), or for which it raises (as where it thinks memory is short), is refused; jaxscale is judged on the same
rows.
"""

import argparse
import logging
import math
from pathlib import Path

import numpy as np

from jaxscale.calibrate import Run
from jaxscale.validate import Predictions, Refusal, predict, read_runs, scores_by_source
from jaxscale.validate.text import refusals_text, scores_text

FLOPS_EFFICIENCY, MEMORY_EFFICIENCY = 0.5, 0.9
CHIPS = {
    "a100-sxm-80gb": "a100-sxm-80gb", "a100-sxm-40gb": "a100-sxm-40gb", "h100-sxm": "h100-sxm-80gb",
    "v100-sxm2-32gb": "v100-sxm-32gb", "v100-sxm2-16gb": "v100-sxm-16gb",
}  # fmt: skip


def peer(run: Run) -> tuple[float, float]:
    """Step time in seconds and peak bytes by llm-analysis."""
    from llm_analysis.analysis import ActivationRecomputation, DSZeRO, LLMAnalysis
    from llm_analysis.config import ModelConfig, ParallelismConfig, get_gpu_config_by_name

    shape, layout = run.shape, run.layout
    if shape.moe or layout.context > 1 or run.cluster.chip.name not in CHIPS:
        raise ValueError("experts, context parallelism or chip not expressible")
    width = shape.d_ff * (1.5 if shape.gated_mlp else 1.0)
    model = ModelConfig(
        name=shape.name, num_layers=shape.num_layers, n_head=shape.num_heads, hidden_dim=shape.d_model,
        vocab_size=shape.vocab_size, num_key_value_heads=shape.num_kv_heads,
        ffn_embed_dim=max(round(width / shape.d_model), 1) * shape.d_model,
        max_seq_len=run.workload.seq_len,
    )  # fmt: skip
    degrees = ParallelismConfig(
        tp_size=layout.tensor, pp_size=layout.pipeline, dp_size=layout.data * layout.fsdp,
        sp_size=layout.tensor if layout.sequence_parallel else 1,
    )  # fmt: skip
    tool = LLMAnalysis(
        model, get_gpu_config_by_name(CHIPS[run.cluster.chip.name]), parallelism_config=degrees,
        flops_efficiency=FLOPS_EFFICIENCY, hbm_memory_efficiency=MEMORY_EFFICIENCY,
    )  # fmt: skip
    stage = [layout.optimizer_shard, layout.grads_shard, layout.params_shard].count("fsdp")
    recompute = ActivationRecomputation.FULL if layout.remat == "full" else ActivationRecomputation.NONE
    found = tool.training(
        batch_size_per_gpu=layout.microbatch_size, gradient_accumulation_steps=run.num_microbatches,
        seq_len=run.workload.seq_len, ds_zero=DSZeRO(stage), flash_attn=run.software.attention_kernel != "naive",
        activation_recomputation=recompute,
    )  # fmt: skip
    bubble = (run.num_microbatches + layout.pipeline - 1) / run.num_microbatches
    memory = run.cluster.chip.hbm_bytes - found["memory_left_per_gpu"]
    return found["latency_per_iter"] * bubble, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    path = parser.parse_args().runs
    logging.disable(logging.WARNING)
    kept, seconds, peaks, refusals = [], [], [], []
    for run in read_runs(path)[0]:
        try:
            step_s, peak = peer(run)
        except (AssertionError, ValueError, KeyError, ZeroDivisionError, TypeError) as error:
            refusals.append(Refusal(id=run.id, group=run.group, reason=f"{type(error).__name__}: {error}"[:100]))
            continue
        kept.append(run)
        seconds.append(step_s)
        peaks.append(peak)
    times, memory = np.array(seconds), np.array(peaks)
    limits = np.array([run.cluster.chip.hbm_bytes for run in kept])
    none = np.full(len(kept), math.nan)
    theirs = Predictions(
        step_time_s=times, lower_s=none, upper_s=none, mfu=none, peak_memory_bytes=memory, fits=memory <= limits
    )
    print("llm-analysis\n" + scores_text(scores_by_source(kept, theirs, refusals)))
    print("\njaxscale, the same rows\n" + scores_text(scores_by_source(kept, predict(kept), [])))
    print("\n" + refusals_text(refusals))


if __name__ == "__main__":
    main()
