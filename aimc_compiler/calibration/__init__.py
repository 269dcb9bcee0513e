"""Calibration: observing a network's activations to set the input ranges of its tiles."""

from aimc_compiler.calibration.ranges import InputRanges, RangeMethod, RangeRow, calibrate_ranges

__all__ = ["InputRanges", "RangeMethod", "RangeRow", "calibrate_ranges"]
