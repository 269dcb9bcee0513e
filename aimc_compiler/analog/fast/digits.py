"""Weights as balanced 8-bit digits: fixed-point numbers whose products with 8-bit codes are exact integers.

``w = step (256 d1 + d2)``, or with a third digit, digits in [-128, 127], and a step for each column. Two kernels: one
sums up what each way of rounding errs by, from which ``plan.py`` takes the fewest digits that suffice; one splits.
``step`` is float32, so the digits are those of the very factor that multiplies their products back.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled, inlined

Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_LARGEST = (0, 127, 127 * 256 + 127, 127 * 65536 + 127 * 256 + 127)
# Rows of what `measure` gives.
STEP_W, STEP_FAR, SUM_W, SUM_FAR, SUM_SPREAD, OFF_W2, OFF_W3, OFF_FAR, OFF_LOAD1, OFF_LOAD2 = range(10)
MEASURES = 10
MIDDLE_POSITION = 0.75
_ROUNDING = 1.5 * 2.0**52


@inlined
def _whole(value: float, largest: float) -> float:
    """``value`` rounded to an integer of at most ``largest``."""
    return min(max((value + _ROUNDING) - _ROUNDING, -largest), largest)


@compiled
def measure(out: Doubles, w: Floats, positions: Doubles) -> None:
    """Magnitudes and rounding errors of each column. w: (columns, rows); positions: (rows,), p of the IR drop.

    out: (MEASURES, columns): the largest |w| and |w p|; sums over rows of |w|, |w| p, |w| |p - 0.75|; sums of |error|
    of w in two and three digits and of w p in two; of |w| in one digit (by itself, or as the first of two) and in two,
    the larger of the sums of errors up and of errors down (its inputs have one sign).
    """
    columns, rows = w.shape
    for c in range(columns):
        line = w[c]
        largest, largest_far = np.float32(0), 0.0
        for j in range(rows):
            largest = max(largest, abs(line[j]))
            largest_far = max(largest_far, abs(np.float64(line[j]) * positions[j]))
        out[STEP_W, c], out[STEP_FAR, c] = largest, largest_far
        w2, w3 = _step(np.float64(largest), 2), _step(np.float64(largest), 3)
        far2, load1, load2 = _step(largest_far, 2), _step(np.float64(largest), 1), 256 * _step(np.float64(largest), 2)
        total, total_far, spread, off2, off3, off_far = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        up1, down1, up2, down2, up, down = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(rows):
            value = np.float64(line[j])
            size, far = abs(value), np.float64(line[j]) * positions[j]
            total += size
            total_far += abs(far)
            spread += size * abs(positions[j] - MIDDLE_POSITION)
            off2 += abs(_whole(value / w2, 32639.0) * w2 - value)
            off3 += abs(_whole(value / w3, 8355711.0) * w3 - value)
            off_far += abs(_whole(far / far2, 32639.0) * far2 - far)
            error1 = _whole(size / load1, 127.0) * load1 - size
            error2 = _whole(size / w2, 32639.0) * w2 - size
            up1 += max(error1, 0.0)
            down1 += max(-error1, 0.0)
            up2 += max(error2, 0.0)
            down2 += max(-error2, 0.0)
            error = _whole(size / load2, 127.0) * load2 - size
            up += max(error, 0.0)
            down += max(-error, 0.0)
        out[SUM_W, c], out[SUM_FAR, c], out[SUM_SPREAD, c] = total, total_far, spread
        out[OFF_W2, c], out[OFF_W3, c], out[OFF_FAR, c] = off2, off3, off_far
        out[OFF_LOAD1, c], out[OFF_LOAD2, c] = max(up1, down1, up, down), max(up2, down2)


@inlined
def _step(largest: float, digits: int) -> float:
    """The float32 unit of the last digit, as a double; 1 for a column of zeros."""
    step = np.float64(np.float32(largest / _LARGEST[digits]))
    return step if step > 0 else 1.0


@compiled
def split(out: Bytes, steps: Floats, w: Floats, positions: Doubles, main: int, far: int, load: int) -> None:
    """Digits of (columns, rows) weights. main: digits of w (2 or 3); far: of w p (0 or 2); load: of |w| (0, 1 or 2).

    out: (columns * (main + far + load), rows), the most significant digits of each first; steps: (3, columns), the
    units of the last digits of w, w p and |w|.
    """
    columns, rows = w.shape
    for c in range(columns):
        largest, largest_far = np.float32(0), 0.0
        for j in range(rows):
            largest = max(largest, abs(w[c, j]))
            largest_far = max(largest_far, abs(np.float64(w[c, j]) * positions[j]))
        step_w, step_far, step_load = (
            _step(np.float64(largest), main),
            _step(largest_far, 2),
            _step(np.float64(largest), max(load, 1)),
        )
        steps[0, c], steps[1, c], steps[2, c] = step_w, step_far, step_load
        line = w[c]
        for j in range(rows):
            whole = np.int32(_whole(np.float64(line[j]) / step_w, np.float64(_LARGEST[main])))
            for digit in range(main - 1, 0, -1):
                low = ((whole + 128) & 255) - 128
                out[digit * columns + c, j] = low
                whole = (whole - low) >> 8
            out[c, j] = whole
        if far:
            for j in range(rows):
                whole = np.int32(_whole(np.float64(line[j]) * positions[j] / step_far, 32639.0))
                low = ((whole + 128) & 255) - 128
                out[(main + 1) * columns + c, j] = low
                out[main * columns + c, j] = (whole - low) >> 8
        if load:
            for j in range(rows):
                whole = np.int32(_whole(abs(np.float64(line[j])) / step_load, np.float64(_LARGEST[load])))
                if load > 1:
                    low = ((whole + 128) & 255) - 128
                    out[(main + far + 1) * columns + c, j] = low
                    whole = (whole - low) >> 8
                out[(main + far) * columns + c, j] = whole
