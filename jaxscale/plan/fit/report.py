"""One call from runs to constants with intervals, whatever the law: what `jaxscale fit-law` prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxscale.errors import MeasurementError, nearest
from jaxscale.plan.fit.curves import (
    PowerLaw,
    cell_minimum,
    grid_loss_gap,
    isoflop_minima,
    near_best_runs,
    power_law,
    step_law,
)
from jaxscale.plan.fit.engine import HUBER_ON_LOGS, Fit, Residual, fit, leave_out_largest
from jaxscale.plan.fit.forms import FORMS

LAW_NAMES = (*FORMS, "isoflop", "steplaw")


@dataclass(frozen=True, slots=True, kw_only=True)
class LawFit:
    """Constants of a fitted law, with 95% bootstrap intervals and standard errors where drawn."""

    law: str
    formula: str
    source: str
    runs: int
    constants: dict[str, float]
    intervals_95: dict[str, tuple[float, float]]
    standard_errors: dict[str, float]
    rms_log_error: float
    objective: float | None = None
    leave_out: dict[str, float] = field(default_factory=dict)
    fit: Fit | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "fit"}


def fit_law(
    law: str, columns: Mapping[str, np.ndarray], *, draws: int = 200, seed: int = 0, leave_out: bool = True,
    how: Residual = HUBER_ON_LOGS,
) -> LawFit:  # fmt: skip
    """Fit a law by name to columns of runs."""
    if law in FORMS:
        return _loss_fit(law, columns, draws=draws, seed=seed, leave_out=leave_out, how=how)
    if law == "isoflop":
        return _isoflop_fit(columns, draws=draws, seed=seed)
    if law == "steplaw":
        return _step_fit(columns, draws=draws, seed=seed)
    raise MeasurementError(
        f"law={law!r} cannot be fitted; known: {', '.join(LAW_NAMES)}.{nearest(law, LAW_NAMES, count=1)}"
    )


def _loss_fit(
    law: str, columns: Mapping[str, np.ndarray], *, draws: int, seed: int, leave_out: bool, how: Residual
) -> LawFit:
    form = FORMS[law]
    result = fit(form, columns, draws=draws, seed=seed, how=how)
    names = tuple(result.constants) if draws else ()
    return LawFit(
        law=law,
        formula=form.formula,
        source=form.source,
        runs=len(columns["loss"]),
        constants=result.constants,
        intervals_95={name: result.interval(name) for name in names},
        standard_errors={name: result.standard_error(name) for name in names},
        rms_log_error=result.rms_log_error,
        objective=result.objective,
        leave_out=leave_out_largest(form, columns, how=how) if leave_out else {},
        fit=result,
    )


def _power_constants(
    prefix: str, line: PowerLaw
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, float]]:
    names = [f"{prefix}_exponent_{name}" for name in line.names]
    constants = {f"{prefix}_coefficient": line.coefficient} | dict(zip(names, line.exponents, strict=True))
    intervals = {name: line.interval(index) for index, name in enumerate(names)}
    errors = {name: float(np.std(line.bootstrap[:, 1 + index], ddof=1)) for index, name in enumerate(names)}
    return constants, intervals, errors


def _isoflop_fit(columns: Mapping[str, np.ndarray], *, draws: int, seed: int) -> LawFit:
    """Approach 2: parabola minima of each budget, then N* and D* as powers of compute."""
    minima = isoflop_minima(columns)
    params = power_law(("flops",), (minima["flops"],), minima["params"], draws=draws, seed=seed)
    tokens = power_law(("flops",), (minima["flops"],), minima["tokens"], draws=draws, seed=seed)
    return LawFit(
        law="isoflop",
        formula="N* = k C^a, D* = k' C^b at the minima of parabolas in ln N",
        source="Hoffmann et al. 2022, approach 2",
        runs=len(columns["loss"]),
        rms_log_error=params.rms_log_error,
        **_joined(_power_constants("params", params), _power_constants("tokens", tokens)),
    )


def _step_fit(columns: Mapping[str, np.ndarray], *, draws: int, seed: int) -> LawFit:
    """Learning rate and batch of near-best runs, and the loss that following the fit would cost on the same grid."""
    missing = [name for name in ("params", "tokens", "loss", "learning_rate", "batch_tokens") if name not in columns]
    if missing:
        raise MeasurementError(f"fit of steplaw: the runs have no column {', '.join(missing)}")
    rate, batch = step_law(columns, draws=draws, seed=seed)
    gaps = grid_loss_gap(columns, rate(columns["params"], columns["tokens"]), batch(columns["tokens"]))
    cells = len(np.unique(cell_minimum(columns)))
    return LawFit(
        law="steplaw",
        formula="LR = k N^p D^q, B = k' D^r over runs within 0.25% of their cell's best",
        source="Step Law (arXiv 2503.04715)",
        runs=int(near_best_runs(columns).sum()),
        rms_log_error=rate.rms_log_error,
        leave_out={
            "cells": float(cells),
            "mean_loss_gap": float(np.mean(list(gaps.values()))),
            "largest_loss_gap": max(gaps.values()),
        },
        **_joined(_power_constants("learning_rate", rate), _power_constants("batch", batch)),
    )


def _joined(*parts: tuple[dict, dict, dict]) -> dict[str, Any]:
    keys = ("constants", "intervals_95", "standard_errors")
    return {
        key: {name: value for part in parts for name, value in part[index].items()} for index, key in enumerate(keys)
    }
