"""The replication of Chinchilla's approach 3 on the points read off its figure 4, against what it published.

    python experiments/planner/replicate_chinchilla.py PATH/TO/svg_extracted_data.csv

Same fit as `jaxscale fit-law svg_extracted_data.csv --drop-highest 5`.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxscale.plan.fit import FORMS, fit_law, objective_of, read_runs
from jaxscale.plan.laws import dense

# Besiroglu et al. 2024 (arXiv 2404.10102): 95% bootstrap intervals, and the plain Huber optimum of their notebook.
PUBLISHED = {
    "E": (1.8172, (1.769, 1.871)), "A": (477.8, (285, 744)), "B": (2143, (1042, 5810)),
    "alpha": (0.3473, (0.317, 0.373)), "beta": (0.3672, (0.331, 0.415)), "a": (0.513, (0.474, 0.552)),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", type=Path)
    path = parser.parse_args().points
    columns = read_runs(path, drop_highest=5)
    result = fit_law("chinchilla", columns, draws=200, leave_out=False)
    print("| constant | fitted | 95% here | published | 95% published | within |\n|---|---|---|---|---|---|")
    for name, (value, interval) in PUBLISHED.items():
        low, high = result.intervals_95[name]
        fitted = result.constants[name]
        inside = "yes" if interval[0] <= fitted <= interval[1] else "no"
        known = f"{value} | {interval[0]} to {interval[1]}"
        print(f"| {name} | {fitted:.5g} | {low:.4g} to {high:.4g} | {known} | {inside} |")
    print(f"\nobjective {result.objective:.9f}")
    for label, law in (("Hoffmann, unrounded", dense.HOFFMANN_A3), ("Hoffmann, as printed", dense.HOFFMANN_A3_ROUNDED)):
        constants = {name: getattr(law, name) for name in ("E", "A", "B", "alpha", "beta")}
        print(f"objective of {label}: {objective_of(FORMS['chinchilla'], constants, columns):.7f}")
    everything = fit_law("chinchilla", read_runs(path), draws=0, leave_out=False).constants
    print(f"all points kept: beta {everything['beta']:.4f}, a {everything['a']:.4f}")


if __name__ == "__main__":
    main()
