"""Repetition constants of Muennighoff et al. 2023 from the public C4 runs, in two stages as the paper fits them.

    python experiments/planner/fit_repetition.py PATH/TO/c4_runs.csv

Base law (alpha = beta) from runs with at least 3e9 unique tokens and at most 44 epochs; then the two decay constants on
that base, from runs at most as many epochs long as their size and data still gained from.
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

_LEAST_UNIQUE, _MOST_EPOCHS = 3e9, 44.0


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
    epochs = runs["tokens"] / runs["unique_tokens"]
    published = np.log(runs["loss"] / data.repeated_loss(runs["params"], runs["tokens"], runs["unique_tokens"]))
    rich = (runs["unique_tokens"] >= _LEAST_UNIQUE) & (epochs <= _MOST_EPOCHS)
    base = fit(FORMS["datablations"], {name: column[rich] for name, column in runs.items()})
    law = Additive(**{name: base.constants[name] for name in ("E", "A", "B", "alpha", "beta")})
    useful = before_overfit(runs) & (epochs <= _MOST_EPOCHS)
    decay = fit(repetition_decay(law), {name: column[useful] for name, column in runs.items()}, draws=100)
    print("| constant | public runs | 95% | published |\n|---|---|---|---|")
    for name in ("E", "A", "B", "alpha"):
        print(f"| {name} | {base.constants[name]:.4g} ({rich.sum()} runs) | | {getattr(data.MUENNIGHOFF, name):.4g} |")
    for name, known in (("R_D", data.R_STAR_TOKENS), ("R_N", data.R_STAR_PARAMS)):
        low, high = decay.interval(name)
        print(f"| {name} | {decay.constants[name]:.3g} ({useful.sum()} runs) | {low:.3g} to {high:.3g} | {known:.4g} |")
    print(f"\nrms of ln loss: base {base.rms_log_error:.4f}, decay {decay.rms_log_error:.4f}")
    print(f"measured over published law, median: {100 * np.expm1(np.median(published)):.1f}%")


if __name__ == "__main__":
    main()
