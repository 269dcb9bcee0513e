"""Compiled passes of training: what stands around the products of a mini-batch, one pass over memory each.

The operations are those of ``ranges.py``, ``weights.py`` and ``aimc_compiler.analog`` in the same order and the same
float32; torch makes them one at a time, twenty passes that together take longer than the products. Normals are made in
the first-level cache, the values that ``aimc_compiler.rng`` gives, and never stored. Rows are numbered from 0 to the end
of the whole array, so no value depends on threads.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.in_cache import normals_of_columns
from aimc_compiler.rng.philox import compiled

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

_ONE, _ZERO = np.float32(1), np.float32(0)
#: A row of this many is worked on in parts, so that its normals stay in the cache.
PART = 2048


@compiled
def drive(codes: Floats, squares: Floats, x: Floats, ranges: Floats, step: np.float32, first: int, last: int) -> None:
    """Rows ``first`` to ``last`` of inputs as codes, and their squares where there is room for them.

    codes, x: (rows, width); squares: the same or (0, width); ranges: (rows,) or (1,), of each row; step: 0 for none.
    """
    for row in range(first, last):
        r = ranges[row % ranges.shape[0]]
        for c in range(x.shape[1]):
            z = min(max(x[row, c] / r, -_ONE), _ONE)
            if step > _ZERO:
                z = min(max(np.float32(np.rint(z / step)) * step, -_ONE), _ONE)
            codes[row, c] = z
        if squares.shape[0] > 0:
            for c in range(x.shape[1]):
                squares[row, c] = codes[row, c] * codes[row, c]


@compiled
def drive_back(
    out: Floats, gradient: Floats, x: Floats, ranges: Floats, pull: Doubles, inside: Doubles, first: int, last: int
) -> None:
    """The gradient of inputs, and of each row what pulls at its range and how many inputs lie inside.

    out: (rows, width), filled, or (0, width); pull, inside: (rows,), filled; gradient: of the codes.
    """
    for row in range(first, last):
        r = ranges[row % ranges.shape[0]]
        scale = _ONE / r
        drawn, kept = _ZERO, 0
        for c in range(x.shape[1]):
            value, behind = x[row, c], gradient[row, c] * scale
            size = abs(value)
            signed = behind if value > _ZERO else -behind
            drawn += min(signed, _ZERO) if size >= r else _ZERO
            kept += 1 if size < r else 0
        pull[row], inside[row] = drawn, kept
        if out.shape[0] > 0:
            for c in range(x.shape[1]):
                out[row, c] = gradient[row, c] * scale if abs(x[row, c]) <= r else _ZERO


@compiled
def disturb(
    noisy: Floats, magnitude: Floats, scales: Floats, weight: Floats, coefficients: Floats, factor: np.float32,
    key: np.uint64, first: int, last: int, scratch: Floats,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last`` of weights, normalised and disturbed: sign(w) max(0, |w| + factor sd(|w|) xi).

    noisy, magnitude, weight: (columns of the matrix, rows of the matrix); magnitude: of noisy, or (0, rows); scales:
    (columns,); coefficients: of
    sd, from r^0 upwards; scratch: (10, at least PART + 8).
    """
    width = weight.shape[1]
    normals, planes, words = scratch[0], scratch[1:5], scratch[5:9].view(np.uint32)
    for row in range(first, last):
        values, out = weight[row], noisy[row]
        scale = scales[row]
        for begin in range(0, width, PART):
            end = min(begin + PART, width)
            if factor > _ZERO:
                normals_of_columns(
                    normals, planes, words, begin >> 2, (end - begin + 3) >> 2, np.uint64(0), np.uint64(row), key
                )
            for c in range(begin, end):
                w = values[c] / scale
                r = abs(w)
                sd = _ZERO
                for power in range(coefficients.shape[0] - 1, -1, -1):
                    sd = sd * r + coefficients[power]
                grown = max(r + factor * (sd * normals[c - begin]), _ZERO) if factor > _ZERO else r
                out[c] = (grown if w > _ZERO else -grown) if r > _ZERO else _ZERO
        if magnitude.shape[0] > 0:
            for c in range(width):
                magnitude[row, c] = abs(out[c])


@compiled
def finish(
    y: Floats, kept: Bytes, u: Floats, power: Floats, scales: Floats, bias: Floats, per_row: bool, read: np.float32,
    output: np.float32, step: np.float32, bound: np.float32, key: np.uint64, first: int, last: int, scratch: Floats,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last`` of outputs: noise, converter, digital scale, bias.

    y, kept, u, power: (rows, width); kept: 1 where the converter did not clip; power: any (rows, width) where read is
    0; scales, bias: (width,), or, per_row, (n,) of row ``row % n``; read, output: variances; step, bound: of the
    converter, step 0 for none; scratch: (10, at least PART + 8).
    """
    width = u.shape[1]
    normals, planes, words = scratch[0], scratch[1:5], scratch[5:9].view(np.uint32)
    noisy = read > _ZERO or output > _ZERO
    for row in range(first, last):
        for begin in range(0, width, PART):
            end = min(begin + PART, width)
            if noisy:
                normals_of_columns(
                    normals, planes, words, begin >> 2, (end - begin + 3) >> 2, np.uint64(0), np.uint64(row), key
                )
            codes = scratch[9]
            for c in range(begin, end):
                value = u[row, c]
                if noisy:
                    value += np.float32(np.sqrt(max(power[row, c] * read + output, _ZERO))) * normals[c - begin]
                kept[row, c] = 1 if abs(value) <= bound else 0
                if step > _ZERO:
                    value = np.float32(np.rint(value / step)) * step
                codes[c - begin] = min(max(value, -bound), bound)
            if per_row:
                scale, offset = scales[row % scales.shape[0]], bias[row % scales.shape[0]]
                for c in range(begin, end):
                    y[row, c] = codes[c - begin] * scale + offset
            else:
                for c in range(begin, end):
                    y[row, c] = codes[c - begin] * scales[c] + bias[c]


@compiled
def finish_back(
    out: Floats, gradient: Floats, kept: Bytes, scales: Floats, per_row: bool, first: int, last: int
) -> None:
    """The gradient of u: that of y times the scale where the converter did not clip. Shapes as for ``finish``."""
    for row in range(first, last):
        if per_row:
            scale = scales[row % scales.shape[0]]
            for c in range(out.shape[1]):
                out[row, c] = gradient[row, c] * scale if kept[row, c] else _ZERO
        else:
            for c in range(out.shape[1]):
                out[row, c] = gradient[row, c] * scales[c] if kept[row, c] else _ZERO
