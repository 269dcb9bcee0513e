"""Compiled kernels that make normals of streams in the first-level cache: the values of ``aimc_compiler.rng``.

Counter words are 64 bits wide while they are made and normals 32, so both are loops of their own: each then fills the
vector registers (0.7 ns a normal instead of 1.1).
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled, inlined, normal_pair, philox_block

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
Halves = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]

LOW_WORD, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


@compiled
def normals_of_calls(out: Floats, words: Halves, block: int, calls: Words, samples: Words, key: np.uint64) -> None:
    """Columns 4 block to 4 block + 3 of some MVMs. out, words: (4, MVMs); calls, samples: (MVMs,) their numbers."""
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    k0, k1, c0 = key & LOW_WORD, key >> SHIFT, np.uint64(block)
    for at in range(calls.shape[0]):
        a, b, c, d = philox_block((c0, calls[at], samples[at] & LOW_WORD, samples[at] >> SHIFT), k0, k1)
        w0[at], w1[at], w2[at], w3[at] = np.uint32(a), np.uint32(b), np.uint32(c), np.uint32(d)
    _pairs(out[0], out[1], w0, w1)
    _pairs(out[2], out[3], w2, w3)


@compiled
def normals_of_columns(
    out: Floats, planes: Floats, words: Halves, first_block: int, blocks: int, call: np.uint64, sample: np.uint64,
    key: np.uint64,
) -> None:  # fmt: skip
    """Columns 4 first_block to 4 (first_block + blocks) of one MVM, in order.

    out: (at least 4 blocks,); planes, words: (4, at least blocks), scratch.
    """
    w0, w1, w2, w3 = words[0, :blocks], words[1, :blocks], words[2, :blocks], words[3, :blocks]
    z0, z1, z2, z3 = planes[0, :blocks], planes[1, :blocks], planes[2, :blocks], planes[3, :blocks]
    k0, k1, s0, s1, first = key & LOW_WORD, key >> SHIFT, sample & LOW_WORD, sample >> SHIFT, np.uint64(first_block)
    for k in range(blocks):
        a, b, c, d = philox_block((first + np.uint64(k), call, s0, s1), k0, k1)
        w0[k], w1[k], w2[k], w3[k] = np.uint32(a), np.uint32(b), np.uint32(c), np.uint32(d)
    _pairs(z0, z1, w0, w1)
    _pairs(z2, z3, w2, w3)
    for k in range(blocks):
        out[4 * k], out[4 * k + 1], out[4 * k + 2], out[4 * k + 3] = z0[k], z1[k], z2[k], z3[k]


@inlined
def normals_of_row(
    out: Floats, planes: Floats, words: Halves, keys: Words, columns: Ints, call: np.uint64, sample: np.uint64
) -> None:
    """Normals of one MVM on all streams, side by side. out: sum of columns, and 8 to spare."""
    place = 0
    for stream in range(keys.shape[0]):
        blocks = (columns[stream] + 3) >> 2
        normals_of_columns(out[place:], planes, words, 0, blocks, call, sample, keys[stream])
        place += columns[stream]


@inlined
def _pairs(first: Floats, second: Floats, words: Halves, turns: Halves) -> None:
    for k in range(words.shape[0]):
        first[k], second[k] = normal_pair(words[k], turns[k])
