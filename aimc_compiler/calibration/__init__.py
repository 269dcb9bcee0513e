"""Calibration: observing a network's activations to set the input ranges of its tiles."""

from aimc_compiler.calibration.ranges import RangeMethod, calibrate_ranges
from aimc_compiler.executor import as_call

__all__ = ["RangeMethod", "as_call", "calibrate_ranges"]
