"""Compiled kernels from integer products to converted, scaled and accumulated outputs: one fused pass.

Of each output: the sums of the digits' products, IR drop (``analog/ir_drop.py``), one Gaussian of variance
``sigma_w^2 V + sigma_out^2`` (``analog/noise.py``) from the same keyed streams as ``exact``, the converter, the
digital factors (Rasch et al., Nat. Commun. 14, 5282 (2023), Methods). Normals are made in the first-level cache, never
stored.

An effect that is off has scale 0 and reads any sum at all: it adds exactly nothing.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.in_cache import normals_of_calls, normals_of_row
from aimc_compiler.rng.philox import compiled, inlined

Floats = npt.NDArray[np.float32]
Sums = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

# Rows of the table of factors of each column, and of the constants of a block.
U, FAR, LOAD, FURTHER, POWER, QUIET, DIGITAL, FACTOR, BIAS = range(9)
IR_DROP, STEP, LEVELS, THIRD, FAR_SECOND, LOAD_SECOND, POWER_SECOND = range(7)
# Planes of sums, in the order of ``places``: of the digits of w, of w p, and of |w|.
TOP, MIDDLE, BOTTOM, FAR_TOP, FAR_BOTTOM, LOAD_TOP, LOAD_BOTTOM = range(7)
# First and last row block of an operation.
FIRST, LAST = 1, 2

_ROUNDING = np.float32(1.5 * 2**23)
_DIGIT = np.float32(2.0**-8)
_CUBIC, _SQUARE, _LINEAR = np.float32(0.05), np.float32(0.2), np.float32(0.5)


@inlined
def _dropped(
    top: np.int32, middle: np.int32, bottom: np.int32, far_top: np.int32, far_bottom: np.int32, load_top: np.int32,
    load_bottom: np.int32, third: np.float32, far_second: np.float32, load_second: np.float32, u_scale: np.float32,
    far_scale: np.float32, load_scale: np.float32, further: np.float32, ir_drop: np.float32,
) -> np.float32:  # fmt: skip
    """u after IR drop. load_scale: from the sum of loads to q; further: ir_drop j0 / n, for a block not at row 0;
    third, far_second, load_second: 1/256, or 0 where there is no third digit of w, second one of w p or of |w|."""
    u = (np.float32(top) + (np.float32(middle) + np.float32(bottom) * third) * _DIGIT) * u_scale
    far = (np.float32(far_top) + np.float32(far_bottom) * far_second) * far_scale
    q = (np.float32(load_top) + np.float32(load_bottom) * load_second) * load_scale
    share = q * (q * (q * _CUBIC - _SQUARE) + _LINEAR)
    return (u - ir_drop * share * far) - (q * further) * u


@inlined
def _converted(
    u: np.float32, high: np.int32, low: np.int32, power_second: np.float32, power_scale: np.float32,
    variance: np.float32, normal: np.float32, step: np.float32, steps: np.float32, levels: np.float32,
) -> np.float32:  # fmt: skip
    """The converter's output for u with its noise. power_second: 1/128, or 0 where x^2 has its high digit alone."""
    power = (np.float32(high) + np.float32(low) * power_second) * power_scale
    noisy = u + np.float32(np.sqrt(power + variance)) * normal
    code = min(max(noisy * steps, -levels), levels)
    return ((code + _ROUNDING) - _ROUNDING) * step


@compiled
def _place_line(target: Floats, y: Floats, factor: np.float32, bias: np.float32, part: int) -> None:
    """Accumulates outputs of one column; the last part is followed by its factor and bias."""
    if part == FIRST | LAST:
        for k in range(target.shape[0]):
            target[k] = y[k] * factor + bias
    elif part == FIRST:
        for k in range(target.shape[0]):
            target[k] = y[k]
    elif part == LAST:
        for k in range(target.shape[0]):
            target[k] = (target[k] + y[k]) * factor + bias
    else:
        for k in range(target.shape[0]):
            target[k] += y[k]


@compiled
def _place(target: Floats, y: Floats, factor: Floats, bias: Floats, part: int) -> None:
    """Accumulates a row of outputs; the last part is followed by factor and bias of each column."""
    if part == FIRST | LAST:
        for c in range(target.shape[0]):
            target[c] = y[c] * factor[c] + bias[c]
    elif part == FIRST:
        for c in range(target.shape[0]):
            target[c] = y[c]
    elif part == LAST:
        for c in range(target.shape[0]):
            target[c] = (target[c] + y[c]) * factor[c] + bias[c]
    else:
        for c in range(target.shape[0]):
            target[c] += y[c]


