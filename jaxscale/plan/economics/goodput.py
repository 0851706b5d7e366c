"""How much of the wall clock trains: checkpoints, failures and restarts.

Failures come at random to a cluster whose mean time between them shrinks with its size; a checkpoint interval balances
writing against work lost (Daly 2006, "A higher order estimate of the optimum checkpoint interval").
"""

import math
from dataclasses import dataclass

# Llama 3 405B pre-training: 419 unexpected interruptions of 16,384 H100s in 54 days (arXiv 2407.21783, section 3.3.4).
CHIP_HOURS_BETWEEN_FAILURES = 16384 * 54 * 24 / 419
RESTART_S = 600.0  # detect, reschedule, load, compile: an assumption of the order of published restarts
CHECKPOINT_BYTES_PER_S_PER_HOST = 1e9  # to shared storage: an assumption


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """What a cluster loses to failures. Times in seconds, `chip_hours_between_failures` over all causes."""

    chip_hours_between_failures: float = CHIP_HOURS_BETWEEN_FAILURES
    restart_s: float = RESTART_S
    checkpoint_bytes_per_s_per_host: float = CHECKPOINT_BYTES_PER_S_PER_HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Share of the wall clock spent on steps that count, and what takes the rest."""

    share: float
    mean_time_between_failures_s: float
    checkpoint_s: float
    interval_s: float
    checkpoint_share: float
    expected_failures_per_day: float


def goodput(num_chips: int, num_hosts: int, checkpoint_bytes: float, reliability: Reliability | None = None) -> Goodput:
    """Expected goodput at the best checkpoint interval, for checkpoints that stop training while they are written.

    >>> round(goodput(16384, 2048, 5.7e12).expected_failures_per_day, 1)
    7.8
    """
    reliability = reliability or Reliability()
    mean_s = reliability.chip_hours_between_failures * 3600.0 / num_chips
    checkpoint_s = checkpoint_bytes / (reliability.checkpoint_bytes_per_s_per_host * num_hosts)
    interval_s = best_interval_s(checkpoint_s, mean_s)
    wall_s = expected_wall_s(interval_s, interval_s, checkpoint_s, reliability.restart_s, mean_s)
    return Goodput(
        share=interval_s / wall_s,
        mean_time_between_failures_s=mean_s,
        checkpoint_s=checkpoint_s,
        interval_s=interval_s,
        checkpoint_share=checkpoint_s / (interval_s + checkpoint_s),
        expected_failures_per_day=86400.0 / mean_s,
    )


def best_interval_s(checkpoint_s: float, mean_s: float) -> float:
    """Work between two checkpoints of least expected wall time (Daly eq. 37; `mean_s` where writing is slower)."""
    if checkpoint_s >= 2.0 * mean_s:
        return mean_s
    ratio = checkpoint_s / (2.0 * mean_s)
    return math.sqrt(2.0 * checkpoint_s * mean_s) * (1.0 + math.sqrt(ratio) / 3.0 + ratio / 9.0) - checkpoint_s


def expected_wall_s(work_s: float, interval_s: float, checkpoint_s: float, restart_s: float, mean_s: float) -> float:
    """Expected wall time of `work_s` of training with failures of mean spacing `mean_s` (Daly eq. 20)."""
    segment_s = math.expm1(min(700.0, (interval_s + checkpoint_s) / mean_s))
    return mean_s * math.exp(min(700.0, restart_s / mean_s)) * segment_s * work_s / interval_s
