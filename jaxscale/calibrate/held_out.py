"""Fit a stack and state its error honestly: on runs that the fit has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxscale.calibrate.calibration import Calibration, Fitted
from jaxscale.calibrate.fit import NORMAL_80, Objective, maximise, times_objective
from jaxscale.calibrate.memory import fit_memory
from jaxscale.calibrate.run import Run
from jaxscale.calibrate.spread import joined, ranges_of

MOST_FOLDS = 6
FEWEST_SWEEPS = 3  # below that, folds are single runs
SMALLEST_SIGMA = 0.02
FEWEST_RUNS = 12  # below that, folds are single runs
FEWEST_OF_A_KIND = 8  # runs from which on dense models and mixtures of experts have a spread each


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Errors of log step time on runs left out of the fit, one fold at a time, [n]."""

    errors: np.ndarray
    folds: str  # what was left out together

    def sigma_log(self, of: np.ndarray) -> float:
        """Standard deviation of a normal whose central 80% interval holds 80% of the errors `of` some runs, [n]."""
        return max(float(np.quantile(np.abs(self.errors[of]), 0.8)) / NORMAL_80, SMALLEST_SIGMA)


def timed(runs: Sequence[Run]) -> list[Run]:
    """Runs whose step time was measured."""
    return [run for run in runs if run.outcome == "ok" and run.step_time_s > 0]


def fit_stack(runs: Sequence[Run], start: Calibration, *, folds: bool = True) -> Calibration:
    """Fit time and memory of one stack on one chip; with `folds` also judge it on what each fold leaves out."""
    rows = timed(runs)
    fitted = dict(start.fitted)
    held = None
    if rows:
        goal = times_objective(rows, start)
        weights = np.array([run.weight for run in rows])
        held = leave_out(rows, goal, weights) if folds else None
        fitted |= maximise(goal, weights).fitted()
    fitted |= fit_memory(runs, start)
    return stated(start, fitted, rows, held)


def stated(start: Calibration, fitted: dict[str, Fitted], rows: Sequence[Run], held: HeldOut | None) -> Calibration:
    """A calibration with its error on what was left out, where anything was."""
    sigma, experts = start.sigma_log, start.sigma_log_experts
    provenance: dict[str, Any] = {"rows": counts_by_group(rows)}
    if held is not None:
        sparse = np.array([run.shape.moe is not None for run in rows])
        apart = FEWEST_OF_A_KIND <= sparse.sum() <= len(rows) - FEWEST_OF_A_KIND
        sigma = _blend(held, sigma, ~sparse if apart else sparse >= 0)
        experts = _blend(held, experts or start.sigma_log, sparse) if apart else experts
        median, tail = np.median(np.abs(held.errors)), np.quantile(np.abs(held.errors), 0.9)
        provenance["held_out"] = {"left_out": held.folds, "median": _round(median), "p90": _round(tail)}
    return Calibration(
        stack=start.stack, chip=start.chip, fitted=fitted, sigma_log=round(sigma, 4),
        sigma_log_experts=None if experts is None else round(experts, 4),
        ranges=joined(start.ranges, ranges_of(rows)), provenance=provenance,
    )  # fmt: skip


def _blend(held: HeldOut, before: float, of: np.ndarray) -> float:
    """Few runs say little about the spread of errors: what was stated before counts as one more run."""
    prior_weight, count = 1.0, int(of.sum())
    return math.sqrt((count * held.sigma_log(of) ** 2 + prior_weight * before**2) / (count + prior_weight))


def leave_out(runs: Sequence[Run], goal: Objective, weights: np.ndarray) -> HeldOut:
    """Fit without each fold in turn and predict it."""
    labels, what = fold_labels(runs)
    errors = np.zeros(len(runs))
    for label in sorted(set(labels)):
        out = labels == label
        posterior = maximise(goal, np.where(out, 0.0, weights))
        errors[out] = goal.log_errors(posterior.free)[out]
    return HeldOut(errors=errors, folds=what)


def fold_labels(runs: Sequence[Run]) -> tuple[np.ndarray, str]:
    """Which fold each run is in: a sweep (one model on one cluster) is left out as a whole; at most six folds."""
    what, names = "sweep", [run.comparable for run in runs]
    if len(set(names)) < FEWEST_SWEEPS or len(runs) < FEWEST_RUNS:
        what, names = "run", [run.id for run in runs]
    numbers = {name: i % MOST_FOLDS for i, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names]), what


def counts_by_group(runs: Sequence[Run]) -> dict[str, int]:
    """How many runs there are of each source."""
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.group] = counts.get(run.group, 0) + 1
    return counts


def _round(value: float) -> float:
    return float(f"{value:.3g}")
