"""Sweeps: one network over chips, times and settings, on one or several processes, resumed after any interruption."""

from aimc_compiler.study.sweep.definition import Cell, Setting, Sweep
from aimc_compiler.study.sweep.prepare import Sources
from aimc_compiler.study.sweep.reader import read_sweep
from aimc_compiler.study.sweep.run import SweepState, run_sweep, sweep_state
from aimc_compiler.study.sweep.table import SweepResult, SweepRow, result_json

__all__ = [
    "Cell",
    "Setting",
    "Sources",
    "Sweep",
    "SweepResult",
    "SweepRow",
    "SweepState",
    "read_sweep",
    "result_json",
    "run_sweep",
    "sweep_state",
]
