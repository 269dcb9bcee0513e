"""Confidence intervals of means by Student's t distribution, and of differences taken sample by sample."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.metrics import Metric, scores_in
from aimc_compiler.records import record
from aimc_compiler.study.student import student_quantile


@record
class Paired:
    """Difference from the float network, sample by sample. mean: over samples, of the mean over chips; ci95: its
    confidence interval, for which samples are what is drawn and the chips stay these."""

    mean: float
    ci95: tuple[float, float]


class PairedScores:
    """Keeps the score of each sample as a metric is taken: of the float network, then of every chip at every time.

    metric: the one that is to be taken; of one that is no mean over samples nothing is kept.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._scores: list[Tensor] = []
        self.metric = replace(metric, function=self._taken)

    def of(self, place: int, times: int, reference: Tensor | None = None) -> Paired | None:
        """At the time of this place among all; None where the metric is no mean over samples. reference: scores of
        another float network, (n,)."""
        if not self._scores:
            return None
        own, *chips = self._scores
        apart = (torch.stack(chips[place::times]).mean(0) - (own if reference is None else reference)).tolist()
        found = ci95_of(apart)
        return None if found is None else Paired(mean=statistics.fmean(apart), ci95=found)

    def _taken(self, outputs: Any, targets: Any) -> float | Tensor:
        found = self._metric.function(outputs, targets)
        scores = scores_in(found)
        if scores is not None:
            self._scores.append(scores)
        return found


def ci95_of(values: Sequence[float]) -> tuple[float, float] | None:
    """(low, high): the 95 % confidence interval of the mean of what ``values`` are drawn from; None for fewer than two.

    >>> ci95_of([1.0, 2.0, 3.0])  # 2 -+ 4.303 / sqrt(3)
    (-0.48413771175032..., 4.48413771175032...)
    """
    count = len(values)
    if count < 2:
        return None
    mean, half = (
        statistics.fmean(values),
        student_quantile(0.975, count - 1) * statistics.stdev(values) / math.sqrt(count),
    )
    return mean - half, mean + half
