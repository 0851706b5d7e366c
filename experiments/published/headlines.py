"""Every published figure of a table of measured runs, in the unit in which its source prints it.

    python experiments/published/headlines.py RUNS.csv                 # which sources there are
    python experiments/published/headlines.py RUNS.csv maxtext-v5e     # the rows of one source

MFU where the source prints MFU (by its own count), else seconds per step. The constants are those that ship.
"""

import argparse
import math
from collections import Counter
from pathlib import Path

from compare import Line, show

from jaxscale.validate import predict, read_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("sources", nargs="*")
    arguments = parser.parse_args()
    runs, _ = read_runs(arguments.runs)
    timed = [run for run in runs if run.outcome == "ok" and run.step_time_s > 0]
    if not arguments.sources:
        for name, count in sorted(Counter(run.group for run in timed).items()):
            print(f"{name:24s} {count:5d} runs")
    for source in arguments.sources:
        here = [run for run in timed if run.group == source]
        if not here:
            raise SystemExit(f"no timed run of {source!r}; call without a source to see which there are")
        predictions = predict(here)
        utilised = all(math.isfinite(run.mfu_reported) for run in here)
        lines = [
            Line(
                name=f"{run.shape.name} {run.cluster.num_chips} x {run.chip} {run.id}",
                printed=run.mfu_reported if utilised else run.step_time_s,
                predicted=float(predictions.mfu[i] if utilised else predictions.step_time_s[i]),
            )
            for i, run in enumerate(here)
        ]
        show(source, "MFU" if utilised else "seconds per step", lines)


if __name__ == "__main__":
    main()
