"""Days of public training runs, reconstructed from their published size, tokens, chips and utilisation.

    python experiments/planner/known_models.py

`days` is what the planner's accounting (FLOPs of the model, goodput at the default failure rate) makes of the
published utilisation; cost is days times chips times price, so its error is the same. `by search` takes no
utilisation: the layout search and the cost model say the speed, on today's software, which is faster than what most of
these runs had.
A utilisation reported with recompute counted (hardware FLOPs, full recompute) is compared with 8N instead of 6N.
"""

from dataclasses import dataclass

from jaxscale.api.plans import best_estimate
from jaxscale.catalog import load_cluster, load_model, model_names
from jaxscale.plan.economics.goodput import goodput
from jaxscale.types import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicRun:
    model: str
    cluster: str
    params: float
    num_layers: int
    width: int
    tokens: float
    seq_len: int
    batch_tokens: float
    utilization: float
    recompute_counted: bool
    days: float  # published
    source: str


RUNS = (
    PublicRun(
        model="llama3-405b", cluster="h100-sxm:16384", params=405.9e9, num_layers=126, width=16384, tokens=15.6e12,
        seq_len=8192, batch_tokens=16e6, utilization=0.41, recompute_counted=False, days=30.84e6 / 16384 / 24,
        source="arXiv 2407.21783, Table 4 (41% MFU); model card (30.84M H100 hours)",
    ),
    PublicRun(
        model="llama1-65b", cluster="a100-sxm-80gb:2048", params=65.2e9, num_layers=80, width=8192, tokens=1.4e12,
        seq_len=2048, batch_tokens=4e6, utilization=380 * (6 * 65.2e9 + 12 * 80 * 8192 * 2048) / 312e12,
        recompute_counted=False, days=1_022_362 / 2048 / 24,
        source="arXiv 2302.13971, section 2.4 (380 tokens/s a GPU, 21 days) and Table 15 (1,022,362 GPU hours)",
    ),
    PublicRun(
        model="gopher-280b", cluster="v3-2048", params=280e9, num_layers=80, width=16384, tokens=3.0e11, seq_len=2048,
        batch_tokens=6e6, utilization=0.325, recompute_counted=False, days=920 / 24 * 4096 / 1024,
        source="arXiv 2112.11446, appendix F (4096 TPU v3, 920 hours); MFU in arXiv 2204.02311, Table 3",
    ),
    PublicRun(
        model="bloom-176b", cluster="a100-sxm-80gb:384", params=176.2e9, num_layers=70, width=14336, tokens=3.66e11,
        seq_len=2048, batch_tokens=4.2e6, utilization=150 / 312, recompute_counted=True, days=1_082_990 / 384 / 24,
        source="arXiv 2211.05100, section 3.4 (384 GPUs, 150 TFLOP/s) and arXiv 2211.02001 (1,082,990 GPU hours)",
    ),
    PublicRun(
        model="gpt3-175b", cluster="a100-sxm-80gb:1024", params=174.6e9, num_layers=96, width=12288, tokens=3.0e11,
        seq_len=2048, batch_tokens=3.1e6, utilization=140 / 312, recompute_counted=True, days=34.0,
        source="Narayanan et al. 2021 (arXiv 2104.04473), section 5.1 (1024 A100, 140 TFLOP/s, 34 days)",
    ),
)  # fmt: skip


def days_of(run: PublicRun, num_chips: int, chips_per_host: int, peak_flops_per_s: float) -> float:
    """Days from FLOPs and utilisation, over goodput."""
    passes = 8.0 if run.recompute_counted else 6.0
    flops_per_token = passes * run.params + 2.0 * passes * run.num_layers * run.width * run.seq_len
    share = goodput(num_chips, num_chips // chips_per_host, 12.0 * run.params).share
    return run.tokens * flops_per_token / (run.utilization * num_chips * peak_flops_per_s * share) / 86400.0


def days_by_search(run: PublicRun) -> float | None:
    """Days at the speed of the best layout that the planner finds, for models that the catalogue knows."""
    if run.model not in model_names():
        return None
    cluster = load_cluster(run.cluster)
    batch = round(run.batch_tokens / run.seq_len / 256) * 256
    estimate = best_estimate(load_model(run.model), Workload(seq_len=run.seq_len, global_batch_size=batch), cluster)
    if estimate is None:
        return None
    share = goodput(cluster.num_chips, cluster.num_chips // cluster.chips_per_host, 12.0 * run.params).share
    return run.tokens / (estimate.tokens_per_s_per_chip * cluster.num_chips * share) / 86400.0


def main() -> None:
    print("| run | chips | published days | days | error | by search | source |\n|---|---|---|---|---|---|---|")
    for run in RUNS:
        cluster = load_cluster(run.cluster)
        days = days_of(run, cluster.num_chips, cluster.chips_per_host, cluster.chip.peak("bf16"))
        searched = days_by_search(run)
        other = f"{searched:.0f} ({100 * (searched / run.days - 1):+.0f}%)" if searched else ""
        error = f"{100 * (days / run.days - 1):+.0f}%"
        print(
            f"| {run.model} | {run.cluster} | {run.days:.1f} | {days:.1f} | {error} | {other} | {run.source} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
