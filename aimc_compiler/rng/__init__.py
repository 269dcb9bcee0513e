"""Named random streams: every draw is a function of what it is for, never of when it was made.

A *stream* is named by a tuple of integers and strings (seed, chip, piece, purpose, ...). Its values are indexed by
(sample, call, column). Batch size, chunks, threads and the other layers of a network have no influence.
The generator is Philox 4x32-10 (Salmon et al., SC 2011) with the Box-Muller transform in float32: relative error
of a value about 1e-6, |z| up to 6.76, tails as fine as 2^-33.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from operator import index
from typing import Literal, NewType

import numpy as np
import numpy.typing as npt

Key = NewType("Key", int)
Layout = Literal["sample_call_column", "sample_column_call"]
Floats = npt.NDArray[np.float32]

_CALL_LIMIT = 2**32
_COLUMN_LIMIT = 2**34
_SAMPLE_LIMIT = 2**64
_THREAD_WORTH = 1 << 19


def stream_key(*names: int | str) -> Key:
    """The 64-bit key of a stream: BLAKE2b of an encoding in which no two tuples of names are alike.

    >>> stream_key(0, "head") != stream_key("0", "head")
    True
    """
    text = b"".join(
        b"s%d:%s;" % (len(name.encode()), name.encode()) if isinstance(name, str) else b"i%d;" % index(name)
        for name in names
    )
    return Key(int.from_bytes(blake2b(text, digest_size=8).digest(), "little"))


def normals(
    key: Key,
    samples: int,
    calls: int,
    columns: int,
    first_sample: int = 0,
    first_call: int = 0,
    first_column: int = 0,
    layout: Layout = "sample_call_column",
) -> Floats:
    """Standard normals, (samples, calls, columns) or (samples, columns, calls); each a function of its four indices.

    Indices: sample below 2^64, call below 2^32, column below 2^34; ValueError beyond.
    """
    return normals_side_by_side((key,), (columns,), samples, calls, first_sample, first_call, first_column, layout)


def normals_side_by_side(
    keys: Sequence[Key],
    columns: Sequence[int],
    samples: int,
    calls: int,
    first_sample: int = 0,
    first_call: int = 0,
    first_column: int = 0,
    layout: Layout = "sample_call_column",
) -> Floats:
    """``normals`` of several streams, concatenated along the columns; columns: how many of each stream."""
    if min(samples, calls, *columns, first_sample, first_call, first_column) < 0:
        raise ValueError("counts and first indices of a draw must not be negative")
    last_column = first_column + max(columns, default=0)
    if first_sample + samples > _SAMPLE_LIMIT or first_call + calls > _CALL_LIMIT or last_column > _COLUMN_LIMIT:
        raise ValueError("a draw reaches beyond sample 2^64, call 2^32 or column 2^34 of its stream")
    from aimc_compiler.rng import philox

    width = sum(columns)
    rows_first = layout == "sample_call_column"
    out = np.empty((samples, calls, width) if rows_first else (samples, width, calls), np.float32)
    fill = philox.fill_rows if rows_first else philox.fill_planes
    scratch_size = max(columns, default=0) + 8 if rows_first else 4 * calls
    key_array, column_array = np.array(keys, np.uint64), np.array(columns, np.int64)

    def part(start: int, stop: int) -> None:
        scratch = np.empty(scratch_size, np.float32)
        sample, call = np.uint64(first_sample + start), np.uint64(first_call)
        fill(out[start:stop], scratch, key_array, column_array, first_column, sample, call)

    _in_parts(part, samples, out.size)
    return out


def cell_normals(key: Key, count: int) -> Floats:
    """(count,) standard normals: one for each of a piece's devices, in order."""
    return normals(key, 1, 1, count).reshape(count)


def uniforms(key: Key, count: int) -> npt.NDArray[np.float64]:
    """(count,) numbers strictly between 0 and 1, in steps of 2^-32."""
    if not 0 <= count <= _COLUMN_LIMIT:
        raise ValueError(f"{count} uniforms: a stream holds 0 to 2^34 of them")
    words = philox_words((0, 0, 0, 0), (key & 0xFFFFFFFF, key >> 32), -(-count // 4))
    return (words.reshape(-1)[:count].astype(np.float64) + 0.5) * 2.0**-32


def philox_words(counter: Sequence[int], key: Sequence[int], blocks: int = 1) -> npt.NDArray[np.uint32]:
    """(blocks, 4) raw words of Philox 4x32-10; counter: four words, the first counts blocks; key: two words."""
    from aimc_compiler.rng import philox

    out = np.empty((blocks, 4), np.uint32)
    philox.fill_words(out, np.array(counter, np.uint64), np.array(key, np.uint64))
    return out


def _in_parts(part: Callable[[int, int], None], samples: int, size: int) -> None:
    """Runs part(start, stop) over all samples, large draws on a thread a processor.

    Threads live for one draw: a pool kept longer would not survive a fork, and numba's own aborts when two threads
    enter it.
    """
    threads = min(_processors(), samples, size // _THREAD_WORTH)
    if threads < 2:
        part(0, samples)
        return
    cuts = [samples * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads - 1) as workers:
        others = [workers.submit(part, *cuts[k : k + 2]) for k in range(1, threads)]
        part(*cuts[:2])
    for other in others:
        other.result()


def _processors() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(wanted), available) if wanted.isdigit() and int(wanted) else available
