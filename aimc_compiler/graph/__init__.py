"""The Graph: capture, normal form, folding, partition, and lowering to the Workload."""

from aimc_compiler.graph.capture import capture
from aimc_compiler.graph.ir import BatchRule, Graph
from aimc_compiler.graph.matrix import MatrixModule, NormStatistics
from aimc_compiler.graph.ops import OP_COSTS, OpCost
from aimc_compiler.graph.origin import Origin

__all__ = ["OP_COSTS", "BatchRule", "Graph", "MatrixModule", "NormStatistics", "OpCost", "Origin", "capture"]
