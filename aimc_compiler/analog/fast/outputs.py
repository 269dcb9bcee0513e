"""Compiled kernels from integer products to converted, scaled and accumulated outputs: one fused pass.

Of each output: the sums of the digits' products, IR drop (``analog/ir_drop.py``), one Gaussian of variance
``sigma_w^2 V + sigma_out^2`` (``analog/noise.py``) from the same keyed streams as ``exact``, the converter, and the digital
factors (Rasch et al., Nat. Commun. 14, 5282 (2023), Methods). Normals are made in the first-level cache, never stored.

An effect that is off has scale 0 and reads any sum at all: it adds exactly nothing.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled, inlined, normal_pair, philox_block

Floats = npt.NDArray[np.float32]
Sums = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

# Rows of the table of factors of each column, and of the constants of a block.
U, FAR, LOAD, FURTHER, POWER, DIGITAL, FACTOR, BIAS = 0, 1, 2, 3, 4, 5, 6, 7
IR_DROP, VARIANCE, STEP, LEVELS = 0, 1, 2, 3
# Planes of the main sums; where each is, in ``places``.
TOP, MIDDLE, BOTTOM, FAR_TOP, FAR_BOTTOM, LOADS = 0, 1, 2, 3, 4, 5
# First and last row block of an operation.
FIRST, LAST = 1, 2

_LOW_WORD, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDING = np.float32(1.5 * 2**23)
_DIGIT = np.float32(2.0**-8)
_128, _ZERO = np.float32(128), np.float32(0)
_CUBIC, _SQUARE, _LINEAR = np.float32(0.05), np.float32(0.2), np.float32(0.5)


@inlined
def _dropped(
    top: np.int32, middle: np.int32, bottom: np.int32, far_top: np.int32, far_bottom: np.int32, load: np.int32,
    u_scale: np.float32, far_scale: np.float32, load_scale: np.float32, further: np.float32, ir_drop: np.float32,
) -> np.float32:  # fmt: skip
    """u after IR drop. load_scale: from the sum of loads to q; further: ir_drop j0 / n, for a block not at row 0."""
    u = (np.float32(top) + (np.float32(middle) + np.float32(bottom) * _DIGIT) * _DIGIT) * u_scale
    far = (np.float32(far_top) + np.float32(far_bottom) * _DIGIT) * far_scale
    q = np.float32(load) * load_scale
    share = q * (q * (q * _CUBIC - _SQUARE) + _LINEAR)
    return (u - ir_drop * share * far) - (q * further) * u


@inlined
def _converted(
    u: np.float32, high: np.int32, low: np.int32, power_scale: np.float32, variance: np.float32, normal: np.float32,
    step: np.float32, levels: np.float32,
) -> np.float32:  # fmt: skip
    """The converter's output for u with its noise; step 0: no converter."""
    power = (np.float32(high) * _128 + np.float32(low)) * power_scale
    noisy = u + np.float32(np.sqrt(power + variance)) * normal
    code = min(max(noisy / step, -levels), levels)
    return ((code + _ROUNDING) - _ROUNDING) * step


