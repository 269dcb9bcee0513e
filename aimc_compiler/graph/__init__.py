"""The Graph: capture, normal form, folding, partition, and lowering to the Workload."""

from aimc_compiler.graph.batch import BatchDim
from aimc_compiler.graph.capture import capture
from aimc_compiler.graph.entries import Entry, capture_entries, lower_entries
from aimc_compiler.graph.ir import BatchRule, Graph
from aimc_compiler.graph.lower import lower
from aimc_compiler.graph.matrix import MatrixModule, NormStatistics
from aimc_compiler.graph.ops import OP_COSTS, OpCost
from aimc_compiler.graph.origin import Origin
from aimc_compiler.graph.partition import Assignment, Partition, partition
from aimc_compiler.graph.presets import PRESETS
from aimc_compiler.graph.rules import Rules, load_rules
from aimc_compiler.graph.serial import graph_from_parts, graph_to_parts
from aimc_compiler.graph.serial_entries import graphs_from_parts, graphs_to_parts
from aimc_compiler.graph.support import OpSupport, Support, support_of

__all__ = [
    "OP_COSTS",
    "PRESETS",
    "Assignment",
    "BatchDim",
    "BatchRule",
    "Entry",
    "Graph",
    "MatrixModule",
    "NormStatistics",
    "OpCost",
    "OpSupport",
    "Origin",
    "Partition",
    "Rules",
    "Support",
    "capture",
    "capture_entries",
    "graph_from_parts",
    "graph_to_parts",
    "graphs_from_parts",
    "graphs_to_parts",
    "load_rules",
    "lower",
    "lower_entries",
    "partition",
    "support_of",
]
