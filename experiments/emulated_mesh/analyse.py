"""Does the loop close on an emulated mesh? Ranks, errors and regrets from the committed measurements.

    python experiments/emulated_mesh/analyse.py [--rows]

Reads `truth.csv` (every layout over a reference step, as `ground_truth.py` measured it) and `here.yaml` (what
`jaxscale probe --cluster cpu:8 --precision fp32` wrote on the same machine); runs nothing. `tune` is given the table of
measured times in place of devices. Predictions never see the table.
"""

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
from ground_truth import rows
from scipy.stats import spearmanr
from study import HERE, LIMITS, MODELS, WORKLOAD, model

from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate
from jaxscale.search import parse_limits, search
from jaxscale.study.tuning import Candidate, Trial, tune
from jaxscale.types import Layout, parse_layout

BUDGET_RUNS = 12


def measured_s() -> dict[str, dict[Layout, float]]:
    """By model and layout: its ratio to the reference, the mean of repeats, times the reference's typical seconds."""
    table = rows(HERE / "truth.csv")
    reference_s = statistics.median(float(row["reference_s"]) for row in table)
    ratios: dict[tuple[str, str], list[float]] = {}
    for row in table:
        ratios.setdefault((row["model"], row["layout"]), []).append(float(row["ratio"]))
    found: dict[str, dict[Layout, float]] = {name: {} for name in MODELS}
    for (name, layout), each in ratios.items():
        found[name][parse_layout(layout)] = reference_s * statistics.mean(each)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", action="store_true", help="every layout, measured and predicted")
    every_row = parser.parse_args().rows
    missing = [name for name in ("truth.csv", "here.yaml") if not (HERE / name).exists()]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not made yet; README.md says how")
    cluster = load_cluster(str(HERE / "here.yaml"))
    assert cluster.stack is not None, "here.yaml must hold a probed stack"
    for name, measured in measured_s().items():
        if measured:
            report(name, measured, cluster, every_row=every_row)


def report(name: str, measured: dict[Layout, float], cluster, *, every_row: bool) -> None:
    layouts = list(measured)
    truth = np.array([measured[layout] for layout in layouts])
    predicted = np.array([estimate(model(name), WORKLOAD, cluster, layout).step_time_s for layout in layouts])
    errors = predicted / truth - 1.0
    best = truth.min()
    chosen = first_choice(name, measured, cluster)
    tuned = tuned_s(layouts, measured, predicted, cluster.stack.sigma_log)
    print(f"{name}: {len(layouts)} layouts, {1e3 * best:.0f} to {1e3 * truth.max():.0f} ms")
    print(f"  rank correlation (Spearman)      {spearmanr(predicted, truth).statistic:.3f}")
    print(f"  error of the prediction, median  {_median_and_tail(errors)}; half are below {np.median(errors):+.1%}")
    print(
        f"  the same without the common part {_median_and_tail(predicted / truth / np.median(predicted / truth) - 1.0)}"
    )
    print(f"  search's choice over the best    {chosen / best - 1.0:+.1%}")
    print(f"  tune's after {BUDGET_RUNS} runs              {tuned / best - 1.0:+.1%}")
    for i in np.argsort(truth) if every_row else ():
        print(f"    {1e3 * truth[i]:6.0f} {1e3 * predicted[i]:6.0f} ms {errors[i]:+5.0%}  {layouts[i]}")


def _median_and_tail(errors: np.ndarray) -> str:
    return f"{np.median(np.abs(errors)):.1%}, 90% within {np.quantile(np.abs(errors), 0.9):.1%}"


def first_choice(name: str, measured: dict[Layout, float], cluster) -> float:
    """Measured time of the layout that `search` puts first among those that were measured."""
    found = search(model(name), WORKLOAD, cluster, limits=parse_limits(LIMITS[name]), top=1000)
    return next(measured[e.layout] for e in found.ranked if e.layout in measured)


def tuned_s(layouts: Sequence[Layout], measured: dict[Layout, float], predicted: np.ndarray, sigma_log: float) -> float:
    candidates = [Candidate(layout=layout, predicted_s=float(s)) for layout, s in zip(layouts, predicted, strict=True)]
    found = tune(
        candidates, lambda asked: [Trial(layout=layout, seconds=measured[layout]) for layout in asked],
        budget_runs=BUDGET_RUNS, min_gain=0.0, sigma_log=sigma_log,
    )  # fmt: skip
    assert found.best is not None
    assert found.best.seconds is not None
    return found.best.seconds


if __name__ == "__main__":
    main()
