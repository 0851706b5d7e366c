"""Published and measured runs against predictions."""

from jaxscale.validate.metrics import Scores, scores_by_source
from jaxscale.validate.predict import Predictions, predict
from jaxscale.validate.residuals import residual_levels
from jaxscale.validate.runs import Refusal, read_runs

__all__ = ["Predictions", "Refusal", "Scores", "predict", "read_runs", "residual_levels", "scores_by_source"]
