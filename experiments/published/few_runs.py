"""Does a refit to five runs of one's own help on the runs that it has not seen? Random draws from published sources.

    python experiments/published/few_runs.py RUNS.csv [--draws N] [--runs-drawn K] [--only SOURCE ...]

For each source (its runs of one stack and chip), constants are fitted to everything else of that stack and chip, as a
user finds them who has never published a run; where there is nothing else, they are the priors. Then K runs are drawn,
`jaxscale calibrate` refits to them, and the rest of the source judges. A refit hurts where the median error of the rest
grows by more than half a per cent of the step time.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from jaxscale.calibrate import Calibration, Run, prior_on
from jaxscale.calibrate.held_out import fit_stack, timed
from jaxscale.calibrate.own_runs import refit
from jaxscale.validate import predict, read_runs

FEWEST_LEFT = 3  # runs that a draw must leave over
NOTICEABLE = 0.005  # growth of the median error that counts as harm


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Median errors of the runs that a draw left over, before and after the refit."""

    before: float
    after: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--runs-drawn", type=int, default=5, metavar="K")
    parser.add_argument("--only", nargs="*", metavar="SOURCE")
    arguments = parser.parse_args()
    runs, _ = read_runs(arguments.runs)
    columns = ("before", "after", "helped", "same", "hurt")
    print(f"{'source':18s} {'stack/chip':24s} {'runs':>4s} " + " ".join(f"{name:>7s}" for name in columns))
    for source, stack, chip, here in sources(runs, arguments.runs_drawn + FEWEST_LEFT):
        if arguments.only and source not in arguments.only:
            continue
        others = [r for r in runs if r.group != source and (r.software.stack, r.chip) == (stack, chip)]
        start = fit_stack(others, prior_on(stack, chip), folds=False)
        draws = [draw(here, start, arguments.runs_drawn, seed) for seed in range(arguments.draws)]
        print(row(source, f"{stack}/{chip}", len(here), draws), flush=True)


def sources(runs: Sequence[Run], fewest: int) -> Iterator[tuple[str, str, str, list[Run]]]:
    """Every source with enough timed runs on one stack and chip: its name, stack, chip and those runs."""
    keys = Counter((run.group, run.software.stack, run.chip) for run in timed(runs))
    for key, count in sorted(keys.items()):
        if count >= fewest:
            yield *key, [run for run in timed(runs) if (run.group, run.software.stack, run.chip) == key]


def draw(runs: Sequence[Run], start: Calibration, count: int, seed: int) -> Draw:
    """Refit to `count` random runs and judge on the others."""
    order = np.random.default_rng(seed).permutation(len(runs))
    mine, rest = [runs[i] for i in order[:count]], [runs[i] for i in order[count:]]
    before, after = (median_error(rest, calibration) for calibration in (start, refit(mine, start)))
    return Draw(before=before, after=after)


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
        f"{source:18s} {stack:24s} {count:4d} {100 * before:6.1f}% {100 * after:6.1f}% {helped:7d} "
        f"{len(draws) - helped - hurt:7d} {hurt:7d}"
    )


if __name__ == "__main__":
    main()
