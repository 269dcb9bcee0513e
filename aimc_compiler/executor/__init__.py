"""The executor: runs a network at every level, and on the virtual chip."""

from aimc_compiler.executor.device import Counts, Device, RunResult
from aimc_compiler.executor.level import run_graph, run_mapping

__all__ = ["Counts", "Device", "RunResult", "run_graph", "run_mapping"]
