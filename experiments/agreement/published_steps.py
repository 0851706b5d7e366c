"""Step times assembled from compiled schedules against published TPU runs.

    python experiments/agreement/published_steps.py RUNS.csv [PART ...]

RUNS.csv is a table that `jaxscale validate` reads; of its TPU runs those are taken whose id holds one of the PARTs, or
all where none is given. Each run's layout is compiled for the slice it ran on, its schedule replayed with the prices of
the run's calibration, and the time compared with the measured one. The compiled program is jaxscale's own step, not
that of the framework that was measured: what differs between the two is in the difference. Answers are kept, so that a
second run compiles nothing.
"""

import math
import statistics
import sys
from collections.abc import Iterator

from jaxscale.aot.compile import try_compile
from jaxscale.api.compiled import assembled_time, compile_request
from jaxscale.calibrate import Run, calibration_for
from jaxscale.cost import estimate, problem
from jaxscale.types.legality import broken_rules
from jaxscale.validate.runs import read_runs

# What the published runs gave their compiler: LIBTPU_INIT_ARGS of MaxText's src/maxtext/configs/tpu/v4/22b.sh and
# src/maxtext/configs/tpu/v5e/16b.sh, the same in the scripts beside them (github.com/AI-Hypercomputer/maxtext, 2025).
FLAGS = {
    "v4": ("xla_enable_async_all_gather=true",),
    "v5e": (
        "xla_tpu_enable_data_parallel_all_reduce_opt=true",
        "xla_tpu_data_parallel_opt_different_sized_ops=true",
        "xla_tpu_enable_async_collective_fusion=true",
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
        "xla_tpu_enable_async_collective_fusion_multiple_steps=true",
        "xla_tpu_overlap_compute_collective_tc=true",
        "xla_enable_async_all_gather=true",
    ),
}


def comparable(runs: list[Run], parts: list[str]) -> Iterator[Run]:
    """Runs with a step time on TPUs whose layout jaxscale's own step can run."""
    for run in runs:
        timed = run.outcome == "ok" and math.isfinite(run.step_time_s)
        if run.cluster.chip.kind != "tpu" or not timed or (parts and not any(part in run.id for part in parts)):
            continue
        if reasons := broken_rules(run.shape, run.workload, run.layout, run.cluster.num_devices):
            print(f"{run.id}: cannot be run: {reasons[0]}", file=sys.stderr)
            continue
        yield run


def main(path: str, parts: list[str]) -> None:
    """Print one line a run, and the medians."""
    runs, _ = read_runs(path)
    errors, predicted_errors = [], []
    print(
        "| run | measured s | assembled s | error | predicted s | error | bounds of the schedule |\n" + "|---" * 7 + "|"
    )
    for run in comparable(runs, parts):
        request = compile_request(
            run.shape, run.workload, run.cluster, run.layout, flags=FLAGS.get(run.chip, ()), quick=True
        )
        step = try_compile(request)
        stack = calibration_for(run.software.stack, run.chip).stack_for(run.software)
        time = assembled_time(step, problem(run.shape, run.workload, run.cluster, stack))
        if time is None:
            print(f"{run.id}: {step.status}: {step.message[:200]}", file=sys.stderr)
            continue
        predicted_s = estimate(run.shape, run.workload, run.cluster, run.layout, stack).step_time_s
        errors.append(time.total_s / run.step_time_s - 1.0)
        predicted_errors.append(predicted_s / run.step_time_s - 1.0)
        print(
            f"| {run.id} | {run.step_time_s:.2f} | {time.total_s:.2f} | {errors[-1]:+.1%} | {predicted_s:.2f} | "
            f"{predicted_errors[-1]:+.1%} | {time.lower_s:.2f} to {time.upper_s:.2f} |",
            flush=True,
        )
    if errors:
        medians = [statistics.median(map(abs, those)) for those in (errors, predicted_errors)]
        print(f"\nmedian error of {len(errors)} runs: assembled {medians[0]:.1%}, predicted {medians[1]:.1%}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
