"""Studies: what a compiled network is worth over chips and times."""

from aimc_compiler.study.evaluation import Evaluation, TimeResult, evaluate
from aimc_compiler.study.metric import METRICS, Metric

__all__ = ["METRICS", "Evaluation", "Metric", "TimeResult", "evaluate"]