@compiled
def finish_rows(
    out: Floats, main: Sums, load: Sums, places: Ints, high: Sums, low: Sums, table: Floats,
    constants: Floats, keys: Words, columns: Ints, sample: int, call: int, calls: int, first_entry: int, part: int,
    scratch: Floats,
) -> None:  # fmt: skip
    """Rows of a linear layer: out (entries, columns) from entry ``first_entry`` on; sums (entries, planes * columns).

    places: the column at which each plane begins, of ``load`` those of |w|, of ``main`` the others; high, low:
    (entries, columns). Entry e is MVM ``call + e % calls`` of sample ``sample + e // calls``. keys, columns: streams
    side by side. part: FIRST overwrites out, otherwise it is added to; LAST applies factor and bias. scratch:
    (10, columns + 8).
    """
    ir_drop, step, levels = constants[IR_DROP], constants[STEP], constants[LEVELS]
    third, far_second = constants[THIRD], constants[FAR_SECOND]
    load_second, power_second = constants[LOAD_SECOND], constants[POWER_SECOND]
    steps = np.float32(1) / step
    width = out.shape[1]
    normals, line, planes, words = scratch[0], scratch[1], scratch[2:6], scratch[6:10].view(np.uint32)
    u_scale, far_scale, load_scale, further = table[U], table[FAR], table[LOAD], table[FURTHER]
    power_scale, quiet, digital = table[POWER], table[QUIET], table[DIGITAL]
    factor, bias = table[FACTOR], table[BIAS]
    for row in range(main.shape[0]):
        entry = first_entry + row
        number = np.uint64(sample) + np.uint64(entry // calls)
        normals_of_row(normals, planes, words, keys, columns, np.uint64(call + entry % calls), number)
        tops, middles, bottoms = main[row, places[TOP] :], main[row, places[MIDDLE] :], main[row, places[BOTTOM] :]
        far_tops, far_bottoms = main[row, places[FAR_TOP] :], main[row, places[FAR_BOTTOM] :]
        load_tops, load_bottoms = load[row, places[LOAD_TOP] :], load[row, places[LOAD_BOTTOM] :]
        highs, lows = high[row], low[row]
        # Two loops: a compiler proves that so many arrays do not overlap only a few at a time.
        for c in range(width):
            line[c] = _dropped(
                tops[c], middles[c], bottoms[c], far_tops[c], far_bottoms[c], load_tops[c],
                load_bottoms[c], third, far_second, load_second,
                u_scale[c], far_scale[c], load_scale[c], further[c], ir_drop,
            )  # fmt: skip
        for c in range(width):
            y = _converted(
                line[c], highs[c], lows[c], power_second, power_scale[c], quiet[c], normals[c], step, steps, levels
            )
            line[c] = y * digital[c]
        _place(out[entry], line, factor, bias, part)


@compiled
def finish_planes(
    out: Floats, main: Sums, load: Sums, places: Ints, high: Sums, low: Sums, table: Floats,
    constants: Floats, keys: Words, columns: Ints, sample: int, call: int, size: Ints, first_entry: int,
    first_column: int, shape: Ints, part: int, numbers: Words, scratch: Floats,
) -> None:  # fmt: skip
    """Planes of a convolution: out (entries, columns of all groups, height, width); sums (planes * columns, positions).

    high, low: (columns, positions); size: height and width of the output, and entries of a sample; shape: ``numbers``
    of the strip. numbers: (2, positions) and scratch: (9, positions), to work in; the rest is as in ``finish_rows``.
    """
    count = main.shape[1]
    calls, samples = numbers[0], numbers[1]
    _number(calls, samples, sample, call, size, first_entry, shape)
    normals, y, words = scratch[:4], scratch[4], scratch[5:].view(np.uint32)
    place = 0
    for stream in range(keys.shape[0]):
        for column in range(columns[stream]):
            if column & 3 == 0:
                normals_of_calls(normals, words, column >> 2, calls, samples, keys[stream])
            _finish_plane(
                y, main, load, places, high, low, table, constants, normals[column & 3], place,
                count,
            )  # fmt: skip
            _place_plane(out, y, table, first_entry, first_column, place, shape, part)
            place += 1


@compiled
def _number(calls: Words, samples: Words, sample: int, call: int, size: Ints, first_entry: int, shape: Ints) -> None:
    """The MVM and the sample at each position of a strip."""
    positions = shape[8]
    for entry in range(calls.shape[0] // positions):
        number = first_entry + entry
        mine = np.uint64(sample) + np.uint64(number // size[2])
        first = call + number % size[2] * size[0] * size[1] + shape[9] * shape[10]
        for at in range(positions):
            calls[entry * positions + at] = np.uint64(first + at)
            samples[entry * positions + at] = mine


@inlined
def _finish_plane(
    y: Floats, main: Sums, load: Sums, places: Ints, high: Sums, low: Sums, table: Floats,
    constants: Floats, normals: Floats, c: int, count: int,
) -> None:  # fmt: skip
    ir_drop, step, levels = constants[IR_DROP], constants[STEP], constants[LEVELS]
    third, far_second = constants[THIRD], constants[FAR_SECOND]
    load_second, power_second = constants[LOAD_SECOND], constants[POWER_SECOND]
    steps = np.float32(1) / step
    top, middle, bottom = main[places[TOP] + c], main[places[MIDDLE] + c], main[places[BOTTOM] + c]
    far_top, far_bottom = main[places[FAR_TOP] + c], main[places[FAR_BOTTOM] + c]
    load_top, load_bottom = load[places[LOAD_TOP] + c], load[places[LOAD_BOTTOM] + c]
    highs, lows = high[c], low[c]
    u_scale, far_scale, load_scale, further = table[U, c], table[FAR, c], table[LOAD, c], table[FURTHER, c]
    power_scale, variance, digital = table[POWER, c], table[QUIET, c], table[DIGITAL, c]
    for at in range(count):
        u = _dropped(
            top[at], middle[at], bottom[at], far_top[at], far_bottom[at], load_top[at],
            load_bottom[at], third, far_second, load_second, u_scale, far_scale, load_scale, further, ir_drop,
        )  # fmt: skip
        y[at] = (
            _converted(u, highs[at], lows[at], power_second, power_scale, variance, normals[at], step, steps, levels)
            * digital
        )


@inlined
def _place_plane(
    out: Floats, y: Floats, table: Floats, first_entry: int, first_column: int, c: int, shape: Ints, part: int
) -> None:
    """Accumulates the outputs of a column where they belong."""
    positions, start = shape[8], shape[9] * shape[10]
    for entry in range(y.shape[0] // positions):
        image = out[first_entry + entry, first_column + c].reshape(-1)
        mine = y[entry * positions : (entry + 1) * positions]
        _place_line(image[start : start + positions], mine, table[FACTOR, c], table[BIAS, c], part)