@compiled
def finish_rows(
    out: Floats, main: Sums, places: Ints, load: Sums, load_at: int, high: Sums, low: Sums, table: Floats,
    constants: Floats, keys: Words, columns: Ints, sample: int, call: int, calls: int, first_entry: int, part: int,
    scratch: Floats,
) -> None:  # fmt: skip
    """Rows of a linear layer: out (entries, columns) from entry ``first_entry`` on; sums (entries, planes * columns).

    places: the column at which each plane of ``main`` begins; load_at: likewise of ``load``; high, low: (entries,
    columns). Entry e is MVM ``call + e % calls`` of sample ``sample + e // calls``. keys, columns: streams side by
    side. part: FIRST overwrites out, otherwise it is added to; LAST applies factor and bias. scratch: columns + 8.
    """
    ir_drop, variance, step, levels = constants[IR_DROP], constants[VARIANCE], constants[STEP], constants[LEVELS]
    top, middle, bottom, far_top, far_bottom = places[0], places[1], places[2], places[3], places[4]
    width = out.shape[1]
    for row in range(main.shape[0]):
        entry = first_entry + row
        index = np.uint64(sample) + np.uint64(entry // calls)
        _normals_of_row(scratch, keys, columns, np.uint64(call + entry % calls), index & _LOW_WORD, index >> _32)
        for c in range(width):
            u = _dropped(
                main[row, top + c], main[row, middle + c], main[row, bottom + c], main[row, far_top + c],
                main[row, far_bottom + c], load[row, load_at + c],
                table[U, c], table[FAR, c], table[LOAD, c], table[FURTHER, c], ir_drop,
            )  # fmt: skip
            y = _converted(u, high[row, c], low[row, c], table[POWER, c], variance, scratch[c], step, levels)
            y *= table[DIGITAL, c]
            scratch[c] = y if part & FIRST else out[entry, c] + y
        if part & LAST:
            for c in range(width):
                out[entry, c] = scratch[c] * table[FACTOR, c] + table[BIAS, c]
        else:
            for c in range(width):
                out[entry, c] = scratch[c]


@inlined
def _normals_of_row(
    scratch: Floats, keys: Words, columns: Ints, call: np.uint64, sample_low: np.uint64, sample_high: np.uint64
) -> None:
    """Normals of one MVM on all streams. scratch: sum of columns, and 8 to spare."""
    place = 0
    for stream in range(keys.shape[0]):
        k0, k1 = keys[stream] & _LOW_WORD, keys[stream] >> _32
        for block in range((columns[stream] + 3) >> 2):
            w0, w1, w2, w3 = philox_block((np.uint64(block), call, sample_low, sample_high), k0, k1)
            z0, z1 = normal_pair(w0, w1)
            z2, z3 = normal_pair(w2, w3)
            scratch[place + 4 * block] = z0
            scratch[place + 4 * block + 1] = z1
            scratch[place + 4 * block + 2] = z2
            scratch[place + 4 * block + 3] = z3
        place += columns[stream]


@compiled
def finish_planes(
    out: Floats, main: Sums, places: Ints, load: Sums, load_at: int, power: Sums, low_at: int, table: Floats,
    constants: Floats, keys: Words, columns: Ints, calls: Words, samples: Words, first_entry: int, first_column: int,
    shape: Ints, part: int, scratch: Floats,
) -> None:  # fmt: skip
    """Planes of a convolution: out (entries, columns of all groups, height, width); sums (planes * columns, positions).

    power: (columns, high positions then, from ``low_at`` on, low ones); calls, samples: (positions,) number of the MVM
    and of the sample at each position; shape: (positions an entry, pitch). scratch: (5, at least positions); the rest
    is as in ``finish_rows``.
    """
    count, positions, pitch = calls.shape[0], shape[0], shape[1]
    place = 0
    for stream in range(keys.shape[0]):
        k0, k1 = keys[stream] & _LOW_WORD, keys[stream] >> _32
        for column in range(columns[stream]):
            if column & 3 == 0:
                block = np.uint64(column >> 2)
                for at in range(count):
                    sample = samples[at]
                    words = (block, calls[at], sample & _LOW_WORD, sample >> _32)
                    w0, w1, w2, w3 = philox_block(words, k0, k1)
                    z0, z1 = normal_pair(w0, w1)
                    z2, z3 = normal_pair(w2, w3)
                    scratch[0, at], scratch[1, at], scratch[2, at], scratch[3, at] = z0, z1, z2, z3
            _finish_plane(
                scratch[4], main, places, load, load_at, power, low_at, table, constants, scratch[column & 3], place,
                count,
            )  # fmt: skip
            _place_plane(out, scratch[4], table, first_entry, first_column, place, count // positions, positions,
                         pitch, part)  # fmt: skip
            place += 1


@inlined
def _finish_plane(
    y: Floats, main: Sums, places: Ints, load: Sums, load_at: int, power: Sums, low_at: int, table: Floats,
    constants: Floats, normals: Floats, c: int, count: int,
) -> None:  # fmt: skip
    ir_drop, variance, step, levels = constants[IR_DROP], constants[VARIANCE], constants[STEP], constants[LEVELS]
    top, middle, bottom = main[places[0] + c], main[places[1] + c], main[places[2] + c]
    far_top, far_bottom, loads = main[places[3] + c], main[places[4] + c], load[load_at + c]
    high, low = power[c], power[c, low_at:]
    u_scale, far_scale, load_scale, further = table[U, c], table[FAR, c], table[LOAD, c], table[FURTHER, c]
    power_scale, digital = table[POWER, c], table[DIGITAL, c]
    for at in range(count):
        u = _dropped(
            top[at], middle[at], bottom[at], far_top[at], far_bottom[at], loads[at],
            u_scale, far_scale, load_scale, further, ir_drop,
        )  # fmt: skip
        y[at] = _converted(u, high[at], low[at], power_scale, variance, normals[at], step, levels) * digital


@inlined
def _place_plane(
    out: Floats, y: Floats, table: Floats, first_entry: int, first_column: int, c: int, entries: int, positions: int,
    pitch: int, part: int,
) -> None:  # fmt: skip
    """Copies the positions that are outputs to where they belong."""
    height, width = out.shape[2], out.shape[3]
    factor, bias = table[FACTOR, c], table[BIAS, c]
    for entry in range(entries):
        for row in range(height):
            at = entry * positions + row * pitch
            target = out[first_entry + entry, first_column + c, row]
            if part == FIRST | LAST:
                for k in range(width):
                    target[k] = y[at + k] * factor + bias
            elif part == FIRST:
                for k in range(width):
                    target[k] = y[at + k]
            elif part == LAST:
                for k in range(width):
                    target[k] = (target[k] + y[at + k]) * factor + bias
            else:
                for k in range(width):
                    target[k] += y[at + k]
