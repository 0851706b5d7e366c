"""The loop: ask for layouts, have them measured, learn, until the budget is spent or little is left to gain."""

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxscale.errors import SpecError
from jaxscale.study.tuning.acquire import Choice, choose
from jaxscale.study.tuning.candidates import Candidate, Trial
from jaxscale.study.tuning.learned import Effect, effects
from jaxscale.study.tuning.surrogate import Belief, believe
from jaxscale.types import Layout

Ask = Callable[[Sequence[Layout]], Sequence[Trial]]  # measures some layouts, in any order or at once


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """Everything that was tried, in order, and what was made of it."""

    candidates: tuple[Candidate, ...]
    trials: tuple[Trial, ...]
    num_known: int  # of the trials, those that an earlier run had left in the store
    stopped: str  # why: budget, gain, exhausted
    gain: float  # expected share of the best time that one more run would save
    effects: tuple[Effect, ...]  # what the predictor gets wrong, largest first
    belief: Belief  # of every candidate, after the last trial
    sigma_log: float  # how far the predictor was trusted: standard deviation of its log error

    @property
    def best(self) -> Trial | None:
        """The fastest trial; None where none ran."""
        timed = [t for t in self.trials if t.seconds is not None]
        return min(timed, key=lambda t: t.seconds or 0.0, default=None)

    def predicted_s(self, layout: Layout) -> float:
        """What the predictor says of a candidate."""
        return next(c.predicted_s for c in self.candidates if c.layout == layout)

    @property
    def scale(self) -> float | None:
        """Measured over predicted, at the median; None where nothing ran."""
        ratios = self._ratios()
        return statistics.median(ratios) if ratios else None

    @property
    def spread(self) -> float | None:
        """Median distance of a trial from the scale, as a share of its time."""
        ratios = self._ratios()
        centre = statistics.median(ratios) if ratios else None
        return statistics.median(abs(ratio / centre - 1.0) for ratio in ratios) if centre else None

    def _ratios(self) -> list[float]:
        return [t.seconds / self.predicted_s(t.layout) for t in self.trials if t.seconds is not None]


def tune(
    candidates: Sequence[Candidate],
    ask: Ask,
    *,
    budget_runs: int,
    min_gain: float = 0.002,
    sigma_log: float = 0.12,
    parallel: int = 1,
    known: Sequence[Trial] = (),
    on_trial: Callable[[Trial, int], None] = lambda trial, number: None,
) -> TuneResult:
    """Find the fastest of `candidates` by measuring at most `budget_runs` of them, `known` ones included.

    Stops when the best choice left is expected to save less than the share `min_gain` of the best time. `parallel`
    layouts are asked for at once. `sigma_log` is the standard deviation of the predictor's log error.
    """
    _check(candidates, budget_runs, min_gain, parallel)
    layouts = {c.layout for c in candidates}
    trials = [t for t in known if t.layout in layouts][:budget_runs]
    num_known = len(trials)
    learn = functools.partial(_believe, candidates, sigma_log)
    while True:
        count = min(parallel, max(budget_runs - len(trials), 1))
        choices = choose(candidates, trials, learn, count)
        stopped = _stop(choices, trials, budget_runs, min_gain)
        if stopped:
            break
        for trial in ask([choice.candidate.layout for choice in choices]):
            trials.append(trial)
            on_trial(trial, len(trials))
    return TuneResult(
        candidates=tuple(candidates), trials=tuple(trials), num_known=num_known, stopped=stopped,
        gain=choices[0].gain if choices else 0.0, effects=effects(candidates, trials),
        belief=learn(trials), sigma_log=sigma_log,
    )  # fmt: skip


def _believe(candidates: Sequence[Candidate], sigma_log: float, trials: Sequence[Trial]) -> Belief:
    return believe(candidates, trials, sigma_log=sigma_log)


def _stop(choices: Sequence[Choice], trials: Sequence[Trial], budget_runs: int, min_gain: float) -> str:
    if len(trials) >= budget_runs:
        return "budget"
    if not choices:
        return "exhausted"
    return "gain" if choices[0].gain < min_gain else ""


def _check(candidates: Sequence[Candidate], budget_runs: int, min_gain: float, parallel: int) -> None:
    if not candidates:
        raise SpecError("tune: there is no candidate layout; at least one is needed")
    if budget_runs < 1 or parallel < 1:
        raise SpecError(f"tune: budget_runs={budget_runs} and parallel={parallel} must each be at least 1")
    if not 0.0 <= min_gain < 1.0:
        raise SpecError(f"tune: min_gain={min_gain} must be a share from 0 to below 1")
