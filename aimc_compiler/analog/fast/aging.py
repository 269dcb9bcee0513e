"""Compiled kernels that program, age and read the devices of a piece in one pass.

The equations are those of ``analog/state.py``, ``analog/devices.py`` and ``analog/compensation.py``, on the same keyed
streams: values agree up to float32 rounding. Nothing but the weights is stored; normals stay in the first-level cache.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.in_cache import Halves, normals_of_calls, normals_of_columns
from aimc_compiler.rng.philox import compiled, inlined, natural_log

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

# Rows of the table of fits, and their fields.
PROGRAMMING, NU_MEAN, NU_SD, Q = range(4)
SLOPE, OFFSET, LOW, HIGH, THRESHOLD, C0, C1, C2, C3 = range(9)
FIELDS = 9
# Constants of an ageing: factors of drift and of read noise at this time, and the form of Q.
LOG_TIME, GROWTH, POWER_FACTOR, POWER_EXPONENT, POWER_FLOOR, POWER_HIGH, IS_POWER = range(7)
# Constants of a reading.
CODE, IR_DROP, PER_WIRE, FIRST_ROW, READ_VARIANCE, VARIANCE, STEP, LEVELS = range(8)
# Streams of a piece, in ``keys``.
PROGRAMMED, DRIFTED, ACCUMULATED, READ_PROGRAMMED, READ_NOW = range(5)
SCRATCH_LINES = 24

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_R_MIN, _TINY = np.float32(1e-7), np.float32(1e-30)
_ROUNDING = np.float32(1.5 * 2**23)
_CUBIC, _SQUARE = np.float32(0.05), np.float32(0.2)
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504088896), np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST_EXPONENT = np.float32(-87)
_23, _127 = np.int32(23), np.int32(127)


@inlined
def exponential(x: np.float32) -> np.float32:
    """e^x for -87 < x < 87 to 1 ulp or so (polynomial of the Cephes library)."""
    whole = np.float32(x * _LOG2_E + _ROUNDING) - _ROUNDING
    f = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    p = np.float32(1.9875691500e-4) * f + np.float32(1.3981999507e-3)
    p = p * f + np.float32(8.3334519073e-3)
    p = p * f + np.float32(4.1665795894e-2)
    p = p * f + np.float32(1.6666665459e-1)
    p = p * f + np.float32(5.0000001201e-1)
    p = p * (f * f) + f + _ONE
    return p * np.int32((np.int32(whole) + _127) << _23).view(np.float32)


@inlined
def _cubic(r: np.float32, c0: np.float32, c1: np.float32, c2: np.float32, c3: np.float32) -> np.float32:
    return ((c3 * r + c2) * r + c1) * r + c0


@compiled
def _log_clip(out: Floats, r: Floats, log_r: Floats, fit: Floats) -> None:
    """A fit of ``chip/devices.py`` at each of r."""
    slope, offset, low, high, threshold = fit[SLOPE], fit[OFFSET], fit[LOW], fit[HIGH], fit[THRESHOLD]
    c0, c1, c2, c3 = fit[C0], fit[C1], fit[C2], fit[C3]
    for j in range(out.shape[0]):
        below = min(max(slope * log_r[j] + offset, low), high)
        above = _cubic(r[j], c0, c1, c2, c3)
        out[j] = below if r[j] < threshold else above


@compiled
def _power_clip(out: Floats, log_r: Floats, constants: Floats) -> None:
    """``min(factor / max(r^exponent, floor), high)``."""
    factor, exponent, floor = constants[POWER_FACTOR], constants[POWER_EXPONENT], constants[POWER_FLOOR]
    high = constants[POWER_HIGH]
    for j in range(out.shape[0]):
        out[j] = min(factor / max(exponential(exponent * log_r[j]), floor), high)


@compiled
def _program(made: Floats, r: Floats, log_r: Floats, sign: np.float32, w: Floats, draws: Floats, fit: Floats) -> None:
    """Target and programmed conductances of one polarity."""
    c0, c1, c2, c3 = fit[C0], fit[C1], fit[C2], fit[C3]
    for j in range(made.shape[0]):
        target = max(sign * w[j], _ZERO)
        r[j] = target
        log_r[j] = natural_log(max(target, _R_MIN))
        made[j] = max(target + _cubic(target, c0, c1, c2, c3) * draws[j], _ZERO)


@compiled
def _drift(g: Floats, made: Floats, mean: Floats, spread: Floats, draws: Floats, log_time: np.float32) -> None:
    for j in range(g.shape[0]):
        nu = abs(mean[j] + spread[j] * draws[j])
        g[j] = made[j] * exponential(max(-nu * log_time, _LEAST_EXPONENT))


@compiled
def _accumulate(g: Floats, relative: Floats, draws: Floats, growth: np.float32) -> None:
    for j in range(g.shape[0]):
        g[j] = max(g[j] + g[j] * relative[j] * draws[j] * growth, _ZERO)


@compiled
def _logs(out: Floats, r: Floats, least: np.float32) -> None:
    for j in range(out.shape[0]):
        out[j] = natural_log(max(r[j], least))


@inlined
def _age(
    g: Floats, made: Floats, sign: np.float32, w: Floats, draws: Floats, drift_draws: Floats, read_draws: Floats,
    fits: Floats, constants: Floats, lines: Floats,
) -> None:  # fmt: skip
    """Conductances of one polarity of a column, over g_max: as programmed, and at the time of ``constants``.

    lines: (4, at least rows), scratch.
    """
    rows = w.shape[0]
    r, log_r, first, second = lines[0, :rows], lines[1, :rows], lines[2, :rows], lines[3, :rows]
    _program(made, r, log_r, sign, w, draws, fits[PROGRAMMING])
    _log_clip(first, r, log_r, fits[NU_MEAN])
    _log_clip(second, r, log_r, fits[NU_SD])
    _drift(g, made, first, second, drift_draws, constants[LOG_TIME])
    if constants[IS_POWER] != _ZERO:
        _logs(log_r, made, _TINY)
        _power_clip(first, log_r, constants)
    else:
        _logs(log_r, made, _R_MIN)
        _log_clip(first, made, log_r, fits[Q])
    _accumulate(g, first, read_draws, constants[GROWTH])


@compiled
def _read(u: Floats, w: Floats, normals: Floats, constants: Floats) -> int:
    """Sum of the magnitudes of a column's output codes, read with one input on at a time. u: scratch."""
    code, ir_drop, per_wire, first_row = (
        constants[CODE], constants[IR_DROP], constants[PER_WIRE], constants[FIRST_ROW]
    )  # fmt: skip
    read_variance, variance, step, levels = (
        constants[READ_VARIANCE], constants[VARIANCE], constants[STEP], constants[LEVELS]
    )  # fmt: skip
    rows = w.shape[0]
    part = _ONE / np.float32(rows)
    for j in range(rows):
        near = _ONE - np.float32(np.int32(j)) * part
        value = w[j] * code
        load = abs(value)
        q = load * (np.float32(rows) * per_wire)
        share = q * (q * (q * _CUBIC - _SQUARE) + _HALF)
        value = (
            value - ir_drop * share * (value * (_ONE - near * near)) - ir_drop * (load * (first_row * per_wire)) * value
        )
        value += np.float32(np.sqrt(abs(w[j]) * read_variance + variance)) * normals[j]
        value = min(max(value / step, -levels), levels)
        u[j] = (value + _ROUNDING) - _ROUNDING
    total = 0
    for j in range(rows):
        total += int(abs(np.int32(u[j])))
    return total


