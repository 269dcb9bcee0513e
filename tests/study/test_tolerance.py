"""Bisection on a level: monotonic metrics with known crossings, ends, and how often the interval holds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimc_compiler.study.confidence import Bootstrap
from aimc_compiler.study.tolerance import RESOLUTION, find_tolerance

BOOTSTRAP = Bootstrap(4, 0.95, seed=0)


@given(
    crossing=st.floats(1e-3, 1e3),
    start=st.floats(1e-2, 1e2),
    power=st.floats(0.5, 4.0),
)
def test_the_crossing_of_a_monotonic_metric(crossing: float, start: float, power: float) -> None:
    def score(level: float) -> tuple[float, ...]:
        return (1 - 0.01 * (level / crossing) ** power,) * 4

    found = find_tolerance(score, 0.99, start, math.inf, BOOTSTRAP)
    assert found.level == pytest.approx(crossing, rel=RESOLUTION - 1)
    below = [level for level, mean in found.measured if mean >= 0.99]
    above = [level for level, mean in found.measured if mean < 0.99]
    rounded = 1 + 1e-9
    assert max(below) <= found.level * rounded <= min(above) * rounded**2
    assert min(above) <= max(below) * RESOLUTION * rounded
    assert found.low == pytest.approx(found.level)  # all chips are alike
    assert found.high == pytest.approx(found.level)
    assert len({level for level, _ in found.measured}) == len(found.measured) < 30


def test_no_level_is_asked_twice() -> None:
    asked: list[float] = []

    def score(level: float) -> tuple[float, ...]:
        asked.append(level)
        return (1 - 0.01 * level, 1 - 0.02 * level, 1 - 0.005 * level, 1 - 0.01 * level)

    find_tolerance(score, 0.99, 0.3, 100.0, BOOTSTRAP, known={1.0: (0.99, 0.98, 0.995, 0.99)})
    assert len(asked) == len(set(asked))
    assert 1.0 not in asked


def test_what_is_tolerated_up_to_the_largest_level_has_no_end() -> None:
    found = find_tolerance(lambda level: (1.0,) * 4, 0.99, 0.1, 1.0, BOOTSTRAP)
    assert (found.level, found.low, found.high) == (math.inf, math.inf, math.inf)
    assert found.measured[-1] == (1.0, 1.0)


def test_what_is_not_tolerated_at_all() -> None:
    found = find_tolerance(lambda level: (0.5,) * 4, 0.99, 1.0, 10.0, BOOTSTRAP)
    assert found.level == found.low == found.high == 0.0


def test_one_chip_has_a_level_and_no_interval() -> None:
    found = find_tolerance(lambda level: (1 - 0.01 * level,), 0.99, 0.1, 10.0, Bootstrap(1, 0.95, seed=0))
    assert found.level == pytest.approx(1.0, rel=0.1)
    assert (found.low, found.high) == (None, None)


def test_intervals_hold_as_often_as_they_say() -> None:
    """Chips that differ in how much they lose: the mean over all chips crosses at 1."""
    bootstrap, generator = Bootstrap(10, 0.95, seed=0), np.random.default_rng(2)
    held = 0
    for _ in range(200):
        losses = 0.01 * generator.lognormal(-0.125, 0.5, 10)  # mean 0.01

        def score(level: float, losses: np.ndarray = losses) -> tuple[float, ...]:
            return tuple(1 - losses * level**2)

        found = find_tolerance(score, 0.99, 0.5, 100.0, bootstrap)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.0 <= found.high
    # A standard deviation of 1.5 %; skewed losses of ten chips hold somewhat less often than normal ones.
    assert 0.88 < held / 200 < 0.99
