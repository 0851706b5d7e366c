"""Step Law on its released losses: what the public cells say of the exponents, and what following a law costs there.

    python experiments/planner/fit_step_law.py PATH/TO/dense_lr_bs_loss.csv

The refit is that of `jaxscale fit-law dense_lr_bs_loss.csv --law steplaw --column "loss=smooth loss" --column
"batch_tokens=bs*2048"`. The loss gap is at the grid point nearest to a law's answer, over the best of its cell.
"""

import argparse
from pathlib import Path

import numpy as np

from jaxscale.plan.fit import fit_law, read_runs
from jaxscale.plan.fit.curves import grid_loss_gap
from jaxscale.plan.laws import LAWS
from jaxscale.plan.shapes import nominal_point

COLUMNS = {"params": "N", "tokens": "D", "loss": "smooth loss", "learning_rate": "lr", "batch_tokens": "bs*2048"}
COMPARED = ("step_law", "porian_hyper", "deepseek_hyper", "olmo_ladder_hyper")


def answers(name: str, params: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Learning rate and batch tokens of a law for each run [runs]; each law counts the parameters its own way."""
    law = LAWS[name]
    points = [
        nominal_point(n, d, convention="non_embedding", seq_len=2048, vocab_size=65536)
        for n, d in zip(params, tokens, strict=True)
    ]
    rate, batch = law.quantities["learning_rate"], law.quantities["batch_tokens"]
    return np.array([rate(p) for p in points]), np.array([batch(p) for p in points])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    runs = read_runs(parser.parse_args().runs, columns=COLUMNS)
    result = fit_law("steplaw", runs)
    print("| constant | refit of the public cells | 95% | published |\n|---|---|---|---|")
    published = {
        "learning_rate_exponent_params": "-0.713 (-0.774 to -0.655)",
        "learning_rate_exponent_tokens": "0.307 (0.271 to 0.345)",
        "batch_exponent_tokens": "0.571 (0.534 to 0.606)",
    }
    for name, text in published.items():
        low, high = result.intervals_95[name]
        print(f"| {name} | {result.constants[name]:.3f} | {low:.3f} to {high:.3f} | {text} |")
    print("\n| law | mean loss gap, per mille | largest |\n|---|---|---|")
    print(
        f"| refit | {1e3 * result.leave_out['mean_loss_gap']:.2f} | {1e3 * result.leave_out['largest_loss_gap']:.2f} |"
    )
    for name in COMPARED:
        gaps = list(grid_loss_gap(runs, *answers(name, runs["params"], runs["tokens"])).values())
        print(f"| {name} [{LAWS[name].mark}] | {1e3 * np.mean(gaps):.2f} | {1e3 * max(gaps):.2f} |")


if __name__ == "__main__":
    main()
