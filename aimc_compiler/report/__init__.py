"""Reports: tables and pictures for people, and the same as plain data for programs."""

from aimc_compiler.report.chip_map import chip_map
from aimc_compiler.report.evaluation import evaluation_json, evaluation_table, precision_line, repeats_line
from aimc_compiler.report.layers import counted, layer_rows, layers_table
from aimc_compiler.report.mvm_error import mvm_error_json, mvm_error_lines, mvm_error_table, plot_mvm_error
from aimc_compiler.report.summary import inspect_json, summary_table
from aimc_compiler.report.timing import (
    energy_note,
    energy_table,
    find_timing,
    resource_table,
    timing_json,
    timing_table,
)

__all__ = [
    "chip_map",
    "counted",
    "energy_note",
    "energy_table",
    "evaluation_json",
    "evaluation_table",
    "find_timing",
    "inspect_json",
    "layer_rows",
    "layers_table",
    "mvm_error_json",
    "mvm_error_lines",
    "mvm_error_table",
    "plot_mvm_error",
    "precision_line",
    "repeats_line",
    "resource_table",
    "summary_table",
    "timing_json",
    "timing_table",
]
