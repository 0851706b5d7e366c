"""What the predictor gets wrong: which features of a layout carry its error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.study.tuning.candidates import Candidate, Trial, feature_names, features

EFFECT_SD = 0.15  # prior standard deviation of one feature's effect on log time
NOISE_SD = 0.02
SMALLEST = 0.01  # effects below one per cent are not worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Log time that a unit of a feature (a doubling of a degree, a choice made) adds to what the predictor says."""

    feature: str
    log_time: float
    deviation: float  # standard deviation of that figure
    share: float  # of the spread of the errors over the trials


def effects(candidates: Sequence[Candidate], trials: Sequence[Trial]) -> tuple[Effect, ...]:
    """A linear reading of log(measured / predicted) over the features, by Bayesian ridge regression.

    Effects share what they cannot tell apart; features that did not vary over the trials are left out.
    """
    predicted = {c.layout: c.predicted_s for c in candidates}
    timed = [t for t in trials if t.seconds is not None]
    if len(timed) < 3:
        return ()
    errors = np.log([t.seconds / predicted[t.layout] for t in timed])
    points = features([t.layout for t in timed])
    columns = np.flatnonzero(np.ptp(points, axis=0) > 0)
    if not len(columns):
        return ()
    centred = points[:, columns] - points[:, columns].mean(axis=0)
    precision = centred.T @ centred / NOISE_SD**2 + np.eye(len(columns)) / EFFECT_SD**2
    covariance = np.linalg.inv(precision)
    slopes = covariance @ centred.T @ (errors - errors.mean()) / NOISE_SD**2
    spread = np.var(centred * slopes, axis=0)
    total = max(float(spread.sum()), 1e-12)
    found = [
        Effect(
            feature=feature_names()[column], log_time=float(slope), deviation=float(deviation),
            share=float(part) / total,
        )
        for column, slope, deviation, part in zip(
            columns, slopes, np.sqrt(np.diag(covariance)), spread, strict=True
        )
        if abs(slope) >= SMALLEST
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda effect: -effect.share))
