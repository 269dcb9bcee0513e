"""Calibration: observing a network's activations to set the input ranges and output bounds of its tiles."""

from aimc_compiler.calibration.method import RangeMethod
from aimc_compiler.calibration.outputs import OUTPUT_METHOD, OutputObserver
from aimc_compiler.calibration.ranges import calibrate_ranges

__all__ = ["OUTPUT_METHOD", "OutputObserver", "RangeMethod", "calibrate_ranges"]
