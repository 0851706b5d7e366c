"""Predicted against measured on one device: probe it, measure at least 40 steps, calibrate on five, judge the others.

    python -m experiments.gpu_prediction.study [--cluster h100-sxm:1] [--sweep SWEEP.yaml]

Writes device.yaml (what the probe finds), results/measured.csv (every run), results/errors.csv and their provenance.
Stopped, the same command goes on.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.results_io import sweep, write_rows
from jaxscale.calibrate import Calibration, Run, calibration_for
from jaxscale.calibrate.held_out import timed
from jaxscale.calibrate.measured import runs_of
from jaxscale.calibrate.own_runs import refit
from jaxscale.study import Store
from jaxscale.validate import Predictions, predict

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
CALIBRATION_RUNS = 5


def probe(cluster: str) -> None:
    """Find the device's own constants, once."""
    device = FOLDER / "device.yaml"
    if not device.exists():
        subprocess.run(
            [sys.executable, "-m", "jaxscale", "probe", "--cluster", cluster, "--output", str(device)], check=True
        )


def chosen(runs: Sequence[Run]) -> list[int]:
    """Five runs spread evenly over the order of step times: chosen before any error is looked at."""
    order = np.argsort([run.step_time_s for run in runs])
    return sorted({int(order[round(place)]) for place in np.linspace(0, len(runs) - 1, CALIBRATION_RUNS)})


def rows_of(runs: Sequence[Run], before: Predictions, after: Predictions, fitted: Sequence[int]) -> list[dict]:
    """One row a run."""
    return [
        {
            "model": run.shape.name, "seq_len": run.workload.seq_len, "layout": str(run.layout),
            "calibrated_on": i in fitted, "step_time_s": f"{run.step_time_s:.6g}",
            "predicted_s": f"{before.step_time_s[i]:.6g}", "calibrated_s": f"{after.step_time_s[i]:.6g}",
            "peak_memory_bytes": f"{run.peak_memory_bytes:.6g}",
            "predicted_memory_bytes": f"{after.peak_memory_bytes[i]:.6g}",
        }
        for i, run in enumerate(runs)
    ]  # fmt: skip


def judge(runs: Sequence[Run]) -> list[dict]:
    """Calibrate on five runs and print the errors on the others."""
    fitted = chosen(runs)
    start = calibration_for(runs[0].software.stack, runs[0].chip)
    calibration = refit([runs[i] for i in fitted], start)
    before, after = _predict(runs, start), _predict(runs, calibration)
    others = np.array([i not in fitted for i in range(len(runs))])
    measured_s = np.array([run.step_time_s for run in runs])
    peaks = np.array([run.peak_memory_bytes for run in runs])
    for what, found, truth in (
        ("step time before calibration", before.step_time_s, measured_s),
        ("step time", after.step_time_s, measured_s),
        ("peak memory", after.peak_memory_bytes, peaks),
    ):
        errors = np.abs(found / truth - 1.0)[others & np.isfinite(truth)]
        if errors.size:
            median, tail = 100 * np.quantile(errors, [0.5, 0.9])
            print(f"{what}: median error {median:.1f}%, 90th percentile {tail:.1f}%, {errors.size} runs left out")
    return rows_of(runs, before, after, fitted)


def _predict(runs: Sequence[Run], calibration: Calibration) -> Predictions:
    return predict(runs, lambda _: calibration)


def main() -> None:
    """Probe, measure, calibrate, judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cluster", default="h100-sxm:1")
    parser.add_argument("--sweep", type=Path, default=FOLDER / "sweep.yaml")
    options = parser.parse_args()
    probe(options.cluster)
    store = sweep(options.sweep, RESULTS / "measured.csv")
    os.environ["JAX_PLATFORMS"] = "cpu"  # from here on it is only the fit that uses JAX
    write_rows(RESULTS / "errors.csv", judge(timed(runs_of(Store(str(store)).measurements()))))


if __name__ == "__main__":
    main()
