"""The training step run for real: small twins on emulated devices, and measurements on whatever devices are there."""

from jaxscale.measure.shrink import Twin, shrink
from jaxscale.measure.step import measure
from jaxscale.measure.twin import TwinResult, run_twin

__all__ = ["Twin", "TwinResult", "measure", "run_twin", "shrink"]
