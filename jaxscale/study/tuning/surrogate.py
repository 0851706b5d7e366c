"""What the trials say of the layouts that were not tried: a Gaussian process over the predictor's error.

The process models log(measured / predicted), so that the predictor is its prior mean: before any trial the order is the
predictor's, and a layout far from all trials goes back to it. A constant error, which changes no order, is a term of
its own (Rasmussen and Williams 2006, chapter 2). Whether a layout runs at all is counted among the trials near it.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from jaxscale.study.tuning.candidates import Candidate, Trial, features

OFFSET_SD = 1.0  # of a constant error: a cluster file that was never probed may be off by a factor of two or three
NOISE_SD = 0.01  # of log time: what one layout's median differs by when it is measured again
FEW_TRIALS = 5  # fewer say nothing about how far an error reaches: the kernel then stays as it was believed
PRIOR_ERRORS = 4.0  # trials that the stated error of the predictor is worth
REACH = 2.0  # doublings of a degree after which an error has mostly changed
FEASIBLE_REACH = 5.0  # doublings after which one layout says little of whether another runs
MEMORY_REACH = 0.15  # the same, of the share of a device's memory
PRIOR_FEASIBLE = 0.9  # probability that a layout runs which the predictor lets fit
PRIOR_TRIALS = 0.1  # what that is worth in trials: whether a layout runs is no matter of chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """Of every candidate: mean and standard deviation of log time, probability that it runs; each [n]."""

    log_s: np.ndarray
    deviation: np.ndarray
    feasible: np.ndarray


def believe(candidates: Sequence[Candidate], trials: Sequence[Trial], *, sigma_log: float) -> Belief:
    """Learn from `trials`, all of which must be of candidates; `sigma_log` is how far the predictor is trusted."""
    prior = {c.layout: float(np.log(c.predicted_s)) for c in candidates}
    log_prior = np.array([prior[c.layout] for c in candidates])
    points = features([c.layout for c in candidates])
    timed = [t for t in trials if t.seconds is not None]
    mean, deviation = np.zeros(len(candidates)), np.full(len(candidates), sigma_log)
    if timed:
        errors = np.array([np.log(t.seconds) - prior[t.layout] for t in timed])
        mean, deviation = _regress(features([t.layout for t in timed]), errors, points, sigma_log)
    return Belief(log_s=log_prior + mean, deviation=deviation, feasible=_feasible(candidates, trials, points))


def _regress(
    tried: np.ndarray, errors: np.ndarray, points: np.ndarray, sigma_log: float
) -> tuple[np.ndarray, np.ndarray]:
    centre, sigma_log = float(np.median(errors)), _seen_sigma(errors, sigma_log)
    kernel: Any = (
        ConstantKernel(OFFSET_SD**2, "fixed")
        + ConstantKernel(sigma_log**2, ((0.3 * sigma_log) ** 2, (3.0 * sigma_log) ** 2))
        * Matern(REACH, (0.5, 20.0), nu=2.5)
        + WhiteKernel(NOISE_SD**2, "fixed")
    )
    optimizer = "fmin_l_bfgs_b" if len(errors) >= FEW_TRIALS else None
    process = GaussianProcessRegressor(kernel, optimizer=optimizer, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is an answer too
        process.fit(tried, errors - centre)
    mean, deviation = process.predict(points, return_std=True)  # type: ignore[bad-unpacking]
    # The white term is of measuring again, not of the layout's own time.
    return mean + centre, np.sqrt(np.maximum(deviation**2 - NOISE_SD**2, 0.0))


def _seen_sigma(errors: np.ndarray, sigma_log: float) -> float:
    """How far the predictor can be trusted after some trials: what was believed counts as `PRIOR_ERRORS` of them.

    The mean of a scaled inverse chi-square posterior of the variance (Gelman et al., Bayesian Data Analysis, 2.6).
    """
    squares = PRIOR_ERRORS * sigma_log**2 + float(np.sum((errors - errors.mean()) ** 2))
    return math.sqrt(squares / (PRIOR_ERRORS + len(errors) - 1))


def _feasible(candidates: Sequence[Candidate], trials: Sequence[Trial], points: np.ndarray) -> np.ndarray:
    """Probability that each candidate runs: the rule of succession, with trials counted by how near they are.

    Near in the layout's features and in the share of memory that it needs, which is what most often decides.
    """
    memory = np.array([c.memory_frac for c in candidates])[:, None] / MEMORY_REACH
    places = np.concatenate([points / FEASIBLE_REACH, memory], axis=1)
    row_of = {c.layout: row for row, c in enumerate(candidates)}
    ran = weight = np.zeros(len(candidates))
    for trial in trials:
        nearness = np.exp(-0.5 * np.sum((places - places[row_of[trial.layout]]) ** 2, axis=1))
        weight = weight + nearness
        ran = ran + nearness * (trial.seconds is not None)
    return (PRIOR_TRIALS * PRIOR_FEASIBLE + ran) / (PRIOR_TRIALS + weight)
