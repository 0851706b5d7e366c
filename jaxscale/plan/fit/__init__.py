"""Fitting scaling laws to runs of your own.

`fit` takes a loss form from `FORMS`; `isoflop` and `steplaw` are straight lines through optima (`curves`). `fit_law` is
the one call behind `jaxscale fit-law`.
"""

from jaxscale.plan.fit.engine import HUBER_ON_LOGS, LEAST_SQUARES, Fit, Residual, fit, leave_out_largest, objective_of
from jaxscale.plan.fit.forms import FORMS, Form
from jaxscale.plan.fit.report import LAW_NAMES, LawFit, fit_law
from jaxscale.plan.fit.runs import read_runs

__all__ = [
    "FORMS",
    "HUBER_ON_LOGS",
    "LAW_NAMES",
    "LEAST_SQUARES",
    "Fit",
    "Form",
    "LawFit",
    "Residual",
    "fit",
    "fit_law",
    "leave_out_largest",
    "objective_of",
    "read_runs",
]
