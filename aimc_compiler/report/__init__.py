"""Reports: tables and pictures for people, and the same as plain data for programs."""

from aimc_compiler.report.chip_map import chip_map
from aimc_compiler.report.comparison import (
    comparison_json,
    comparison_lines,
    comparison_rows,
    comparison_table,
    plot_comparison,
)
from aimc_compiler.report.entries import entries_json, entries_table
from aimc_compiler.report.evaluation import evaluation_json, evaluation_table, precision_line, repeats_line
from aimc_compiler.report.experts import mixtures_note, mixtures_text
from aimc_compiler.report.layers import counted, layer_rows
from aimc_compiler.report.layers_table import layers_table
from aimc_compiler.report.mvm_error import mvm_error_json, mvm_error_lines, mvm_error_table, plot_mvm_error
from aimc_compiler.report.summary import inspect_json, summary_table
from aimc_compiler.report.support import kind_rows, support_json, support_lines, support_table
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
    "comparison_json",
    "comparison_lines",
    "comparison_rows",
    "comparison_table",
    "counted",
    "energy_note",
    "energy_table",
    "entries_json",
    "entries_table",
    "evaluation_json",
    "evaluation_table",
    "find_timing",
    "inspect_json",
    "kind_rows",
    "layer_rows",
    "layers_table",
    "mixtures_note",
    "mixtures_text",
    "mvm_error_json",
    "mvm_error_lines",
    "mvm_error_table",
    "plot_comparison",
    "plot_mvm_error",
    "precision_line",
    "repeats_line",
    "resource_table",
    "summary_table",
    "support_json",
    "support_lines",
    "support_table",
    "timing_json",
    "timing_table",
]
