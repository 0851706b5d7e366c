"""Which layouts to try next: expected improvement times the probability that they run.

Several at once by the kriging believer (Ginsbourger et al. 2010, section 4.2): each next one is chosen as if those
already chosen had come out as believed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from jaxscale.study.tuning.candidates import Candidate, Trial
from jaxscale.study.tuning.surrogate import Belief

Believe = Callable[[Sequence[Trial]], Belief]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A layout to try, and the share of the best time that it is expected to save."""

    candidate: Candidate
    gain: float


def expected_gain(belief: Belief, best_log_s: float) -> np.ndarray:
    """Expected improvement of log time over the best so far, times the probability of running, [n].

    Jones, Schonlau and Welch 1998, eq. 15; a small improvement of the logarithm is a share of the time.
    """
    better = best_log_s - belief.log_s
    z = better / np.maximum(belief.deviation, 1e-12)
    return (better * norm.cdf(z) + belief.deviation * norm.pdf(z)) * belief.feasible


def choose(
    candidates: Sequence[Candidate], trials: Sequence[Trial], believe: Believe, count: int
) -> tuple[Choice, ...]:
    """Up to `count` untried layouts, the most promising first.

    Before anything has run there is no best to improve on: the fastest as predicted, by the odds that it runs.
    """
    assumed = list(trials)
    chosen: list[Choice] = []
    while len(chosen) < count:
        tried = {t.layout for t in assumed}
        open_rows = [row for row, c in enumerate(candidates) if c.layout not in tried]
        if not open_rows:
            break
        belief = believe(assumed)
        best = min((np.log(t.seconds) for t in assumed if t.seconds is not None), default=None)
        score = belief.feasible * np.exp(-belief.log_s) if best is None else expected_gain(belief, float(best))
        row = max(open_rows, key=lambda row: score[row])
        chosen.append(Choice(candidate=candidates[row], gain=1.0 if best is None else float(score[row])))
        assumed.append(Trial(layout=candidates[row].layout, seconds=float(np.exp(belief.log_s[row]))))
    return tuple(chosen)
