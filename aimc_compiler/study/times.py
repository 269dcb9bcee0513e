"""Times after programming that a study was asked for."""

import math
from collections.abc import Sequence
from numbers import Real

from aimc_compiler.errors import DataError


def require_times(times_s: Sequence[float]) -> tuple[float, ...]:
    """The times as a tuple. Raises DataError where there is none, or one that is negative or not finite."""
    found = () if isinstance(times_s, str | Real) else tuple(times_s)
    if not found or not all(isinstance(time, Real) and math.isfinite(time) and time >= 0 for time in found):
        raise DataError(f"times_s is {times_s!r}: give a list of times in seconds after programming, 0 or later")
    return tuple(map(float, found))
