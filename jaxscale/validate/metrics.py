"""How good predictions are: errors, ranking, regret, fits or not, honesty of the intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from jaxscale.calibrate import Run
from jaxscale.validate.predict import Predictions
from jaxscale.validate.runs import Refusal

SMALLEST_SWEEP = 5  # timed runs below which a rank correlation says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Figures over some runs; NaN where there is nothing to judge. Errors are relative: predicted / measured - 1."""

    name: str
    predicted: int
    refused: int
    timed: int
    median_error: float
    p90_error: float
    bias: float  # median of the signed error
    coverage: float  # share of measured times inside the stated 80% interval
    sweeps: int
    spearman: float  # mean over sweeps
    regret: float  # mean over sweeps: how much slower the layout predicted fastest is than the fastest
    fit_rows: int  # runs known to have fitted or run out of memory
    oom_precision: float  # of runs predicted not to fit, share that ran out of memory
    oom_recall: float  # of runs that ran out of memory, share predicted not to fit
    fit_accuracy: float
    memory_rows: int  # runs whose peak was measured
    memory_error: float  # median

    def to_json(self) -> dict:
        """Plain values; null where there is nothing to judge."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def scores_by_source(runs: Sequence[Run], predictions: Predictions, refusals: Sequence[Refusal]) -> list[Scores]:
    """One row for every source in alphabetical order, then one for all."""
    groups = np.array([run.group for run in runs])
    names = sorted({*groups, *(refusal.group for refusal in refusals)})
    rows = [
        scores(name, runs, predictions, np.flatnonzero(groups == name), sum(r.group == name for r in refusals))
        for name in names
    ]
    return [*rows, scores("all", runs, predictions, np.arange(len(runs)), len(refusals))]


def scores(name: str, runs: Sequence[Run], predictions: Predictions, rows: np.ndarray, refused: int) -> Scores:
    """Judge the predictions of the runs at `rows`."""
    measured_s = np.array([runs[i].step_time_s for i in rows.tolist()])
    outcome = np.array([runs[i].outcome for i in rows.tolist()], dtype=object)
    timed = rows[(outcome == "ok") & (measured_s > 0)]
    truth = np.array([runs[i].step_time_s for i in timed.tolist()])
    error = predictions.step_time_s[timed] / truth - 1.0
    inside = (predictions.lower_s[timed] <= truth) & (truth <= predictions.upper_s[timed])
    ranks = [
        (
            rank_correlation(truth[s], predictions.step_time_s[timed][s]),
            regret(truth[s], predictions.step_time_s[timed][s]),
        )
        for s in _sweeps(runs, timed)
    ]
    judged = rows[(outcome == "ok") | (outcome == "oom")]
    oom = np.array([runs[i].outcome == "oom" for i in judged.tolist()], dtype=bool)
    flagged = ~predictions.fits[judged]
    peak = np.array([runs[i].peak_memory_bytes for i in rows.tolist()])
    known = np.isfinite(peak)
    memory_error = predictions.peak_memory_bytes[rows][known] / peak[known] - 1.0
    return Scores(
        name=name, predicted=len(rows), refused=refused, timed=len(timed),
        median_error=_median(np.abs(error)), p90_error=_quantile(np.abs(error), 0.9), bias=_median(error),
        coverage=_mean(inside), sweeps=len(ranks), spearman=_mean([r[0] for r in ranks]),
        regret=_mean([r[1] for r in ranks]), fit_rows=len(judged), oom_precision=_mean(oom[flagged]),
        oom_recall=_mean(flagged[oom]), fit_accuracy=_mean(flagged == oom), memory_rows=int(known.sum()),
        memory_error=_median(np.abs(memory_error)),
    )  # fmt: skip


def _sweeps(runs: Sequence[Run], timed: np.ndarray) -> list[np.ndarray]:
    """Places within `timed` of runs that differ in layout and kernels only."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(timed.tolist()):
        groups.setdefault((runs[row].group, runs[row].comparable), []).append(place)
    return [np.array(places) for places in groups.values() if len(places) >= SMALLEST_SWEEP]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share their mean.

    >>> ranks(np.array([10.0, 30.0, 10.0])).tolist()
    [1.5, 3.0, 1.5]
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2.0)[place]


def rank_correlation(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where either side is constant."""
    one, other = ranks(measured), ranks(predicted)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def regret(measured: np.ndarray, predicted: np.ndarray) -> float:
    """How much slower the run predicted fastest is than the fastest; ties are averaged."""
    first = predicted == predicted.min()
    return float(measured[first].mean() / measured.min() - 1.0)


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else math.nan


def _mean(values: np.ndarray | Sequence[float]) -> float:
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else math.nan
