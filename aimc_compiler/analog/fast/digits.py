"""Weights as balanced 8-bit digits: fixed-point numbers whose products with 8-bit codes are exact integers.

A weight of column i is ``w = step_i (65536 top + 256 middle + bottom)`` with digits in [-128, 127]: 24 bits on the
column's largest magnitude. The position-weighted ``w p`` of the IR drop has two digits, ``|w|`` one. ``step_i`` is
float32, so the digits are those of the very factor that multiplies their products back.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled

Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]

LARGEST_1 = 127
LARGEST_2 = 127 * 256 + 127
LARGEST_3 = 127 * 65536 + 127 * 256 + 127
U_STEP, FAR_STEP, LOAD_STEP = 0, 1, 2


@compiled
def split_digits(out: Bytes, steps: Floats, w: Floats, positions: npt.NDArray[np.float64], far: bool) -> None:
    """Digits of (columns, rows) weights. positions: (rows,), p.

    out: (columns * planes, rows), planes top, middle, bottom[, far top, far bottom], magnitude; steps: (3, columns), of
    w, w p and |w|.
    """
    columns, rows = w.shape
    last = 5 if far else 3
    for c in range(columns):
        largest, largest_far = np.float32(0), 0.0
        for j in range(rows):
            largest = max(largest, abs(w[c, j]))
        for j in range(rows):
            largest_far = max(largest_far, abs(np.float64(w[c, j]) * positions[j]))
        steps[U_STEP, c] = np.float32(largest / LARGEST_3) if largest > 0 else np.float32(1)
        steps[FAR_STEP, c] = np.float32(largest_far / LARGEST_2) if largest_far > 0 else np.float32(1)
        steps[LOAD_STEP, c] = np.float32(largest / LARGEST_1) if largest > 0 else np.float32(1)
        u_step, far_step, load_step = (
            np.float64(steps[U_STEP, c]), np.float64(steps[FAR_STEP, c]), np.float64(steps[LOAD_STEP, c])
        )  # fmt: skip
        for j in range(rows):
            value = np.float64(w[c, j])
            whole = np.int32(_held(value / u_step, LARGEST_3))
            bottom = ((whole + 128) & 255) - 128
            whole = (whole - bottom) >> 8
            middle = ((whole + 128) & 255) - 128
            out[c, j] = (whole - middle) >> 8
            out[columns + c, j] = middle
            out[2 * columns + c, j] = bottom
            out[last * columns + c, j] = np.int32(_held(abs(value) / load_step, LARGEST_1))
        if far:
            for j in range(rows):
                whole = np.int32(_held(np.float64(w[c, j]) * positions[j] / far_step, LARGEST_2))
                bottom = ((whole + 128) & 255) - 128
                out[3 * columns + c, j] = (whole - bottom) >> 8
                out[4 * columns + c, j] = bottom


_ROUNDING = 1.5 * 2.0**52


@compiled
def _held(value: float, largest: int) -> float:
    """``value`` rounded to an integer of at most ``largest``."""
    return min(max((value + _ROUNDING) - _ROUNDING, -float(largest)), float(largest))
