"""Intervals by bootstrap over chips: what is known of Student's distribution, and coverage by simulation."""

import numpy as np
import pytest

from aimc_compiler.errors import DataError
from aimc_compiler.study.confidence import Bootstrap
from aimc_compiler.study.student import student_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (24, 2.064), (1000, 1.962)]
)
def test_students_quantiles_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=0.01)


@pytest.mark.parametrize("n_chips", [5, 10, 25])
def test_intervals_of_a_mean_hold_as_often_as_they_say(n_chips: int) -> None:
    bootstrap = Bootstrap(n_chips, 0.95, seed=0)
    drawn = np.random.default_rng(1).normal(3.0, 2.0, (600, n_chips))
    found = [bootstrap.estimate(row) for row in drawn]
    held = sum(each.low <= 3.0 <= each.high for each in found if each.low is not None and each.high is not None)
    # 600 draws of 95 %: a standard deviation of 0.9 %; five chips have too few distinct draws to reach 95 %.
    assert (0.88 if n_chips == 5 else 0.92) < held / 600 < 0.98


def test_more_confidence_is_wider_and_one_chip_has_no_interval() -> None:
    values = [0.9, 0.8, 0.95, 0.85, 0.7, 0.88]
    narrow, wide = (Bootstrap(6, confidence, seed=0).estimate(values) for confidence in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high  # type: ignore[operator]
    alone = Bootstrap(1, 0.95, seed=0).estimate([0.5])
    assert (alone.mean, alone.low, alone.high) == (0.5, None, None)


def test_the_same_seed_draws_the_same_chips() -> None:
    values = [0.9, 0.8, 0.95]
    assert Bootstrap(3, 0.95, seed=4).estimate(values) == Bootstrap(3, 0.95, seed=4).estimate(values)


def test_a_confidence_that_is_none() -> None:
    with pytest.raises(DataError, match=r"confidence is 95: .* as in 0.95"):
        Bootstrap(3, 95, seed=0)
