"""The executor: runs a network at every level, and on the virtual chip."""

from aimc_compiler.executor.batches import as_call, run_batches
from aimc_compiler.executor.device import Counts, Device, RunResult
from aimc_compiler.executor.entry import CompiledEntry, find_entry
from aimc_compiler.executor.level import run_graph, run_mapping
from aimc_compiler.executor.on_tiles import contraction_of, matrix_on_tiles
from aimc_compiler.executor.programming import ProgrammingCost
from aimc_compiler.executor.ranges import BoundRow, InputRanges, OutputBounds, RangeRow
from aimc_compiler.executor.repeats import Repeats, price_repeats

__all__ = [
    "BoundRow",
    "CompiledEntry",
    "Counts",
    "Device",
    "InputRanges",
    "OutputBounds",
    "ProgrammingCost",
    "RangeRow",
    "Repeats",
    "RunResult",
    "as_call",
    "contraction_of",
    "find_entry",
    "matrix_on_tiles",
    "price_repeats",
    "run_batches",
    "run_graph",
    "run_mapping",
]
