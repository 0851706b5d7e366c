"""Fit every software stack that ships with jaxscale and write its file.

    python experiments/published/stacks.py RUNS.csv [STACK/CHIP ...]

One file for each (stack, generation of chips) that has timed runs in RUNS.csv, in `jaxscale/calibrate/stacks/`: the
same fit as `jaxscale calibrate RUNS.csv --stack S --chip C --from-priors`.
"""

import argparse
import dataclasses
import datetime
import os
from importlib import resources
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxscale.calibrate import prior_on, to_text
from jaxscale.calibrate.held_out import fit_stack, timed
from jaxscale.validate import read_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("only", nargs="*", metavar="STACK/CHIP")
    arguments = parser.parse_args()
    folder = Path(str(resources.files("jaxscale.calibrate") / "stacks"))
    runs, _ = read_runs(arguments.runs)
    keys = sorted({(run.software.stack, run.chip) for run in timed(runs)})
    for stack, chip in keys:
        if arguments.only and f"{stack}/{chip}" not in arguments.only:
            continue
        here = [run for run in runs if (run.software.stack, run.chip) == (stack, chip)]
        calibration = fit_stack(here, prior_on(stack, chip))
        provenance = dict(calibration.provenance) | {
            "fitted": datetime.date.today().isoformat(),
            "command": f"jaxscale calibrate {arguments.runs.name} --stack {stack} --chip {chip} --from-priors",
        }
        calibration = dataclasses.replace(calibration, provenance=provenance)
        (folder / f"{stack}-{chip}.yaml").write_text(to_text(calibration), encoding="utf-8")
        print(f"{stack:20s} {chip:6s} {len(here):5d} runs  held out {provenance.get('held_out')}", flush=True)


if __name__ == "__main__":
    main()
