"""Times after programming that a study was asked for."""

import math
from collections.abc import Sequence

from aimc_compiler.errors import DataError


def require_times(times_s: Sequence[float]) -> tuple[float, ...]:
    """The times as a tuple. Raises DataError where there is none, or one that is negative or not finite."""
    wrong = [time for time in times_s if not (math.isfinite(time) and time >= 0)]
    if wrong or not times_s:
        raise DataError(f"times_s is {list(times_s)}: give one or more times in seconds after programming, 0 or later")
    return tuple(times_s)
