"""Studies: what a compiled network is worth over chips and times, where it breaks, and how far one tile is off."""

from aimc_compiler.study.comparison import Comparison, OpComparison, compare
from aimc_compiler.study.evaluation import Evaluation, TimeResult, evaluate
from aimc_compiler.study.metric import METRICS, Metric
from aimc_compiler.study.mvm_error import ErrorRow, MvmErrors, mvm_error
from aimc_compiler.study.recalibration import Recalibration

__all__ = [
    "METRICS",
    "Comparison",
    "ErrorRow",
    "Evaluation",
    "Metric",
    "MvmErrors",
    "OpComparison",
    "Recalibration",
    "TimeResult",
    "compare",
    "evaluate",
    "mvm_error",
]
