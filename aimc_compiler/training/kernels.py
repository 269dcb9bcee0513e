"""Compiled passes of training: what stands around the products of a mini-batch, one pass over memory each.

The operations are those of ``ranges.py``, ``weights.py`` and ``aimc_compiler.analog``; torch makes them one at a time,
twenty passes that together take longer than the products. Normals are made in the first-level cache, the values that
``aimc_compiler.rng`` gives, and never stored. Rows are numbered from 0 to the end of the whole array, so no value
depends on threads. Loops are short and without branches, so that each fills the vector registers.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.in_cache import normals_of_columns
from aimc_compiler.rng.philox import compiled, inlined

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

_ONE, _ZERO = np.float32(1), np.float32(0)
#: A row of this many is worked on in parts, so that its normals stay in the cache.
PART = 2048
#: Rows of scratch, each of PART + 8, that ``disturb`` and ``finish`` work in.
SCRATCH = 12


@compiled
def drive(codes: Floats, squares: Floats, x: Floats, ranges: Floats, step: np.float32, first: int, last: int) -> None:
    """Rows ``first`` to ``last`` of inputs as codes, and their squares where there is room for them.

    codes, x: (rows, width); squares: the same or (0, width); ranges: (n,), of row ``row % n``; step: 0 for none.
    """
    for row in range(first, last):
        r, values, out = ranges[row % ranges.shape[0]], x[row], codes[row]
        if step > _ZERO:
            for c in range(values.shape[0]):
                code = np.float32(np.rint(min(max(values[c] / r, -_ONE), _ONE) / step)) * step
                out[c] = min(max(code, -_ONE), _ONE)
        else:
            for c in range(values.shape[0]):
                out[c] = min(max(values[c] / r, -_ONE), _ONE)
        if squares.shape[0] > 0:
            second = squares[row]
            for c in range(values.shape[0]):
                second[c] = out[c] * out[c]


@compiled
def drive_back(
    out: Floats, gradient: Floats, x: Floats, ranges: Floats, pull: Doubles, inside: Doubles, first: int, last: int
) -> None:
    """The gradient of inputs, and of each row what pulls at its range and how many inputs lie inside.

    out: (rows, width), filled, or (0, width); pull, inside: (rows,), filled; gradient: of the codes.
    """
    for row in range(first, last):
        r, values, given = ranges[row % ranges.shape[0]], x[row], gradient[row]
        scale = _ONE / r
        kept = np.int32(0)
        for c in range(values.shape[0]):
            kept += np.int32(abs(values[c]) < r)
        drawn = 0.0
        if kept < values.shape[0]:
            for c in range(values.shape[0]):
                if abs(values[c]) >= r:
                    behind = given[c] * scale
                    drawn += min(behind if values[c] > _ZERO else -behind, _ZERO)
        pull[row], inside[row] = drawn, kept
        if out.shape[0] > 0:
            made = out[row]
            for c in range(values.shape[0]):
                made[c] = given[c] * scale if abs(values[c]) <= r else _ZERO


@compiled
def disturb(
    noisy: Floats, magnitude: Floats, scales: Floats, weight: Floats, terms: Floats, key: np.uint64, rescale: bool,
    first: int, last: int, scratch: Floats,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last`` of weights, disturbed: W + s sign(W) (max(0, |w| + sd(|w|) xi) - |w|), w = W / s.

    noisy, magnitude, weight: (columns of the matrix, rows of the matrix); magnitude: of noisy, or (0, rows); scales:
    (columns,), s, with ``rescale`` filled first with the largest |W| of each column (1 where that is 0); terms:
    (4,), coefficients of sd, from r^0 upwards; scratch: (SCRATCH, at least PART + 8).
    """
    width = weight.shape[1]
    normals, planes, words = scratch[0], scratch[1:5], scratch[5:9].view(np.uint32)
    t0, t1, t2, t3 = terms[0], terms[1], terms[2], terms[3]
    for row in range(first, last):
        values, out = weight[row], noisy[row]
        if rescale:
            largest = _ZERO
            for c in range(width):
                largest = max(largest, abs(values[c]))
            scales[row] = largest if largest > _ZERO else _ONE
        scale, inverse = scales[row], _ONE / scales[row]
        for begin in range(0, width, PART):
            end = min(begin + PART, width)
            normals_of_columns(
                normals, planes, words, begin >> 2, (end - begin + 3) >> 2, np.uint64(0), np.uint64(row), key
            )
            part, made = values[begin:end], out[begin:end]
            for k in range(part.shape[0]):
                r = abs(part[k]) * inverse
                sd = ((t3 * r + t2) * r + t1) * r + t0
                grown = max(r + sd * normals[k], _ZERO) * scale
                sign = np.float32(part[k] > _ZERO) - np.float32(part[k] < _ZERO)
                made[k] = grown * sign
        if magnitude.shape[0] > 0:
            sizes = magnitude[row]
            for c in range(width):
                sizes[c] = abs(out[c])


