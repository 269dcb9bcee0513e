"""Compiled passes of training: what stands around the products of a mini-batch, one pass over memory each.

The operations are those of ``ranges.py``, ``weights.py`` and ``aimc_compiler.analog``; torch makes them one at a time,
twenty passes that together take longer than the products. Normals are those of ``normals.py``, made in the first-level
cache and never stored. Rows are numbered from 0 to the end of the whole array, so no value depends on threads. Loops
are short and without branches, so that each fills the vector registers.

What gives the variance of the read noise may be in bfloat16, the upper half of a float32: it is then written and read
as 16-bit words, so that no pass of its own converts it.

``*_on`` run a kernel on the threads of torch's pool; entry, parts: of ``in_parts``, entry 0 where there is no pool.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled, inlined
from aimc_compiler.training.normals import PART, normals_of_part
from aimc_compiler.training.region import in_parts

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.uint16]
Doubles = npt.NDArray[np.float64]

_ONE, _ZERO = np.float32(1), np.float32(0)
_16, _LAST, _BELOW_HALF = np.uint32(16), np.uint32(1), np.uint32(0x7FFF)


@compiled
def drive(
    codes: Floats, squares: Floats, halves: Halves, x: Floats, ranges: Floats, step: np.float32, first: int, last: int
) -> None:
    """Rows ``first`` to ``last`` of inputs as codes, and their squares where there is room for them.

    codes, x: (rows, width); squares, halves: the same, as float32 and as bfloat16, or (0, width); ranges: (n,), of row
    ``row % n``; step: 0 for none.
    """
    for row in range(first, last):
        r = ranges[row % ranges.shape[0]]
        for begin in range(0, x.shape[1], PART):
            end = min(begin + PART, x.shape[1])
            values, out = x[row, begin:end], codes[row, begin:end]
            if step > _ZERO:
                for c in range(values.shape[0]):
                    code = np.float32(np.rint(min(max(values[c] / r, -_ONE), _ONE) / step)) * step
                    out[c] = min(max(code, -_ONE), _ONE)
            else:
                for c in range(values.shape[0]):
                    out[c] = min(max(values[c] / r, -_ONE), _ONE)
            if halves.shape[0] > 0:
                rounded = halves[row, begin:end]
                for c in range(values.shape[0]):
                    rounded[c] = half(out[c] * out[c])
            if squares.shape[0] > 0:
                second = squares[row, begin:end]
                for c in range(values.shape[0]):
                    second[c] = out[c] * out[c]


@inlined
def half(value: np.float32) -> np.uint16:
    """The nearest bfloat16, ties to even, of a finite value."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16(np.uint32(bits + _BELOW_HALF + ((bits >> _16) & _LAST)) >> _16)


@inlined
def widen(out: Floats, halves: Halves) -> None:
    """bfloat16 as float32. out: as many, or more."""
    bits = out.view(np.uint32)
    for k in range(halves.shape[0]):
        bits[k] = np.uint32(halves[k]) << _16


@compiled
def drive_back(
    out: Floats, gradient: Floats, x: Floats, ranges: Floats, pull: Doubles, inside: Doubles, first: int, last: int
) -> None:
    """The gradient of inputs, and of each row what pulls at its range and how many inputs lie inside.

    out: (rows, width), filled (it may be ``gradient``), or (0, width); pull, inside: (rows,), filled; gradient: of the
    codes.
    """
    scratch = np.empty((1, PART), np.float32)
    for row in range(first, last):
        r = ranges[row % ranges.shape[0]]
        scale, drawn, kept = _ONE / r, 0.0, np.int64(0)
        for begin in range(0, x.shape[1], PART):
            end = min(begin + PART, x.shape[1])
            values, given, pulls = x[row, begin:end], gradient[row, begin:end], scratch[0, : end - begin]
            count = np.int32(0)
            for c in range(values.shape[0]):
                count = np.int32(count + np.int32(abs(values[c]) < r))
            kept += count
            if count < values.shape[0]:
                for c in range(values.shape[0]):
                    signed = given[c] if values[c] > _ZERO else -given[c]
                    pulls[c] = min(signed, _ZERO) if abs(values[c]) >= r else _ZERO
                drawn += np.float64(_sum(pulls)) * np.float64(scale)
            if out.shape[0] > 0:
                made = out[row, begin:end]
                for c in range(values.shape[0]):
                    made[c] = given[c] * scale if abs(values[c]) <= r else _ZERO
        pull[row], inside[row] = drawn, kept


