"""Measure every layout of the study, one after the other in one process; what the table has is not measured again.

    python experiments/emulated_mesh/ground_truth.py [truth.csv] [--minutes 5] [--repeats 2 --every 4]

Each layout takes turns with a reference step (dense, `data=8`), since the machine's speed drifts. The table holds the
ratio, which is what counts. With JAX's persistent cache ($JAX_COMPILATION_CACHE_DIR, and
$JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0) a program is compiled once. What else runs on the machine is made to wait
where the kernel allows it.
"""

import argparse
import contextlib
import csv
import os
import statistics
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from study import CLUSTER, HERE, MODELS, WORKLOAD, layouts, model

from jaxscale.measure.pace import ratios, running_step, typical_s
from jaxscale.measure.step_child import take_devices
from jaxscale.types import parse_layout

TURNS = 7
HIGHEST_PRIORITY = -20
REFERENCE = parse_layout("data=8,microbatch_size=1,remat=none,zero=3")
COLUMNS = ("model", "layout", "ratio", "spread", "reference_s", "jax", "measured_at")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", nargs="?", default=str(HERE / "truth.csv"), type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop before the next layout after so long")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--schedule", action="append", help="only pipelines of these, and what has no pipeline as 1f1b")
    parser.add_argument("--repeats", type=int, default=1, help="measurements of each layout")
    parser.add_argument("--every", type=int, default=1, help="only each such layout")
    options = parser.parse_args()
    end = time.monotonic() + 60.0 * options.minutes
    known = Counter((row["model"], row["layout"]) for row in rows(options.table))
    come_first()
    devices = take_devices(CLUSTER.num_devices, emulated=True)
    reference = running_step(model("dense"), WORKLOAD, REFERENCE, devices)
    for name in options.model or MODELS:
        for layout in layouts(name)[:: options.every]:
            wanted = not options.schedule or layout.schedule in options.schedule
            if not wanted or known[name, str(layout)] >= options.repeats:
                continue
            if time.monotonic() > end:
                return
            reference.times_s.clear()
            found = ratios(running_step(model(name), WORKLOAD, layout, devices), reference, TURNS)
            add(options.table, name, str(layout), found, typical_s(reference))


def rows(table: Path) -> list[dict[str, str]]:
    """Rows of a table of measurements; none where there is no such file."""
    return list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []


def add(table: Path, name: str, layout: str, found: list[float], reference_s: float) -> None:
    """One row more, written as soon as it is known."""
    import jax

    ratio = statistics.median(found)
    spread = statistics.quantiles(found, n=4)[2] - statistics.quantiles(found, n=4)[0]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    is_new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow([name, layout, f"{ratio:.4f}", f"{spread:.4f}", f"{reference_s:.4f}", jax.__version__, now])
    print(f"{name} {layout} {ratio:.3f} +- {spread:.3f} of {reference_s:.4f} s", flush=True)


def come_first() -> None:
    """Let whatever else runs on this machine wait, where the kernel allows it; threads started later inherit this."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, HIGHEST_PRIORITY)
        Path("/proc/self/autogroup").write_text(str(HIGHEST_PRIORITY))  # Linux shares cores by session first


if __name__ == "__main__":
    main()