@compiled
def age_columns(
    out: Floats, out_shape: tuple[int, int], sums: Ints, target: Floats, target_shape: tuple[int, int],
    shape: tuple[int, int], first: int, keys: Words, fits: Floats, constants: Floats, reading: Floats, store: bool,
    read: bool, scratch: Floats, numbers: Words,
) -> None:  # fmt: skip
    """Columns ``first`` (a multiple of 4) and on of a piece at one time.

    out: memory of the weights, written if ``store``; sums: (2, count), of the readings as programmed and now, made if
    ``read``; target: memory of the target weights; out_shape, target_shape: where column 0 of the piece begins in it,
    and the step from column to column; shape: columns and rows of the piece. scratch: (SCRATCH_LINES, rows + 8);
    numbers: (2, rows), the rows and zeros.
    """
    rows, cells = shape[1], shape[0] * shape[1]
    words, planes = scratch[:4].view(np.uint32), scratch[4:8]
    normals = scratch[8:12]
    now, then, up, down = scratch[20, :rows], scratch[21, :rows], scratch[22, :rows], scratch[23, :rows]
    for c in range(sums.shape[1]):
        start, at = target_shape[0] + (first + c) * target_shape[1], (first + c) * rows
        w = target[start : start + rows]
        for k in range(3):
            _cell_normals(scratch[12 + k], planes, words, at, rows, keys[k])
        skip = at & 3
        _age(up, now, _ONE, w, scratch[12, skip:], scratch[13, skip:], scratch[14, skip:], fits, constants, planes)
        for k in range(3):
            _cell_normals(scratch[12 + k], planes, words, cells + at, rows, keys[k])
        skip = (cells + at) & 3
        _age(down, then, -_ONE, w, scratch[12, skip:], scratch[13, skip:], scratch[14, skip:], fits, constants, planes)
        for j in range(rows):
            now[j] -= then[j]
            up[j] -= down[j]
        if store:
            start = out_shape[0] + (first + c) * out_shape[1]
            out[start : start + rows] = up
        if read:
            if c & 3 == 0:
                _reading_normals(normals, scratch[16:20], words, (first + c) >> 2, numbers, keys)
            sums[0, c] = _read(then, now, normals[c & 3], reading)
            sums[1, c] = _read(then, up, scratch[16 + (c & 3)], reading)


@inlined
def _cell_normals(out: Floats, planes: Floats, words: Halves, first: int, count: int, key: np.uint64) -> None:
    """Normals ``first`` to ``first + count`` of a piece's devices, after the ``first % 4`` before them."""
    normals_of_columns(out, planes, words, first >> 2, ((first + count + 3) >> 2) - (first >> 2), np.uint64(0),
                       np.uint64(0), key)  # fmt: skip


@inlined
def _reading_normals(programmed: Floats, now: Floats, words: Halves, block: int, numbers: Words, keys: Words) -> None:
    """Output noise of the two readings of four columns: MVM j reads row j."""
    normals_of_calls(programmed, words, block, numbers[0], numbers[1], keys[READ_PROGRAMMED])
    normals_of_calls(now, words, block, numbers[0], numbers[1], keys[READ_NOW])
