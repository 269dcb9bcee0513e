"""Compiled passes over weights of a chip at a time: what drift compensation reads, and the weights themselves.

Shapes, threads and normals are those of ``kernels.py``; curves those of ``ageing.py``, as straight lines
between their targets.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled
from aimc_compiler.training.kernels import keep_magnitudes, largest
from aimc_compiler.training.normals import PART, normals_of_part
from aimc_compiler.training.region import in_parts

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.uint16]
Doubles = npt.NDArray[np.float64]

_ZERO = np.float32(0)


@compiled
def read_curves(
    sums: Doubles, scales: Floats, weight: Floats, lines: Floats, rescale: bool, first: int, last: int
) -> None:
    """Of rows ``first`` to ``last`` the sums of each of two curves over normalised magnitudes.

    sums: (columns of the matrix, 2), filled; weight: (columns, rows of the matrix); scales: (columns,), with
    ``rescale`` filled first with the largest magnitude of each column (1 where that is 0); lines: (4, steps), of the
    first curve what it is at 0 and how it rises where each step's line goes on, then of the second.
    """
    steps, top = np.float32(lines.shape[1]), np.float32(lines.shape[1] - 1)
    one, rise, other, other_rise = lines[0], lines[1], lines[2], lines[3]
    for row in range(first, last):
        if rescale:
            scales[row] = largest(weight[row])
        inverse = steps / scales[row]
        before, now = 0.0, 0.0
        for begin in range(0, weight.shape[1], PART):
            part, x, y = weight[row, begin : begin + PART], _ZERO, _ZERO
            for k in range(part.shape[0]):
                at = abs(part[k]) * inverse
                low = np.uint32(min(at, top))
                x += one[low] + rise[low] * at
                y += other[low] + other_rise[low] * at
            before += np.float64(x)
            now += np.float64(y)
        sums[row, 0], sums[row, 1] = before, now


@compiled
def age(
    noisy: Floats, magnitude: Floats, halves: Halves, scales: Floats, weight: Floats, lines: Floats, key: np.uint64,
    first: int, last: int,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last`` of weights: W = s w becomes s sign(w) (mean(|w|) + sd(|w|) xi).

    noisy, magnitude, halves, scales, weight: as of ``kernels.disturb``; lines: as of ``read_curves``, of mean and sd.
    """
    scratch = np.empty((2, PART + 8), np.float32)
    normals, words = scratch[0], scratch[1].view(np.uint32)
    steps, top = np.float32(lines.shape[1]), np.float32(lines.shape[1] - 1)
    mean, mean_rise, sd, sd_rise = lines[0], lines[1], lines[2], lines[3]
    for row in range(first, last):
        scale, inverse = scales[row], steps / scales[row]
        for begin in range(0, weight.shape[1], PART):
            end = min(begin + PART, weight.shape[1])
            normals_of_part(normals, words, end - begin, begin // PART, np.uint64(row), key)
            part, made = weight[row, begin:end], noisy[row, begin:end]
            for k in range(part.shape[0]):
                at = abs(part[k]) * inverse
                low = np.uint32(min(at, top))  # without sign: no index counts from the end
                value = (mean[low] + mean_rise[low] * at) + (sd[low] + sd_rise[low] * at) * normals[k]
                made[k] = value * (scale if part[k] >= _ZERO else -scale)
            keep_magnitudes(magnitude, halves, made, row, begin)


@compiled
def read_curves_on(
    entry: int, parts: int, sums: Doubles, scales: Floats, weight: Floats, lines: Floats, rescale: bool
) -> None:
    in_parts(entry, parts, weight.shape[0], read_curves, (sums, scales, weight, lines, rescale))


@compiled
def age_on(
    entry: int, parts: int, noisy: Floats, magnitude: Floats, halves: Halves, scales: Floats, weight: Floats,
    lines: Floats, key: np.uint64,
) -> None:  # fmt: skip
    in_parts(entry, parts, weight.shape[0], age, (noisy, magnitude, halves, scales, weight, lines, key))
