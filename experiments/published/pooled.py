"""Fit what all measured stacks on GPUs share, and judge it on stacks left out.

    python experiments/published/pooled.py RUNS.csv

Writes `jaxscale/calibrate/pooled.yaml`: the constants of a stack that nobody measured. Prints, for every stack, the
error of what the others share, beside that of priors alone.
"""

import argparse
import dataclasses
import datetime
import os
from importlib import resources
from pathlib import Path

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxscale.calibrate import to_text
from jaxscale.calibrate.pooled import leave_stacks_out, measured_stacks, pooled_calibration
from jaxscale.validate import read_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    stacks = measured_stacks(read_runs(arguments.runs)[0])
    left_out = leave_stacks_out(stacks)
    print(f"{'stack':20s} {'chip':6s} {'runs':>5s} {'priors':>16s} {'other stacks':>16s}   median, 90th percentile")
    for key, measured in stacks.items():
        columns = [_figures(errors) for errors in (measured.goal.log_errors(measured.goal.centres), left_out[key])]
        print(f"{key[0]:20s} {key[1]:6s} {len(measured.runs):5d} {columns[0]:>16s} {columns[1]:>16s}")
    calibration = pooled_calibration(stacks, left_out)
    provenance = dict(calibration.provenance) | {
        "fitted": datetime.date.today().isoformat(),
        "command": f"python experiments/published/pooled.py {arguments.runs.name}",
    }
    path = Path(str(resources.files("jaxscale.calibrate") / "pooled.yaml"))
    path.write_text(to_text(dataclasses.replace(calibration, provenance=provenance)), encoding="utf-8")
    print(f"held out {provenance['held_out']}, 80% of errors within a factor of exp(1.28 x {calibration.sigma_log})")


def _figures(errors: np.ndarray) -> str:
    """Median and 90th percentile of absolute log errors."""
    return f"{np.median(np.abs(errors)):.1%} {np.quantile(np.abs(errors), 0.9):.1%}"


if __name__ == "__main__":
    main()
