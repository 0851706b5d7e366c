"""Does a refit to five runs of one's own help on the runs that it has not seen? Random draws from published sources.

    python experiments/published/few_runs.py RUNS.csv [--draws N] [--runs K] [--only SOURCE ...]

For each source, constants are fitted to everything else of the same stack and chip, as a user finds them who has never
published a run. Then K runs are drawn, `calibrate` refits to them, and the rest of the source judges. A refit hurts
where the median error of the rest grows by more than half a per cent of the step time.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from jaxscale.calibrate import Calibration, Run, prior_on
from jaxscale.calibrate.held_out import fit_stack, timed, user_spreads
from jaxscale.validate import predict, read_runs

SOURCES = ("korthikanti", "sc21-table1", "foundry-a100", "foundry-a100-40", "nemo2407", "aleph-seqpara", "vtrain-multi")
NOTICEABLE = 0.005  # growth of the median error that counts as harm


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Median errors of the runs that a draw left over, before and after the refit."""

    before: float
    after: float
    kept: bool  # whether the refit replaced the constants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--runs-drawn", type=int, default=5, metavar="K")
    parser.add_argument("--only", nargs="*", default=SOURCES)
    arguments = parser.parse_args()
    runs, _ = read_runs(arguments.runs)
    columns = ("before", "after", "helped", "same", "hurt")
    print(f"{'source':18s} {'stack':20s} {'runs':>4s} " + " ".join(f"{name:>7s}" for name in columns))
    for source in arguments.only:
        here = [run for run in timed(runs) if run.group == source]
        stack, chip = here[0].software.stack, here[0].chip
        here = [run for run in here if (run.software.stack, run.chip) == (stack, chip)]
        others = [r for r in runs if r.group != source and (r.software.stack, r.chip) == (stack, chip)]
        start = fit_stack(others, prior_on(stack, chip), folds=False)
        draws = [draw(here, start, arguments.runs_drawn, seed) for seed in range(arguments.draws)]
        print(row(source, stack, len(here), draws), flush=True)


def draw(runs: Sequence[Run], start: Calibration, count: int, seed: int) -> Draw:
    """Refit to `count` random runs and judge on the others."""
    order = np.random.default_rng(seed).permutation(len(runs))
    mine, rest = [runs[i] for i in order[:count]], [runs[i] for i in order[count:]]
    refit = fit_stack(mine, start, spreads=user_spreads(start))
    before, after = (median_error(rest, calibration) for calibration in (start, refit))
    return Draw(before=before, after=after, kept=before != after)


def median_error(runs: Sequence[Run], calibration: Calibration) -> float:
    """Median absolute error of step time with one calibration."""
    measured_s = np.array([run.step_time_s for run in runs])
    predicted_s = predict(runs, lambda _: calibration).step_time_s
    return float(np.median(np.abs(predicted_s / measured_s - 1.0)))


def row(source: str, stack: str, count: int, draws: Sequence[Draw]) -> str:
    """One line of the table; medians over the draws."""
    hurt = sum(d.after > d.before + NOTICEABLE for d in draws)
    helped = sum(d.after < d.before - NOTICEABLE for d in draws)
    before, after = (float(np.median([getattr(d, name) for d in draws])) for name in ("before", "after"))
    return (
        f"{source:18s} {stack:20s} {count:4d} {100 * before:6.1f}% {100 * after:6.1f}% {helped:7d} "
        f"{len(draws) - helped - hurt:7d} {hurt:7d}"
    )


if __name__ == "__main__":
    main()
