"""How strong an effect may become: bisection on its level, all levels on the same chips.

The chips of two levels share every draw, so what differs between them is the level alone and the mean falls smoothly.
The level at which the mean crosses the threshold is found on a logarithmic scale; its interval comes from drawing chips
anew and reading off the crossing of their mean among the levels that were measured.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from aimc_compiler.records import record
from aimc_compiler.study.confidence import Bootstrap, Values

#: A value a chip at a level.
Score = Callable[[float], tuple[float, ...]]
#: The last two levels around the crossing are at most so far apart.
RESOLUTION = 1.1
_STEP = 2.0
_SMALLEST = 1e-6
#: Levels measured further out, where the interval reaches beyond those around the crossing.
_EXTENSIONS = 3


@record
class Tolerance:
    """level: where the mean crosses ``threshold``; low, high: its interval, None for one chip.

    Infinite where the mean stays above it up to the largest level measured, 0 where it is below at the smallest.
    measured: (level, mean) of every level, rising.
    """

    threshold: float
    level: float
    low: float | None
    high: float | None
    measured: tuple[tuple[float, float], ...]


def find_tolerance(
    score: Score,
    threshold: float,
    start: float,
    largest: float,
    bootstrap: Bootstrap,
    known: Mapping[float, tuple[float, ...]] | None = None,
) -> Tolerance:
    """The level at which the mean of ``score`` falls below ``threshold``.

    score: falls with its level, at 0 above the threshold; start: the first level, doubled or halved until the crossing
    is enclosed, up to ``largest`` and down to a millionth of itself; then the interval is halved. known: some levels.
    """
    measured = dict(known or {})

    def passes(level: float) -> bool:
        if level not in measured:
            measured[level] = score(level)
        return math.fsum(measured[level]) / len(measured[level]) >= threshold

    low, high = _enclose(passes, min(start, largest), largest)
    while low and high < math.inf and high / low > RESOLUTION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if passes(middle) else (low, middle)
    low_end, high_end = _interval(measured, threshold, bootstrap)
    for _ in range(_EXTENSIONS):
        count, least, most = len(measured), min(measured), max(measured)
        if low_end == 0 < low:  # some draws cross below what was measured
            passes(least / _STEP)
        if high_end == math.inf and most < largest:
            passes(min(most * _STEP, largest))
        if len(measured) == count:
            break
        low_end, high_end = _interval(measured, threshold, bootstrap)
    levels = sorted(measured)
    means = [math.fsum(measured[level]) / len(measured[level]) for level in levels]
    return Tolerance(
        threshold=threshold,
        level=float(crossings(levels, np.array(means)[:, None], threshold)[0]),
        low=low_end,
        high=high_end,
        measured=tuple(zip(levels, means, strict=True)),
    )


def _interval(
    measured: dict[float, tuple[float, ...]], threshold: float, bootstrap: Bootstrap
) -> tuple[float | None, float | None]:
    levels = sorted(measured)
    return bootstrap.interval(lambda means: crossings(levels, means, threshold), [measured[level] for level in levels])


def _enclose(passes: Callable[[float], bool], start: float, largest: float) -> tuple[float, float]:
    """(a level that passes, one that does not); 0 and infinity where none was found."""
    if passes(start):
        low, high = start, math.inf
        while low < largest and high == math.inf:
            further = min(low * _STEP, largest)
            low, high = (further, high) if passes(further) else (low, further)
        return low, high
    low, high = 0.0, start
    while not low and high > start * _SMALLEST:
        nearer = high / _STEP
        low, high = (nearer, high) if passes(nearer) else (low, nearer)
    return low, high


def crossings(levels: list[float], means: Values, threshold: float) -> Values:
    """Where each column of ``means`` first falls below the threshold, linear in the logarithm of the level.

    means: (levels, draws). Infinite where it never does, 0 where it does at the first level.
    """
    below = means < threshold
    first = below.argmax(axis=0)
    draws = np.arange(means.shape[1])
    before = np.maximum(first - 1, 0)
    upper, lower = means[before, draws], means[first, draws]
    fall = np.where(first > 0, upper - lower, 1.0)
    share = np.clip((upper - threshold) / np.where(fall > 0, fall, 1.0), 0.0, 1.0)
    logs = np.log(np.array(levels))
    found = np.exp(logs[before] + share * (logs[first] - logs[before]))
    found = np.where(first == 0, 0.0, found)
    return np.asarray(np.where(below.any(axis=0), found, np.inf), np.float64)
