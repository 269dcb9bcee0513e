"""How far a mean over a few chips can be trusted: bootstrap over chips.

Chips are drawn from those that were measured, with replacement, and the statistic is taken of each draw (Efron and
Tibshirani, *An Introduction to the Bootstrap*, 1993). Percentiles of few chips are too narrow, so they are expanded to
``Phi(-sqrt(n / (n - 1)) t)``, with t the quantile of Student's distribution with n - 1 degrees of freedom (Hesterberg,
Am. Stat. 69, 371 (2015)); for the mean of normal values that is Student's interval.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from aimc_compiler.errors import DataError
from aimc_compiler.records import record
from aimc_compiler.rng import stream_key, uniforms
from aimc_compiler.study.student import student_quantile

RESAMPLES = 2000
Values = npt.NDArray[np.float64]


@record
class Estimate:
    """A mean over chips with its interval; low and high are None where one chip gives none."""

    mean: float
    low: float | None
    high: float | None


class Bootstrap:
    """Draws of ``n_chips`` chips, the same for every statistic, so that intervals of two can be compared."""

    def __init__(self, n_chips: int, confidence: float, seed: int, resamples: int = RESAMPLES) -> None:
        if not 0 < confidence < 1:
            raise DataError(f"confidence is {confidence:g}: give the share of intervals that hold, as in 0.95")
        self.n_chips, self.confidence = n_chips, confidence
        drawn = uniforms(stream_key(seed, "bootstrap", n_chips), resamples * n_chips)
        self._chips = (drawn * n_chips).astype(np.int64).clip(0, n_chips - 1).reshape(resamples, n_chips)
        self._tail = _expanded_tail(n_chips, confidence) if n_chips > 1 else 0.5

    def estimate(self, values: Sequence[float]) -> Estimate:
        """The mean of one value a chip."""
        low, high = self.interval(lambda means: means[0], [values])
        return Estimate(mean=math.fsum(values) / len(values), low=low, high=high)

    def interval(
        self, statistic: Callable[[Values], Values], rows: Sequence[Sequence[float]]
    ) -> tuple[float | None, float | None]:
        """Where a statistic of means lies. rows: each a value a chip; statistic: of the means of the rows, (rows,
        draws), one number a draw, infinite ones among them. (None, None) for one chip."""
        if self.n_chips < 2:
            return None, None
        means = np.stack([np.asarray(row, np.float64)[self._chips].mean(axis=1) for row in rows])
        found = np.sort(statistic(means))
        last = len(found) - 1
        return float(found[math.floor(self._tail * last)]), float(found[math.ceil((1 - self._tail) * last)])


def _expanded_tail(n: int, confidence: float) -> float:
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile((1 + confidence) / 2, n - 1))
