"""Measurements -> the constants of a software stack, with intervals; and the stacks that ship with the package."""

from jaxscale.calibrate.calibration import (
    Calibration,
    Fitted,
    load_calibration,
    prior,
    shipped,
    shipped_names,
    to_text,
)
from jaxscale.calibrate.constants import CONSTANTS, Constant
from jaxscale.calibrate.generations import calibration_for, own_stack, prior_on
from jaxscale.calibrate.run import Run, Software, chip_generation

__all__ = [
    "CONSTANTS",
    "Calibration",
    "Constant",
    "Fitted",
    "Run",
    "Software",
    "calibration_for",
    "chip_generation",
    "load_calibration",
    "own_stack",
    "prior",
    "prior_on",
    "shipped",
    "shipped_names",
    "to_text",
]
