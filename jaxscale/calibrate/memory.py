"""Fit of the constants of memory to what ran out of it, and to measured peaks.

A run that fitted and one that did not say on which side of the limit their peak was: with the margin
z = log(limit / predicted) / SHARPNESS, the loss is log(1 + exp(-z)) for a run that fitted and log(1 + exp(z)) for one
that ran out. A measured peak counts as log(predicted / measured) / PEAK_NOISE. Both are robust and share the priors of
`constants.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxscale.calibrate.calibration import Calibration, Fitted
from jaxscale.calibrate.fit import free_constants, maximise, objective, robust
from jaxscale.calibrate.run import Run
from jaxscale.calibrate.table import blocks, estimates, with_constants

SHARPNESS = 0.04  # of log bytes: how far from the limit the outcome is certain
PEAK_NOISE = 0.06  # of log bytes


def fit_memory(runs: Sequence[Run], start: Calibration) -> dict[str, Fitted]:
    """Constants of memory; none where no run says anything of it."""
    rows = [run for run in runs if run.outcome in ("ok", "oom")]
    if not rows:
        return {}
    peaks = np.array([run.peak_memory_bytes for run in rows])
    constants = free_constants(rows, "memory")
    if not constants:
        return {}
    table = blocks(rows, lambda run: start.stack_for(run.software))
    masks = {c.name: np.array([c.applies(run.software) for run in rows]) for c in constants}
    order = np.argsort(np.concatenate([block.rows for block in table]))
    limits = np.concatenate([block.problem.device.usable_hbm_bytes for block in table])[order]
    side = np.array([1.0 if run.outcome == "ok" else -1.0 for run in rows])
    known = np.isfinite(peaks)
    target = np.where(known, peaks, 1.0)

    def log_bytes(free: Any, xp: Any = np) -> Any:
        values = {c: c.value(free[j], xp) for j, c in enumerate(constants)}
        return xp.log(
            xp.concatenate([estimates(with_constants(b, values, masks, xp)).memory_bytes for b in table])[order]
        )

    def residuals(free: Any, weights: Any, xp: Any) -> Any:
        predicted = log_bytes(free, xp)
        margin = side * (np.log(limits) - predicted) / SHARPNESS
        outcome = robust(xp.sqrt(2.0 * xp.logaddexp(0.0, -margin) + 1e-12), xp)
        peak = known * robust((predicted - np.log(target)) / PEAK_NOISE, xp)
        return xp.concatenate([weights * outcome, weights * peak])

    goal = objective(log_bytes, residuals, constants, start)
    return maximise(goal, np.array([run.weight for run in rows])).fitted()
