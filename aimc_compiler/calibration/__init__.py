"""Calibration: observing a network's activations to set the input ranges of its tiles."""

from aimc_compiler.calibration.ranges import RangeMethod, calibrate_ranges

__all__ = ["RangeMethod", "calibrate_ranges"]
