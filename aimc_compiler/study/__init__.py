"""Studies: what a compiled network is worth over chips and times, where it breaks, what costs it most, one tile."""

from aimc_compiler.metrics import METRICS, Metric
from aimc_compiler.study.comparison import Comparison, OpComparison, compare
from aimc_compiler.study.evaluation import Evaluation, TimeResult, evaluate
from aimc_compiler.study.mvm_error import ErrorRow, MvmErrors, mvm_error
from aimc_compiler.study.recalibration import Recalibration
from aimc_compiler.study.sensitivity import sensitivity
from aimc_compiler.study.sensitivity_results import Sensitivity

__all__ = [
    "METRICS",
    "Comparison",
    "ErrorRow",
    "Evaluation",
    "Metric",
    "MvmErrors",
    "OpComparison",
    "Recalibration",
    "Sensitivity",
    "TimeResult",
    "compare",
    "evaluate",
    "mvm_error",
    "sensitivity",
]
