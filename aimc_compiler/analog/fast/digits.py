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
_ROUNDING, _ROUNDING_SINGLE = 1.5 * 2.0**52, np.float32(1.5 * 2**23)
_EDGES = np.array((*EDGES, 1e9), np.float32)
_ZERO, _127 = np.float32(0), np.float32(127)


def _summing(function: F) -> F:
    """Compiled, sums in any order: for what needs no more than a few digits."""
    options = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "nsz", "nnan"}}
    return cast(F, numba.njit(**options)(function))


@_summing
def _totals(w: Floats, positions: Floats) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Largest |w| and |w p|; sums of |w|, |w| p and |w| |p - 0.75|."""
    largest, largest_far, total, total_far, spread = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
    middle = np.float32(MIDDLE_POSITION)
    for j in range(w.shape[0]):
        size = abs(w[j])
        far = size * positions[j]
        largest = max(largest, size)
        largest_far = max(largest_far, far)
        total += size
        total_far += far
        spread += size * abs(positions[j] - middle)
    return largest, largest_far, total, total_far, spread


@_summing
def _sums(values: Floats) -> tuple[np.float32, np.float32]:
    """Sums of the positive values, and of the magnitudes of the negative ones."""
    up, down = _ZERO, _ZERO
    for j in range(values.shape[0]):
        up += max(values[j], _ZERO)
        down += max(-values[j], _ZERO)
    return up, down


@_summing
def _sum_between(values: Floats, sizes: Floats, low: np.float32, high: np.float32) -> np.float32:
    """The larger of the sums of positive and of negative values, of those whose size is from low to below high."""
    up, down = _ZERO, _ZERO
    for j in range(values.shape[0]):
        value = values[j] if (sizes[j] >= low) & (sizes[j] < high) else _ZERO
        up += max(value, _ZERO)
        down += max(-value, _ZERO)
    return max(up, down)


@_summing
def _joint(errors: Floats, w: Floats, positions: Floats, k: np.float32) -> float:
    """A bound of ``(sum e |x|) (sum w x (p - m))`` over all |x| <= 1: ``(sum max(0, +-e + k |w (p - m)|))^2 / 4k``."""
    up, down, middle = _ZERO, _ZERO, np.float32(MIDDLE_POSITION)
    for j in range(errors.shape[0]):
        scaled = k * abs(w[j]) * abs(positions[j] - middle)
        up += max(scaled + errors[j], _ZERO)
        down += max(scaled - errors[j], _ZERO)
    larger = np.float64(max(up, down))
    return larger * larger / (4 * np.float64(k))


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
def _errors_of_one(out: Floats, sizes: Floats, values: Floats, factors: Floats, step: np.float32) -> None:
    """What rounding |values| factors to one digit adds; sizes: what is rounded."""
    for j in range(out.shape[0]):
        size = abs(values[j]) * factors[j]
        sizes[j] = size
        out[j] = min((size / step + _ROUNDING_SINGLE) - _ROUNDING_SINGLE, _127) * step - size


@compiled
def _errors_of_two(out: Floats, w: Floats, step: float) -> None:
    """What rounding |w| to two digits adds."""
    for j in range(out.shape[0]):
        size = abs(np.float64(w[j]))
        out[j] = np.float32(_whole(size / step, 32639.0) * step - size)


@compiled
def measure(out: Doubles, w: Floats, positions: Floats, ones: Floats, scratch: Floats) -> None:
    """Magnitudes and rounding errors of each column. w: (columns, rows); positions: (rows,), p of the IR drop; ones.

    out: (MEASURES, columns): the largest |w|; sums over rows of |w|, |w| p, |w| |p - 0.75|; sums of |error| of w in two
    digits, of w p in one and (at most) in two; of |w| in one and in two, the larger of the sums of errors up and of
    errors down (its inputs have one sign); a bound of the product of the one-digit error of sum |w||x| and of
    sum w x (p - 0.75); the one-digit errors of |w| again, by the size of |w|. scratch: (2, rows).
    """
    errors, sizes = scratch[0], scratch[1]
    rows = w.shape[1]
    for c in range(w.shape[0]):
        largest, largest_far, total, total_far, spread = _totals(w[c], positions)
        out[STEP_W, c], out[SUM_W, c], out[SUM_FAR, c], out[SUM_SPREAD, c] = largest, total, total_far, spread
        step, far = _step(np.float64(largest), 2), _step(np.float64(largest_far), 2)
        _errors_of_two(errors, w[c], step)
        up, down = _sums(errors)
        out[OFF_W, c], out[OFF_LOAD2, c] = up + down, max(up, down)
        _errors_of_one(errors, sizes, w[c], positions, np.float32(256 * far))
        up, down = _sums(errors)
        out[OFF_FAR1, c], out[OFF_FAR2, c] = up + down, rows * far / 2
        unit = 256 * step
        _errors_of_one(errors, sizes, w[c], ones, np.float32(unit))
        up, down = _sums(errors)
        out[OFF_LOAD1, c] = max(up, down)
        for k in range(len(EDGES)):
            low, high = np.float32(_EDGES[k] * unit), np.float32(_EDGES[k + 1] * unit)
            out[BUCKETS + k, c] = _sum_between(errors, sizes, low, high)
        out[JOINT, c] = 0.0
        if spread > 0:
            out[JOINT, c] = _joint(errors, w[c], positions, np.float32(unit / 2 * rows / (3 * spread)))


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
    units of the last digits of w, w p and |w|. scratch: (2, rows).
    """
    columns = w.shape[0]
    values, whole = scratch[0], scratch[1].view(np.int32)
    for c in range(columns):
        largest, largest_far = np.float32(0), 0.0
        for j in range(w.shape[1]):
            largest = max(largest, abs(w[c, j]))
            largest_far = max(largest_far, abs(np.float64(w[c, j]) * positions[j]))
        step, step_far = _step(np.float64(largest), main), _step(largest_far, 2) * (256 if far == 1 else 1)
        step_load = _step(np.float64(largest), 2) * (256 if load == 1 else 1)
        steps[0, c], steps[1, c], steps[2, c] = step, step_far, step_load
        for j in range(w.shape[1]):
            values[j] = w[c, j]
        _split_line(out[c:], values, step, main, columns, whole)
        if far:
            for j in range(w.shape[1]):
                values[j] = np.float64(w[c, j]) * positions[j]
            _split_line(out[main * columns + c :], values, step_far, far, columns, whole)
        if load:
            for j in range(w.shape[1]):
                values[j] = abs(np.float64(w[c, j]))
            _split_line(out[(main + far) * columns + c :], values, step_load, load, columns, whole)
