"""Adaptive search: measure few layouts, learn where the predictor is wrong, and end at the fastest."""

from jaxscale.study.tuning.candidates import Candidate, Trial
from jaxscale.study.tuning.learned import Effect, effects
from jaxscale.study.tuning.loop import Ask, TuneResult, tune

__all__ = ["Ask", "Candidate", "Effect", "Trial", "TuneResult", "effects", "tune"]
