"""Compiled kernels of the keyed generator: Philox 4x32-10 and the Box-Muller transform.

Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A block of four 32-bit words is a
pure function of a 128-bit counter and a 64-bit key. Here the counter is (column // 4, call, sample low, sample high).

Numba is imported with this module, and this module on the first draw. Every operation is an IEEE one in a fixed
order (no fast-math, no contraction), so a value does not depend on which lane, chunk or thread computed it.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

F = TypeVar("F", bound=Callable[..., Any])
Words = tuple[np.uint64, np.uint64, np.uint64, np.uint64]


def compiled(function: F) -> F:
    options = {"cache": True, "nogil": True, "error_model": "numpy", "boundscheck": False}
    return cast(F, numba.njit(**options)(function))


def inlined(function: F) -> F:
    return cast(F, numba.njit(inline="always", error_model="numpy")(function))


_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_MULTIPLY_0, _MULTIPLY_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@inlined
def philox_round(words: Words, k0: np.uint64, k1: np.uint64) -> Words:
    """One round with its key. All words are 32 bits in 64."""
    c0, c1, c2, c3 = words
    p0 = _MULTIPLY_0 * c0
    p1 = _MULTIPLY_1 * c2
    return (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW


@inlined
def philox_block(words: Words, k0: np.uint64, k1: np.uint64) -> Words:
    """Ten rounds, written out so that the loop around them vectorises. All words are 32 bits in 64."""
    words = philox_round(words, k0, k1)
    words = philox_round(words, (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(2) * _WEYL_0) & _LOW, (k1 + np.uint64(2) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(3) * _WEYL_0) & _LOW, (k1 + np.uint64(3) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(4) * _WEYL_0) & _LOW, (k1 + np.uint64(4) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(5) * _WEYL_0) & _LOW, (k1 + np.uint64(5) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(6) * _WEYL_0) & _LOW, (k1 + np.uint64(6) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(7) * _WEYL_0) & _LOW, (k1 + np.uint64(7) * _WEYL_1) & _LOW)
    words = philox_round(words, (k0 + np.uint64(8) * _WEYL_0) & _LOW, (k1 + np.uint64(8) * _WEYL_1) & _LOW)
    return philox_round(words, (k0 + np.uint64(9) * _WEYL_0) & _LOW, (k1 + np.uint64(9) * _WEYL_1) & _LOW)


_ONE, _HALF, _TWO = np.float32(1), np.float32(0.5), np.float32(2)
_SCALE = np.float32(2.0**-32)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_SQRT_HALF_BITS, _MANTISSA, _23 = np.int32(0x3F3504F3), np.int32(0x7FFFFF), np.int32(23)


@inlined
def natural_log(x: np.float32) -> np.float32:
    """Natural logarithm of a normal positive float32 to 1 ulp or so (polynomial of the Cephes library)."""
    bits = np.float32(x).view(np.int32) - _SQRT_HALF_BITS
    exponent = np.float32(np.int32(bits >> _23))
    f = np.int32((bits & _MANTISSA) + _SQRT_HALF_BITS).view(np.float32) - _ONE
    p = np.float32(7.0376836292e-2) * f - np.float32(1.1514610310e-1)
    p = p * f + np.float32(1.1676998740e-1)
    p = p * f - np.float32(1.2420140846e-1)
    p = p * f + np.float32(1.4249322787e-1)
    p = p * f - np.float32(1.6668057665e-1)
    p = p * f + np.float32(2.0000714765e-1)
    p = p * f - np.float32(2.4999993993e-1)
    p = p * f + np.float32(3.3333331174e-1)
    square = f * f
    low = square * f * p + exponent * _LN2_LOW - _HALF * square
    return (f + low) + exponent * _LN2_HIGH


_EIGHTH, _30 = np.uint32(1 << 29), np.uint32(30)
_ANGLE = np.float32(np.pi / 2 / 2**30)


@inlined
def normal_pair(word: np.uint64, turn: np.uint64) -> tuple[np.float32, np.float32]:
    """Box-Muller: two normals of two words. The radius reaches sqrt(2 ln 2^33) = 6.76."""
    uniform = (np.float32(np.uint32(word)) + _HALF) * _SCALE
    radius = np.float32(np.sqrt(-_TWO * natural_log(uniform)))
    quadrant = np.uint32((np.uint32(turn) + _EIGHTH) >> _30)
    t = np.float32(np.int32(np.uint32(np.uint32(turn) - np.uint32(quadrant << _30)))) * _ANGLE
    square = t * t
    sine = np.float32(-1.9515295891e-4) * square + np.float32(8.3321608736e-3)
    sine = (sine * square - np.float32(1.6666654611e-1)) * square * t + t
    cosine = np.float32(2.443315711809948e-5) * square - np.float32(1.388731625493765e-3)
    cosine = (cosine * square + np.float32(4.166664568298827e-2)) * square * square - _HALF * square + _ONE
    odd = (quadrant & np.uint32(1)) != 0
    first = sine if odd else cosine
    second = cosine if odd else sine
    first = -first if ((quadrant + np.uint32(1)) & np.uint32(2)) != 0 else first
    second = -second if (quadrant & np.uint32(2)) != 0 else second
    return radius * first, radius * second


@compiled
def fill_rows(
    out: npt.NDArray[np.float32],
    scratch: npt.NDArray[np.float32],
    keys: npt.NDArray[np.uint64],
    columns: npt.NDArray[np.int64],
    first_column: int,
    first_sample: np.uint64,
    first_call: np.uint64,
) -> None:
    """out: (samples, calls, sum of columns); scratch: at least max(columns) + 8. Streams lie side by side."""
    for sample in range(out.shape[0]):
        index = first_sample + np.uint64(sample)
        s0, s1 = index & _LOW, index >> _32
        for call in range(out.shape[1]):
            c1 = first_call + np.uint64(call)
            place = 0
            for stream in range(keys.shape[0]):
                k0, k1 = keys[stream] & _LOW, keys[stream] >> _32
                first_block = first_column >> 2
                blocks = ((first_column + columns[stream] + 3) >> 2) - first_block
                for block in range(blocks):
                    c0 = np.uint64(first_block) + np.uint64(block)
                    w0, w1, w2, w3 = philox_block((c0, c1, s0, s1), k0, k1)
                    z0, z1 = normal_pair(w0, w1)
                    z2, z3 = normal_pair(w2, w3)
                    scratch[4 * block] = z0
                    scratch[4 * block + 1] = z1
                    scratch[4 * block + 2] = z2
                    scratch[4 * block + 3] = z3
                skipped = first_column & 3
                for column in range(columns[stream]):
                    out[sample, call, place + column] = scratch[skipped + column]
                place += columns[stream]


@compiled
def fill_planes(
    out: npt.NDArray[np.float32],
    scratch: npt.NDArray[np.float32],
    keys: npt.NDArray[np.uint64],
    columns: npt.NDArray[np.int64],
    first_column: int,
    first_sample: np.uint64,
    first_call: np.uint64,
) -> None:
    """out: (samples, sum of columns, calls); scratch: at least 4 * calls. The values of ``fill_rows``, transposed."""
    calls = out.shape[2]
    for sample in range(out.shape[0]):
        index = first_sample + np.uint64(sample)
        s0, s1 = index & _LOW, index >> _32
        place = 0
        for stream in range(keys.shape[0]):
            k0, k1 = keys[stream] & _LOW, keys[stream] >> _32
            last_column = first_column + columns[stream]
            for block in range(first_column >> 2, (last_column + 3) >> 2):
                c0 = np.uint64(block)
                for call in range(calls):
                    c1 = first_call + np.uint64(call)
                    w0, w1, w2, w3 = philox_block((c0, c1, s0, s1), k0, k1)
                    z0, z1 = normal_pair(w0, w1)
                    z2, z3 = normal_pair(w2, w3)
                    scratch[call] = z0
                    scratch[calls + call] = z1
                    scratch[2 * calls + call] = z2
                    scratch[3 * calls + call] = z3
                for column in range(max(4 * block, first_column), min(4 * block + 4, last_column)):
                    row = place + column - first_column
                    offset = (column - 4 * block) * calls
                    for call in range(calls):
                        out[sample, row, call] = scratch[offset + call]
            place += columns[stream]


@compiled
def fill_words(out: npt.NDArray[np.uint32], counter: npt.NDArray[np.uint64], key: npt.NDArray[np.uint64]) -> None:
    """out: (blocks, 4): blocks of the counters c0 + k, k = 0.. (c0 alone counts), as the generator gives them."""
    for block in range(out.shape[0]):
        c0 = counter[0] + np.uint64(block)
        w0, w1, w2, w3 = philox_block((c0, counter[1], counter[2], counter[3]), key[0], key[1])
        out[block, 0], out[block, 1] = np.uint32(w0), np.uint32(w1)
        out[block, 2], out[block, 3] = np.uint32(w2), np.uint32(w3)
