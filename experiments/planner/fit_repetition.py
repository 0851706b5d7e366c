"""Repetition constants of Muennighoff et al. 2023 from the public C4 runs, in two stages as the paper fits them.

    python experiments/planner/fit_repetition.py PATH/TO/c4_runs.csv

The decay constants of parameters and tokens are fitted on a base law: the published one, or one refitted here to runs
of at least 3e9 unique tokens. Runs: at most 44 epochs, 1e8 parameters and 4e8 unique tokens or more, and no longer
than their size and data still gained from. A factor on the loss takes up that the published law lies under these
losses.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from jaxscale.plan.fit import FORMS, fit, read_runs
from jaxscale.plan.fit.forms import repetition_decay
from jaxscale.plan.laws import data
from jaxscale.plan.laws.dense import Additive

_MOST_EPOCHS = 44.0


def before_overfit(runs: dict[str, np.ndarray]) -> np.ndarray:
    """Runs that no shorter run of the same size and data beats, as a mask."""
    keep = np.ones(len(runs["loss"]), dtype=bool)
    for i in range(len(keep)):
        shorter = (
            (runs["params"] == runs["params"][i])
            & (runs["unique_tokens"] == runs["unique_tokens"][i])
            & (runs["tokens"] < runs["tokens"][i])
        )
        keep[i] = not shorter.any() or runs["loss"][i] <= runs["loss"][shorter].min()
    return keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    runs = read_runs(parser.parse_args().runs)
    short = runs["tokens"] <= _MOST_EPOCHS * runs["unique_tokens"]
    rich = short & (runs["unique_tokens"] >= 3e9)
    useful = short & (runs["unique_tokens"] >= 3.9e8) & (runs["params"] >= 1e8) & before_overfit(runs)
    refitted = fit(FORMS["datablations"], {name: column[rich] for name, column in runs.items()}).constants
    own = Additive(**{name: refitted[name] for name in ("E", "A", "B", "alpha", "beta")})
    print(f"base refitted to {rich.sum()} runs: {own}\npublished: {data.MUENNIGHOFF}\n")
    print("| base | runs | R_D | 95% | R_N | 95% | factor | rms of ln loss |\n|---|---|---|---|---|---|---|---|")
    for label, base in (("published", data.MUENNIGHOFF), ("refitted", own)):
        decay = fit(repetition_decay(base), {name: column[useful] for name, column in runs.items()}, draws=100)
        cells = []
        for name in ("R_D", "R_N"):
            low, high = decay.interval(name)
            cells.append(f"{decay.constants[name]:.3g} | {low:.3g} to {high:.3g}")
        rest = f"{decay.constants['s']:.3f} | {decay.rms_log_error:.4f}"
        print(f"| {label} | {useful.sum()} | {' | '.join(cells)} | {rest} |")
    print(f"| as published | 182 | {data.R_STAR_TOKENS:.3g} | | {data.R_STAR_PARAMS:.3g} | | | |")


if __name__ == "__main__":
    main()
