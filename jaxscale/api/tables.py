"""What is asked of tables of measured runs: validate predictions, calibrate a stack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxscale.api.result import Result
from jaxscale.calibrate import (
    CONSTANTS,
    Calibration,
    Run,
    calibration_for,
    chip_generation,
    load_calibration,
    prior_on,
    to_text,
)
from jaxscale.errors import SpecError, nearest
from jaxscale.report.kinds.calibrate import calibrate_page
from jaxscale.report.kinds.validate import validate_page
from jaxscale.report.page import Page
from jaxscale.validate import Predictions, Refusal, Scores, predict, read_runs, scores_by_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation(Result):
    """Predictions beside measured runs. `predictions` holds arrays [n] over `runs`; the last of `scores` is of all."""

    name: str
    runs: tuple[Run, ...]
    refusals: tuple[Refusal, ...]
    predictions: Predictions
    scores: tuple[Scores, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row a run: what was measured and what was predicted."""
        p = self.predictions
        return [
            {
                "id": run.id,
                "source": run.group,
                "model": run.shape.name,
                "cluster": run.cluster.name,
                "layout": str(run.layout),
                "outcome": run.outcome,
                "measured_s": run.step_time_s,
                "predicted_s": float(p.step_time_s[i]),
                "low_80_s": float(p.lower_s[i]),
                "high_80_s": float(p.upper_s[i]),
                "error": float(p.step_time_s[i]) / run.step_time_s - 1.0,
                "measured_peak_bytes": run.peak_memory_bytes,
                "predicted_peak_bytes": float(p.peak_memory_bytes[i]),
                "predicted_to_fit": bool(p.fits[i]),
                "mfu": float(p.mfu[i]),
                "constants": p.calibrations[i],
            }
            for i, run in enumerate(self.runs)
        ]

    def page(self) -> Page:
        """The report of `jaxscale validate`."""
        return validate_page(self.runs, self.predictions, self.scores, self.refusals, self.name)

    def to_json(self) -> dict[str, Any]:
        """As `jaxscale validate --json`."""
        refused = [{"id": r.id, "source": r.group, "reason": r.reason} for r in self.refusals]
        return {"scores": [row.to_json() for row in self.scores], "refused": refused}


def validate_runs(table: str | Path, *, calibrations: Sequence[str | Path | Calibration] = ()) -> Validation:
    """Predict every run of a CSV table and compare with what was measured.

    `calibrations` replace the shipped constants of their stack and chip. A row that is incomplete or contradictory is
    refused with its reason; the others go on.
    """
    runs, refusals = read_runs(table)
    predictions = predict(runs, chooser(calibrations))
    return Validation(
        name=Path(table).name, runs=tuple(runs), refusals=tuple(refusals), predictions=predictions,
        scores=tuple(scores_by_source(runs, predictions, refusals)),
    )  # fmt: skip


def chooser(calibrations: Sequence[str | Path | Calibration]) -> Callable[[Run], Calibration]:
    """Constants of a run: those given for its stack and chip, else the shipped ones."""
    given: dict[tuple[str, str], Calibration] = {}
    for item in calibrations:
        calibration = item if isinstance(item, Calibration) else load_calibration(Path(item))
        given[calibration.stack, calibration.chip] = calibration

    def choose(run: Run) -> Calibration:
        key = (run.software.stack, run.chip)
        return given.get(key) or calibration_for(*key)

    return choose


@dataclass(frozen=True, slots=True, kw_only=True)
class StackCalibration(Result):
    """A stack's constants as fitted to `runs`; `start` is what was believed before, `calibration` what is now."""

    runs: tuple[Run, ...]
    start: Calibration
    calibration: Calibration

    def rows(self) -> list[dict[str, Any]]:
        """One row for each fitted constant, with its 80% interval and what it was before."""
        fitted = self.calibration.fitted
        return [
            {
                "constant": c.name,
                "value": fitted[c.name].value,
                "low_80": fitted[c.name].low,
                "high_80": fitted[c.name].high,
                "before": self.start.value(c),
                "part": c.part,
                "prior_source": c.source,
            }
            for c in CONSTANTS
            if c.name in fitted
        ]

    def page(self) -> Page:
        """What the runs changed, and how far predictions of them are."""
        return calibrate_page(self.runs, self.calibration, self.start)

    def to_json(self) -> dict[str, Any]:
        """As `jaxscale calibrate --json`."""
        return self.calibration.to_json()

    def write_yaml(self, path: str | Path) -> Path:
        """Write the constants as the file that `--calibration` and `validate_runs` read."""
        path = Path(path)
        path.write_text(to_text(self.calibration), encoding="utf-8")
        return path


def calibrate_stack(
    table: str | Path, *, chip: str | None = None, stack: str | None = None, from_priors: bool = False
) -> StackCalibration:
    """Fit the constants of one software stack on one generation of chips to the measured runs of a CSV table.

    The shipped constants are the prior (those of nobody's runs with `from_priors`): five runs already help, and what
    they say nothing about stays as it was. Seconds to a minute; uses JAX on the CPU.
    """
    import os

    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a few hundred runs: no accelerator is worth waiting for
    from jaxscale.calibrate.held_out import fit_stack
    from jaxscale.calibrate.own_runs import refit

    runs, _ = read_runs(table)
    chosen = of_one_stack(runs, chip, stack)
    key = (chosen[0].software.stack, chosen[0].chip)
    start = prior_on(*key) if from_priors else calibration_for(*key)
    fitted = fit_stack(chosen, start) if from_priors else refit(chosen, start)
    return StackCalibration(runs=tuple(chosen), start=start, calibration=fitted)


def of_one_stack(runs: Sequence[Run], chip: str | None, stack: str | None) -> list[Run]:
    """Runs of one stack on one generation of chips; SpecError where the choice is empty or not unique."""
    chips = {run.chip for run in runs}
    wanted = chip_generation(chip) if chip else None
    if wanted is not None and wanted not in chips:
        raise SpecError(
            f"--chip={chip}: no run is on it; the runs are on {', '.join(sorted(chips))}.{nearest(wanted, chips)}"
        )
    here = [run for run in runs if wanted in (None, run.chip)]
    stacks = {run.software.stack for run in here}
    if stack is not None and stack not in stacks:
        raise SpecError(
            f"--stack={stack}: no such run; the runs are of {', '.join(sorted(stacks))}.{nearest(stack, stacks)}"
        )
    here = [run for run in here if stack in (None, run.software.stack)]
    keys = sorted({(run.software.stack, run.chip) for run in here})
    if len(keys) > 1:
        listed = ", ".join(f"{name} on {generation}" for name, generation in keys)
        raise SpecError(f"one stack on one chip is fitted at a time; choose with --stack and --chip among: {listed}")
    return here
