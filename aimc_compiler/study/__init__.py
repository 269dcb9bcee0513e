"""Studies: what a compiled network is worth over chips and times, and how far one tile is off."""

from aimc_compiler.study.evaluation import Evaluation, TimeResult, evaluate
from aimc_compiler.study.metric import METRICS, Metric
from aimc_compiler.study.mvm_error import ErrorRow, MvmErrors, mvm_error
from aimc_compiler.study.recalibration import Recalibration

__all__ = [
    "METRICS",
    "ErrorRow",
    "Evaluation",
    "Metric",
    "MvmErrors",
    "Recalibration",
    "TimeResult",
    "evaluate",
    "mvm_error",
]