@compiled
def clipped_products(
    out: Floats, gradient: Floats, main: Floats, x: Floats, ranges: Floats, first: int, last: int
) -> None:
    """Of rows ``first`` to ``last`` of ``gradient @ main`` those elements whose input lies outside its range.

    out: (rows, width), unchanged elsewhere; gradient: (rows, columns); main: (columns, width); x, ranges: as for
    ``drive``.
    """
    for row in range(first, last):
        r = ranges[row % ranges.shape[0]]
        for c in range(x.shape[1]):
            if abs(x[row, c]) >= r:
                total = _ZERO
                for k in range(main.shape[0]):
                    total += gradient[row, k] * main[k, c]
                out[row, c] = total


@inlined
def _sum(values: Floats) -> np.float32:
    """The sum of values, which are changed: halves are added, a vector at a time."""
    count = values.shape[0]
    while count > 1:
        most = count >> 1
        low, high = values[:most], values[count - most : count]
        for c in range(most):
            low[c] += high[c]
        count -= most
    total: np.float32 = values[0]
    return total


@compiled
def disturb(
    noisy: Floats, magnitude: Floats, halves: Halves, scales: Floats, weight: Floats, terms: Floats, key: np.uint64,
    rescale: bool, first: int, last: int,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last`` of weights, disturbed: W + s sign(W) (max(0, |w| + sd(|w|) xi) - |w|), w = W / s.

    noisy, weight: (columns of the matrix, rows of the matrix); magnitude, halves: of noisy, as float32 and as bfloat16,
    or (0, rows); scales: (columns,), s, with ``rescale`` filled first with the largest |W| of each column (1 where that
    is 0); terms: (4,), coefficients of sd, from r^0 upwards.
    """
    scratch = np.empty((2, PART + 8), np.float32)
    width = weight.shape[1]
    normals, words = scratch[0], scratch[1].view(np.uint32)
    t0, t1, t2, t3 = terms[0], terms[1], terms[2], terms[3]
    for row in range(first, last):
        if rescale:
            scales[row] = largest(weight[row])
        scale, inverse = scales[row], _ONE / scales[row]
        for begin in range(0, width, PART):
            end = min(begin + PART, width)
            normals_of_part(normals, words, end - begin, begin // PART, np.uint64(row), key)
            part, made = weight[row, begin:end], noisy[row, begin:end]
            for k in range(part.shape[0]):
                r = abs(part[k]) * inverse
                sd = ((t3 * r + t2) * r + t1) * r + t0
                grown = max(r + sd * normals[k], _ZERO) * scale
                sign = np.float32(part[k] > _ZERO) - np.float32(part[k] < _ZERO)
                made[k] = grown * sign
            keep_magnitudes(magnitude, halves, made, row, begin)


@inlined
def keep_magnitudes(magnitude: Floats, halves: Halves, made: Floats, row: int, begin: int) -> None:
    """Those of a part of a row of disturbed weights, where there is room: see ``disturb``."""
    end = begin + made.shape[0]
    if halves.shape[0] > 0:
        rounded = halves[row, begin:end]
        for k in range(made.shape[0]):
            rounded[k] = half(abs(made[k]))
    if magnitude.shape[0] > 0:
        size = magnitude[row, begin:end]
        for k in range(made.shape[0]):
            size[k] = abs(made[k])


@inlined
def largest(values: Floats) -> np.float32:
    """The largest magnitude, 1 where that is 0. Bits of magnitudes are in the order of their values."""
    words = values.view(np.int32)
    largest = np.int32(0)
    for c in range(words.shape[0]):
        largest = max(largest, np.int32(words[c] & np.int32(0x7FFFFFFF)))
    found: np.float32 = np.int32(largest).view(np.float32)
    return found if found > _ZERO else _ONE


@compiled
def finish(
    y: Floats, kept: Bytes, u: Floats, power: Floats, halves: Halves, inverses: Floats, factors: Floats,
    biases: Floats, width: int, per_row: bool, read: np.float32, output: np.float32, step: np.float32,
    bound: np.float32, key: np.uint64, first: int, last: int,
) -> None:  # fmt: skip
    """Parts ``first`` to ``last`` of outputs, of PART elements each: noise, converter, digital scale.

    y (may be u), kept, u: (elements,), in rows of ``width``; u those of normalised weights times their scale; kept: 1
    where the converter did not clip; power, halves: as u, of squares and magnitudes, one of them empty, in float32 or
    bfloat16, both where read is 0; inverses, factors: (width,), or, per_row, (n,) of row ``row % n``: 1 over the
    scales, scales times ranges; biases: the same, or empty; read, output: variances; step, bound: of the converter,
    step 0 for none.
    """
    scratch = np.empty((6, PART + 8), np.float32)
    normals, words, powers, inverse, factor, codes = (
        scratch[0], scratch[1].view(np.uint32), scratch[2], scratch[3], scratch[4], scratch[5]
    )  # fmt: skip
    normals[:] = _ZERO
    powers[:] = _ZERO
    for part in range(first, last):
        begin, end = part * PART, min((part + 1) * PART, u.shape[0])
        _spread(inverse, inverses, begin, end, width, per_row)
        _spread(factor, factors, begin, end, width, per_row)
        if read > _ZERO or output > _ZERO:  # of the whole part: no value depends on where the batch ends
            normals_of_part(normals, words, PART, 0, np.uint64(part), key)
        if halves.shape[0] > 0:
            widen(powers, halves[begin:end])
        if power.shape[0] > 0:
            powers[: end - begin] = power[begin:end]
        add_noise(codes, u[begin:end], powers, inverse, normals, read, output)
        convert(y[begin:end], kept[begin:end], codes, factor, step, bound)
        if biases.shape[0] > 0:
            _spread(factor, biases, begin, end, width, per_row)
            made = y[begin:end]
            for k in range(end - begin):
                made[k] += factor[k]


@inlined
def _spread(out: Floats, values: Floats, begin: int, end: int, width: int, per_row: bool) -> None:
    """What each of the elements ``begin`` to ``end`` has of ``values``: see ``finish``."""
    at = begin
    while at < end:
        row = at // width
        stop = min(end, (row + 1) * width)
        here = out[at - begin : stop - begin]
        if per_row:
            value = values[row % values.shape[0]]
            for k in range(here.shape[0]):
                here[k] = value
        else:
            here[:] = values[at - row * width : stop - row * width]
        at = stop


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


@compiled
def drive_on(
    entry: int, parts: int, codes: Floats, squares: Floats, halves: Halves, x: Floats, ranges: Floats, step: np.float32
) -> None:
    in_parts(entry, parts, x.shape[0], drive, (codes, squares, halves, x, ranges, step))


@compiled
def drive_back_on(
    entry: int, parts: int, out: Floats, gradient: Floats, x: Floats, ranges: Floats, pull: Doubles, inside: Doubles
) -> None:
    in_parts(entry, parts, x.shape[0], drive_back, (out, gradient, x, ranges, pull, inside))


@compiled
def clipped_products_on(
    entry: int, parts: int, out: Floats, gradient: Floats, main: Floats, x: Floats, ranges: Floats
) -> None:
    in_parts(entry, parts, x.shape[0], clipped_products, (out, gradient, main, x, ranges))


@compiled
def disturb_on(
    entry: int, parts: int, noisy: Floats, magnitude: Floats, halves: Halves, scales: Floats, weight: Floats,
    terms: Floats, key: np.uint64, rescale: bool,
) -> None:  # fmt: skip
    rows = weight.shape[0]
    in_parts(entry, parts, rows, disturb, (noisy, magnitude, halves, scales, weight, terms, key, rescale))


@compiled
def finish_on(
    entry: int, parts: int, y: Floats, kept: Bytes, u: Floats, power: Floats, halves: Halves, inverses: Floats,
    factors: Floats, biases: Floats, width: int, per_row: bool, read: np.float32, output: np.float32, step: np.float32,
    bound: np.float32, key: np.uint64,
) -> None:  # fmt: skip
    count = (u.shape[0] + PART - 1) // PART
    in_parts(
        entry, parts, count, finish,
        (y, kept, u, power, halves, inverses, factors, biases, width, per_row, read, output, step, bound, key),
    )  # fmt: skip


@compiled
def finish_back_on(
    entry: int, parts: int, out: Floats, gradient: Floats, kept: Bytes, ranges: Floats, per_row: bool
) -> None:
    in_parts(entry, parts, out.shape[0], finish_back, (out, gradient, kept, ranges, per_row))
