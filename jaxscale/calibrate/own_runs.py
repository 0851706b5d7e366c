"""A handful of one's own runs on top of known constants: changed only as far as the runs themselves prove it.

Three answers, of which the simplest is taken that no other is surely better than on runs left out:

1. nothing;
2. one factor on all times, `pace`: this cluster's clocks, cooling and drivers;
3. all constants, each free to drift by half of what is plausible of any stack.

Errors of a run that was not fitted are larger than the scatter of two identical runs, by what the formulas miss. With
few runs that is the noise to expect of each, so that constants move only as far as several runs agree.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxscale.calibrate.calibration import Calibration, Fitted
from jaxscale.calibrate.constants import Constant, constant_named
from jaxscale.calibrate.fit import NORMAL_80, maximise, times_objective
from jaxscale.calibrate.held_out import HeldOut, leave_out, stated, timed
from jaxscale.calibrate.memory import fit_memory
from jaxscale.calibrate.run import Run

MISSED = 0.05  # of log step time: what the formulas miss of a run (the shipped stacks' spread of held-out errors)
ENOUGH_BETTER = 0.95  # errors on runs left out must shrink to that, or the constants stay
SURE = 0.95  # one-sided confidence that the gain of a change is not the luck of a few runs
DRIFT = 0.5  # how far a user's cluster may lie from the shipped stack, in prior spreads
KEPT = "nothing; the constants stay as they were"


def refit(runs: Sequence[Run], start: Calibration) -> Calibration:
    """Known constants, changed as far as `runs` prove it."""
    fitted = dict(start.fitted) | fit_memory(runs, start)
    rows = timed(runs)
    if not rows:
        return stated(start, fitted, rows, None)
    goal = times_objective(rows, start, user_spreads(start), noise=MISSED)
    weights = np.array([run.weight for run in rows])
    before = goal.log_errors(goal.centres)
    kept, paced, whole = HeldOut(errors=before, folds=KEPT), paced_out(before), leave_out(rows, goal, weights)
    best = simplest(kept, paced, whole)
    if best is whole:
        fitted |= maximise(goal, weights).fitted()
    elif best is paced:
        fitted |= pace_of(before, start)
    return stated(start, fitted, rows, best)


def simplest(*answers: HeldOut) -> HeldOut:
    """The first of `answers`, ordered by what they change, that no later one is surely better than."""
    best, *others = answers
    for held in others:
        if surely_better(held.errors, best.errors):
            best = held
    return best


def surely_better(after: np.ndarray, before: np.ndarray) -> bool:
    """Whether errors on runs left out shrank, by a share of them and by more than their scatter explains."""
    from scipy.stats import t

    gain = np.abs(before) - np.abs(after)
    free = len(gain) - 1
    if free < 1:
        return False
    luck = float(t.ppf(SURE, free)) * float(np.std(gain)) / math.sqrt(free)
    return bool(np.mean(gain) > max((1.0 - ENOUGH_BETTER) * float(np.mean(np.abs(before))), luck))


def user_spreads(start: Calibration) -> Callable[[Constant], float]:
    """Priors for a user's own runs: the shipped stack, free to drift by half of what is plausible of any stack."""

    def spread(constant: Constant) -> float:
        known = start.fitted.get(constant.name)
        return min(math.hypot(known.spread, DRIFT * constant.spread), constant.spread) if known else constant.spread

    return spread


def shift(errors: np.ndarray) -> tuple[float, float]:
    """What log errors have in common, shrunk towards none, and its standard deviation.

    The posterior of a normal mean whose prior is that of the constant `pace`; the median, so that a disturbed run
    counts no more than another.
    """
    prior = _constant().spread
    noise = math.hypot(MISSED, float(np.std(errors))) / math.sqrt(len(errors))
    share = prior**2 / (prior**2 + noise**2)
    return share * float(np.median(errors)), math.sqrt(share) * noise


def paced_out(errors: np.ndarray) -> HeldOut:
    """Log errors of each run with the pace that the others tell."""
    if len(errors) < 2:
        return HeldOut(errors=errors, folds=KEPT)
    left = [error - shift(np.delete(errors, i))[0] for i, error in enumerate(errors)]
    return HeldOut(errors=np.array(left), folds="run; only the pace was fitted")


def pace_of(errors: np.ndarray, start: Calibration) -> dict[str, Fitted]:
    """The constant `pace` by log errors (predicted over measured) of known constants."""
    constant = _constant()
    common, spread = shift(errors)
    centre = constant.free(start.value(constant)) - common
    low, value, high = (constant.value(centre + side * NORMAL_80 * spread) for side in (-1.0, 0.0, 1.0))
    return {constant.name: Fitted(value=value, low=low, high=high, spread=spread)}


def _constant() -> Constant:
    found = constant_named("pace")
    assert found is not None
    return found
