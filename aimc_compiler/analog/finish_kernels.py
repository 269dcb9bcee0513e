"""Compiled kernels of ``finish.py``: everything that follows the products of the standard model, in one pass.

Of each output: IR drop (``ir_drop.py``), one Gaussian of variance ``sigma_w^2 V + sigma_out^2`` (``noise.py``), the
converter (``converter.py``), the same operations in the same order in float32. Normals are made in the first-level
cache, the values that ``aimc_compiler.rng`` gives, and never stored.

An effect that is off has the constant 0 and reads any sum at all: it adds exactly nothing.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.in_cache import normals_of_calls, normals_of_row
from aimc_compiler.rng.philox import compiled, inlined

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

# Of the constants: from the load to q; the factor of the drop; variances of a unit of power, and of the converter;
# its step and bound.
LOAD, IR_DROP, READ, OUTPUT, STEP, BOUND = range(6)

_CUBIC, _SQUARE, _LINEAR, _ZERO = np.float32(0.05), np.float32(0.2), np.float32(0.5), np.float32(0)


@inlined
def _finished(
    u: np.float32, far: np.float32, load: np.float32, power: np.float32, further: np.float32, normal: np.float32,
    to_q: np.float32, ir_drop: np.float32, read: np.float32, output: np.float32, step: np.float32, bound: np.float32,
) -> np.float32:  # fmt: skip
    """further: j0 / G, for a block that does not begin at row 0 of its tile."""
    q = load * to_q
    share = q * (q * (q * _CUBIC - _SQUARE) + _LINEAR)
    dropped = (u - ir_drop * share * far) - ir_drop * (load * further) * u
    noisy = dropped + np.float32(np.sqrt(max(power * read + output, _ZERO))) * normal
    return min(max(np.float32(np.rint(noisy / step)) * step, -bound), bound)


@compiled
def finish_rows(
    out: Floats, main: Floats, load: Floats, power: Floats, far_at: int, further: Floats, constants: Floats,
    keys: Words, columns: Ints, sample: int, call: int, calls: int, first: int, last: int, scratch: Floats,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last``, columns last. out, load, power: (rows, columns); main: (rows, at least columns).

    far_at: the column of ``main`` at which the sums of w p begin; keys, columns: streams side by side, none where
    nothing is drawn. Row e is MVM ``call + e % calls`` of sample ``sample + e // calls``. scratch: (9, columns + 8).
    """
    to_q, ir_drop, read = constants[LOAD], constants[IR_DROP], constants[READ]
    output, step, bound = constants[OUTPUT], constants[STEP], constants[BOUND]
    normals, planes, words = scratch[0], scratch[1:5], scratch[5:9].view(np.uint32)
    normals[:] = 0
    for row in range(first, last):
        number, mvm = np.uint64(sample) + np.uint64(row // calls), np.uint64(call + row % calls)
        normals_of_row(normals, planes, words, keys, columns, mvm, number)
        y, u, far, loads, powers = out[row], main[row], main[row, far_at:], load[row], power[row]
        for c in range(out.shape[1]):
            y[c] = _finished(
                u[c], far[c], loads[c], powers[c], further[c], normals[c], to_q, ir_drop, read, output, step, bound
            )


@compiled
def finish_planes(
    out: Floats, main: Floats, load: Floats, power: Floats, far_at: int, further: Floats, constants: Floats,
    keys: Words, columns: Ints, sample: int, call: int, entries: int, first: int, last: int, numbers: Words,
    scratch: Floats,
) -> None:  # fmt: skip
    """Batch entries ``first`` to ``last``, windows last. out, load, power: (batch, groups, columns, windows).

    main: (batch, groups, at least columns, windows); far_at: its column at which the sums of w p begin; further:
    (groups * columns,); entries: batch entries of a sample. numbers: (2, windows) and scratch: (8, windows), to work
    in; the rest is as in ``finish_rows``.
    """
    groups, width, windows = out.shape[1], out.shape[2], out.shape[3]
    calls, samples = numbers[0], numbers[1]
    normals, words = scratch[:4], scratch[4:].view(np.uint32)
    normals[:] = 0
    for entry in range(first, last):
        begin = call + entry % entries * windows
        for at in range(windows):
            calls[at] = np.uint64(begin + at)
            samples[at] = np.uint64(sample) + np.uint64(entry // entries)
        stream, column = 0, 0
        for place in range(groups * width):
            if keys.shape[0] > 0:
                if column == columns[stream]:
                    stream, column = stream + 1, 0
                if column & 3 == 0:
                    normals_of_calls(normals, words, column >> 2, calls, samples, keys[stream])
            group, c = place // width, place % width
            _finish_plane(
                out[entry, group, c], main[entry, group, c], main[entry, group, far_at + c], load[entry, group, c],
                power[entry, group, c], normals[column & 3], further[place], constants,
            )  # fmt: skip
            column += 1


@inlined
def _finish_plane(
    y: Floats, u: Floats, far: Floats, load: Floats, power: Floats, normals: Floats, further: np.float32,
    constants: Floats,
) -> None:  # fmt: skip
    to_q, ir_drop, read = constants[LOAD], constants[IR_DROP], constants[READ]
    output, step, bound = constants[OUTPUT], constants[STEP], constants[BOUND]
    for at in range(y.shape[0]):
        y[at] = _finished(
            u[at], far[at], load[at], power[at], further, normals[at], to_q, ir_drop, read, output, step, bound
        )
