"""Normals for the noise of training: keyed like those of ``aimc_compiler.rng``, at two fifths of their cost.

A mini-batch's noise is drawn once and forgotten, so it needs no 32 bits in each normal. A word of Philox 4x32-7 (seven
rounds are the fewest that pass BigCrush: Salmon et al., SC 2011, table 2) makes two normals by Box and Muller: 16 bits
for the radius, 14 for the angle in a quadrant, 2 for the signs. Values are those of the transform to 2e-5; their
magnitude ends at sqrt(2 ln 2^17) = 4.85, beyond which lies one normal of a million. Chips are never programmed
with these.

A row of normals is made in parts of PART columns. Part p is blocks of the counter (block, p, row low, row high); all
first normals of all first words come first, and so on, so that no value has to move between the lanes of a vector.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from aimc_compiler.rng import Key
from aimc_compiler.rng.philox import inlined, philox_round

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]

#: Columns of a part.
PART = 2048

_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_ONE, _HALF, _TWO = np.float32(1), np.float32(0.5), np.float32(2)
_LN2, _QUADRANT = np.float32(0.6931471805599453), np.float32(2.0**-14)
_SQRT_HALF_BITS, _MANTISSA, _23 = np.int32(0x3F3504F3), np.int32(0x7FFFFF), np.int32(23)
_SIGN, _ANGLE_BITS = np.uint32(0x80000000), np.uint32(0x3FFF)


def normals(key: Key, rows: int, columns: int) -> Floats:
    """(rows, columns) standard normals, each a function of key, row and column (and of ``columns``, in the last part).

    >>> bool((normals(1, 4, 10)[2:] == normals(1, 4, 10)[2:4]).all())
    True
    """
    out = np.empty((rows, columns), np.float32)
    _fill(out, np.uint64(key), np.empty(PART + 8, np.float32), np.empty(PART // 2 + 4, np.uint32))
    return out


def _compiled(function: Any) -> Any:
    """With a product and the sum behind it rounded once: a quarter of the time, and here no one else's values."""
    options = {"cache": True, "nogil": True, "error_model": "numpy", "boundscheck": False, "fastmath": {"contract"}}
    return numba.njit(**options)(function)


@_compiled
def normals_of_part(out: Floats, words: Words, count: int, part: int, row: np.uint64, key: np.uint64) -> None:
    """Part ``part`` of a row, of ``count`` columns: at most PART, and always PART where that may not matter.

    out: (at least count + 7,); words: (at least (count + 7) // 8 * 4,), scratch.
    """
    blocks = (count + 7) >> 3
    w0, w1, w2, w3 = words[:blocks], words[blocks:], words[2 * blocks :], words[3 * blocks :]
    k0, k1, r0, r1, p = key & _LOW, key >> _32, row & _LOW, row >> _32, np.uint64(part)
    for k in range(blocks):
        a, b, c, d = _seven_rounds((np.uint64(k) & _LOW, p, r0, r1), k0, k1)
        w0[k], w1[k], w2[k], w3[k] = np.uint32(a), np.uint32(b), np.uint32(c), np.uint32(d)
    half = 4 * blocks
    first, second = out[:half], out[half : 2 * half]
    for k in range(half):
        first[k], second[k] = _pair(words[k])


@_compiled
def _fill(out: Floats, key: np.uint64, part: Floats, words: Words) -> None:
    for row in range(out.shape[0]):
        for begin in range(0, out.shape[1], PART):
            count = min(PART, out.shape[1] - begin)
            normals_of_part(part, words, count, begin // PART, np.uint64(row), key)
            out[row, begin : begin + count] = part[:count]


@inlined
def _seven_rounds(words: Any, k0: np.uint64, k1: np.uint64) -> Any:
    words = philox_round(words, k0, k1)
    words = philox_round(words, (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(2) * _WEYL_0) & _LOW, (k1 + np.uint64(2) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(3) * _WEYL_0) & _LOW, (k1 + np.uint64(3) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(4) * _WEYL_0) & _LOW, (k1 + np.uint64(4) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(5) * _WEYL_0) & _LOW, (k1 + np.uint64(5) * _WEYL_1) & _LOW)
    return philox_round(words, (k0 + np.uint64(6) * _WEYL_0) & _LOW, (k1 + np.uint64(6) * _WEYL_1) & _LOW)


@inlined
def _pair(word: np.uint32) -> tuple[np.float32, np.float32]:
    """Two normals of a word: its upper half is the radius, the lower one signs and angle."""
    # ln u of u = (h + 1/2) / 2^16, the polynomial fitted to 3e-6 (least largest error, times f^3).
    odd = np.float32(np.uint32((np.uint32(word) >> np.uint32(16)) * np.uint32(2) + np.uint32(1)))
    bits = np.int32(odd.view(np.int32) - _SQRT_HALF_BITS)
    exponent = np.float32(np.int32(np.int32(bits >> _23) - np.int32(17)))
    f = np.int32((bits & _MANTISSA) + _SQRT_HALF_BITS).view(np.float32) - _ONE
    p = np.float32(-0.14702604) * f + np.float32(0.2192458)
    p = p * f - np.float32(0.25252165)
    p = p * f + np.float32(0.33272476)
    square = f * f
    logarithm = exponent * _LN2 + (f + square * (p * f - _HALF))
    radius = np.float32(np.sqrt(-_TWO * logarithm))
    turn = (np.float32(np.uint32(np.uint32(word) & _ANGLE_BITS)) + _HALF) * _QUADRANT
    first = _signed(radius * _sine(_ONE - turn), np.uint32(np.uint32(word) << np.uint32(16)))
    return first, _signed(radius * _sine(turn), np.uint32(np.uint32(word) << np.uint32(17)))


@inlined
def _signed(x: np.float32, bits: np.uint32) -> np.float32:
    """x with the highest bit as its sign."""
    return np.uint32(np.float32(x).view(np.uint32) ^ np.uint32(bits & _SIGN)).view(np.float32)


@inlined
def _sine(x: np.float32) -> np.float32:
    """sin(pi x / 2) for x from 0 to 1, to 6e-7."""
    square = x * x
    p = np.float32(-0.00433309) * square + np.float32(0.07943433)
    p = p * square - np.float32(0.64589284)
    return (p * square + np.float32(1.57079101)) * x
