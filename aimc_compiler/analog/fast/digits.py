"""Weights as balanced 8-bit digits: fixed-point numbers whose products with 8-bit codes are exact integers.

``w = step (256 d1 + d2)``, or with a third digit, digits in [-128, 127], and a step for each column. Two kernels: one
sums up what rounding errs by, from which ``plan.py`` takes the fewest digits that suffice; one splits. ``step`` is
float32, so the digits are those of the very factor that multiplies their products back.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled, inlined

F = TypeVar("F", bound=Callable[..., Any])
Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Largest whole number of one, two and three digits. One digit is the first of two, so its unit is 256 of theirs.
_LARGEST = (0.0, 127 * 256 + 127.0, 127 * 256 + 127.0, 127 * 65536 + 127 * 256 + 127.0)
# Rows of what `measure` gives.
STEP_W, SUM_W, SUM_FAR, SUM_SPREAD, OFF_W, OFF_FAR1, OFF_FAR2, OFF_LOAD1, OFF_LOAD2, JOINT, BUCKETS = range(11)
# Weights are sorted by size in units of the load digit; the first bucket begins at 0.
EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
MEASURES = BUCKETS + len(EDGES)
MIDDLE_POSITION = 0.75
_ROUNDING = 1.5 * 2.0**52
_EDGES = np.array((*EDGES, np.inf))


def _summing(function: F) -> F:
    """Compiled, sums in any order: for what needs no more than a few digits."""
    options = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz", "nnan"}}
    return cast(F, numba.njit(**options)(function))


@_summing
def _sum(values: Doubles) -> float:
    total = 0.0
    for j in range(values.shape[0]):
        total += values[j]
    return total


@_summing
def _sums_of_signs(values: Doubles) -> float:
    """The larger of the sums of positive and of negative values."""
    up, down = 0.0, 0.0
    for j in range(values.shape[0]):
        up += max(values[j], 0.0)
        down += max(-values[j], 0.0)
    return max(up, down)


@_summing
def _sum_between(values: Doubles, sizes: Doubles, low: float, high: float) -> float:
    """As ``_sums_of_signs``, of the values whose size is from low to below high."""
    up, down = 0.0, 0.0
    for j in range(values.shape[0]):
        value = values[j] if low <= sizes[j] < high else 0.0
        up += max(value, 0.0)
        down += max(-value, 0.0)
    return max(up, down)


@_summing
def _largest(values: Doubles) -> float:
    found = 0.0
    for j in range(values.shape[0]):
        found = max(found, values[j])
    return found


@inlined
def _whole(value: float, largest: float) -> float:
    """``value`` rounded to an integer of at most ``largest``."""
    return min(max((value + _ROUNDING) - _ROUNDING, -largest), largest)


@inlined
def _step(largest: float, digits: int) -> float:
    """The float32 unit of the last digit, as a double (of two, for one digit); 1 for a column of zeros."""
    step = np.float64(np.float32(largest / _LARGEST[digits]))
    return step if step > 0 else 1.0


@compiled
def _errors(out: Doubles, values: Doubles, step: float, largest: float) -> None:
    """What rounding to multiples of ``step`` adds."""
    for j in range(out.shape[0]):
        out[j] = _whole(values[j] / step, largest) * step - values[j]


@compiled
def _magnitudes(sizes: Doubles, fars: Doubles, spreads: Doubles, w: Floats, positions: Doubles) -> None:
    for j in range(w.shape[0]):
        sizes[j] = abs(np.float64(w[j]))
        fars[j] = sizes[j] * positions[j]
        spreads[j] = sizes[j] * abs(positions[j] - MIDDLE_POSITION)


@compiled
def measure(out: Doubles, w: Floats, positions: Doubles, scratch: Doubles) -> None:
    """Magnitudes and rounding errors of each column. w: (columns, rows); positions: (rows,), p of the IR drop.

    out: (MEASURES, columns): the largest |w|; sums over rows of |w|, |w| p, |w| |p - 0.75|; sums of |error| of w in two
    digits, of w p in one and in two; of |w| in one and in two, the larger of the sums of errors up and of errors down
    (its inputs have one sign); a bound of the product of the one-digit error of sum |w||x| and of sum w x (p - 0.75);
    the one-digit errors of |w| again, by the size of |w|. scratch: (4, rows).
    """
    sizes, fars, spreads, errors = scratch[0], scratch[1], scratch[2], scratch[3]
    for c in range(w.shape[0]):
        _magnitudes(sizes, fars, spreads, w[c], positions)
        largest, largest_far = _largest(sizes), _largest(fars)
        out[STEP_W, c], out[SUM_W, c], out[SUM_FAR, c] = largest, _sum(sizes), _sum(fars)
        out[SUM_SPREAD, c] = _sum(spreads)
        step, far = _step(largest, 2), _step(largest_far, 2)
        _errors(errors, fars, 256 * far, 127.0)
        out[OFF_FAR1, c] = _sum(np.abs(errors))
        _errors(errors, fars, far, _LARGEST[2])
        out[OFF_FAR2, c] = _sum(np.abs(errors))
        _errors(errors, sizes, step, _LARGEST[2])
        out[OFF_W, c], out[OFF_LOAD2, c] = _sum(np.abs(errors)), _sums_of_signs(errors)
        _errors(errors, sizes, 256 * step, 127.0)
        out[OFF_LOAD1, c] = _sums_of_signs(errors)
        for k in range(len(EDGES)):
            out[BUCKETS + k, c] = _sum_between(errors, sizes, _EDGES[k] * 256 * step, _EDGES[k + 1] * 256 * step)
        out[JOINT, c] = _joint(errors, spreads, 128 * step, out[SUM_SPREAD, c])


@inlined
def _joint(errors: Doubles, spreads: Doubles, half: float, spread: float) -> float:
    """A bound of ``(sum e |x|) (sum b x)`` over all |x| <= 1: ``(sum max(0, e + k b))^2 / 4k`` for any k > 0."""
    if spread <= 0:
        return 0.0
    k = half * errors.shape[0] / (3 * spread)
    up, down = np.maximum(errors + k * spreads, 0.0), np.maximum(k * spreads - errors, 0.0)
    return max(_sum(up), _sum(down)) ** 2 / (4 * k)


@compiled
def _split_line(
    out: Bytes, values: Doubles, step: float, digits: int, columns: int, whole: npt.NDArray[np.int32]
) -> None:
    """A row of ``out`` for each digit, ``columns`` rows apart, the most significant first."""
    for j in range(values.shape[0]):
        whole[j] = np.int32(_whole(values[j] / step, _LARGEST[digits] if digits > 1 else 127.0))
    for digit in range(digits - 1, 0, -1):
        line = out[digit * columns]
        for j in range(values.shape[0]):
            low = np.int32(np.int32((whole[j] + np.int32(128)) & np.int32(255)) - np.int32(128))
            line[j] = low
            whole[j] = np.int32(whole[j] - low) >> np.int32(8)
    first = out[0]
    for j in range(values.shape[0]):
        first[j] = whole[j]


@compiled
def split(
    out: Bytes, steps: Floats, w: Floats, positions: Doubles, main: int, far: int, load: int, scratch: Doubles
) -> None:
    """Digits of (columns, rows) weights: ``main`` of w, ``far`` of w p, ``load`` of |w|; of each, any number or none.

    out: (columns * (main + far + load), rows), the most significant digits of each first; steps: (3, columns), the
    units of the last digits of w, w p and |w|. scratch: (4, rows).
    """
    columns = w.shape[0]
    sizes, fars, values, whole = scratch[0], scratch[1], scratch[2], scratch[3].view(np.int32)
    for c in range(columns):
        _magnitudes(sizes, fars, values, w[c], positions)
        largest, largest_far = _largest(sizes), _largest(fars)
        step, step_far = _step(largest, main), _step(largest_far, 2) * (256 if far == 1 else 1)
        step_load = _step(largest, 2) * (256 if load == 1 else 1)
        steps[0, c], steps[1, c], steps[2, c] = step, step_far, step_load
        for j in range(w.shape[1]):
            values[j] = w[c, j]
        _split_line(out[c:], values, step, main, columns, whole)
        if far:
            for j in range(w.shape[1]):
                values[j] = np.float64(w[c, j]) * positions[j]
            _split_line(out[main * columns + c :], values, step_far, far, columns, whole)
        if load:
            _split_line(out[(main + far) * columns + c :], sizes, step_load, load, columns, whole)
