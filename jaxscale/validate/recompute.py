"""What a table leaves blank about recompute, inferred from the fact that the run fitted."""

import dataclasses
from collections.abc import Sequence

from jaxscale.calibrate import Run, calibration_for
from jaxscale.calibrate.table import blocks, estimates

IMPOSSIBLE = 1.5  # times the chip's memory: no constant of a software stack explains that much


def with_likely_recompute(runs: Sequence[Run], unstated: Sequence[bool]) -> list[Run]:
    """Recompute everything in runs that ran, say nothing of recompute, and could not have held all activations."""
    rows = [i for i, (run, blank) in enumerate(zip(runs, unstated, strict=True)) if blank and run.outcome == "ok"]
    changed = list(runs)
    if not rows:
        return changed
    blank_runs = [runs[i] for i in rows]
    for block in blocks(blank_runs, lambda run: calibration_for(run.software.stack, run.chip).stack_for(run.software)):
        over = estimates(block).memory_bytes / block.problem.device.usable_hbm_bytes
        for row in block.rows[over > IMPOSSIBLE].tolist():
            run = blank_runs[row]
            layout = dataclasses.replace(run.layout, remat="full")
            changed[rows[row]] = dataclasses.replace(run, layout=layout)
    return changed
