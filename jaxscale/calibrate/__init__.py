"""Measurements -> the constants of a software stack, with intervals; and the stacks that ship with the package."""

from jaxscale.calibrate.calibration import Calibration, Fitted, load_calibration, prior, shipped, shipped_named, to_text
from jaxscale.calibrate.constants import CONSTANTS, Constant
from jaxscale.calibrate.generations import calibration_for, prior_on
from jaxscale.calibrate.run import Run, Software, chip_generation

__all__ = [
    "CONSTANTS", "Calibration", "Constant", "Fitted", "Run", "Software", "calibration_for", "chip_generation", "load_calibration", "prior", "prior_on",
    "shipped", "shipped_named", "to_text",
]  # fmt: skip