@compiled
def finish(
    y: Floats, kept: Bytes, u: Floats, power: Floats, scales: Floats, ranges: Floats, per_row: bool, read: np.float32,
    output: np.float32, step: np.float32, bound: np.float32, key: np.uint64, first: int, last: int, scratch: Floats,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last`` of outputs: noise, converter, digital scale.

    y, kept, u, power: (rows, width), u and power those of normalised weights times their scale; kept: 1 where the
    converter did not clip; power: any (rows, width) where read is 0; scales, ranges: (width,), or, per_row, (n,) of row
    ``row % n``; read, output: variances; step, bound: of the converter, step 0 for none; scratch: (SCRATCH, at least
    PART + 8).
    """
    width = u.shape[1]
    normals, planes, words = scratch[0], scratch[1:5], scratch[5:9].view(np.uint32)
    inverse, factor, codes = scratch[9], scratch[10], scratch[11]
    for row in range(first, last):
        for begin in range(0, width, PART):
            end = min(begin + PART, width)
            count = end - begin
            if per_row:
                place = row % scales.shape[0]
                inverse[:count] = _ONE / scales[place]
                factor[:count] = scales[place] * ranges[place]
            else:
                inverse[:count] = _ONE / scales[begin:end]
                factor[:count] = scales[begin:end] * ranges[begin:end]
            if read > _ZERO or output > _ZERO:
                normals_of_columns(
                    normals, planes, words, begin >> 2, (count + 3) >> 2, np.uint64(0), np.uint64(row), key
                )
            else:
                normals[:count] = _ZERO
            add_noise(codes, u[row, begin:end], power[row, begin:end], inverse, normals, read, output)
            convert(y[row, begin:end], kept[row, begin:end], codes, factor, step, bound)


@inlined
def add_noise(
    codes: Floats, u: Floats, power: Floats, inverse: Floats, normals: Floats, read: np.float32, output: np.float32
) -> None:
    """Codes before the converter. All (outputs,); inverse: 1 over the columns' scales."""
    for k in range(u.shape[0]):
        variance = max(power[k] * inverse[k] * read + output, _ZERO)
        codes[k] = u[k] * inverse[k] + np.float32(np.sqrt(variance)) * normals[k]


@inlined
def convert(y: Floats, kept: Bytes, codes: Floats, factor: Floats, step: np.float32, bound: np.float32) -> None:
    """What the converter makes of ``codes``, which are changed, times ``factor``; all (outputs,)."""
    for k in range(y.shape[0]):
        kept[k] = np.uint8(abs(codes[k]) <= bound)
    if step > _ZERO:
        for k in range(y.shape[0]):
            codes[k] = np.float32(np.rint(codes[k] / step)) * step
    for k in range(y.shape[0]):
        y[k] = min(max(codes[k], -bound), bound) * factor[k]


@compiled
def finish_back(
    out: Floats, gradient: Floats, kept: Bytes, ranges: Floats, per_row: bool, first: int, last: int
) -> None:
    """The gradient of u: that of y times the range where the converter did not clip. Shapes as for ``finish``."""
    for row in range(first, last):
        made, given, marks = out[row], gradient[row], kept[row]
        if per_row:
            r = ranges[row % ranges.shape[0]]
            for c in range(made.shape[0]):
                made[c] = given[c] * (r * np.float32(marks[c]))
        else:
            for c in range(made.shape[0]):
                made[c] = given[c] * (ranges[c] * np.float32(marks[c]))
