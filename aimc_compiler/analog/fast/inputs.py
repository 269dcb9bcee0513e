"""Compiled kernels from inputs to the 8-bit operands of the integer products.

After the input converter an input *is* an integer code of at most 7 bits and sign. Of each code c four planes are made:
c, |c|, and c^2 = 128 high + low, so that products with 8-bit weights stay exact; or c^2 rounded to 128 high.

A convolution's operand has a row for each row of the block (channel, place of the kernel) and a column for each
output position. Codes are kept a channel at a time, in the cache, with their padding and split by stride, so that such
a row is one contiguous copy. Positions run over the padded width, ``pitch``; those beyond the output's width mean
nothing and are passed over later.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.rng.philox import compiled, inlined

Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CODE, MAGNITUDE, HIGH, LOW = 0, 1, 2, 3
NEGATIVE, NOT_FINITE = 1, 2
_ROUNDING = np.float32(1.5 * 2**23)
_7 = np.int32(7)
_127 = np.int32(127)
_LARGEST = np.float32(np.finfo(np.float32).max)


@inlined
def _code(x: np.float32, input_range: np.float32, step: np.float32, levels: np.float32) -> np.int32:
    """``rint(x / range / step)`` held to +-levels. Clipping first is the same: the bound is a code."""
    scaled = np.float32(np.float32(x / input_range) / step)
    scaled = min(max(scaled, -levels), levels)
    return np.int32(np.float32(scaled + _ROUNDING) - _ROUNDING)


@compiled
def _code_line(out: Bytes, x: Floats, input_range: np.float32, step: np.float32, levels: np.float32) -> None:
    for k in range(out.shape[0]):
        out[k] = _code(x[k], input_range, step, levels)


@compiled
def _copy(out: Bytes, values: Bytes) -> None:
    for k in range(out.shape[0]):
        out[k] = values[k]


@compiled
def _further_planes(planes: Bytes, magnitude: bool, power: int) -> None:
    """|c|, high and low of the codes in plane 0. planes: (4, elements)."""
    codes = planes[CODE]
    if magnitude:
        plain = planes[MAGNITUDE]
        for k in range(codes.shape[0]):
            plain[k] = abs(np.int32(codes[k]))
    if power:
        high, low, half = planes[HIGH], planes[LOW], np.int32(64 if power == 1 else 0)
        for k in range(codes.shape[0]):
            high[k] = np.int32(np.int32(codes[k]) * np.int32(codes[k]) + half) >> _7
        if power > 1:
            for k in range(codes.shape[0]):
                low[k] = np.int32(np.int32(codes[k]) * np.int32(codes[k])) & _127


@compiled
def input_flags(x: Floats) -> int:
    """Flags NEGATIVE and NOT_FINITE of (elements,) inputs."""
    negative, strange = False, False
    for k in range(x.shape[0]):
        negative |= x[k] < np.float32(0)
        strange |= not abs(x[k]) <= _LARGEST
    return (NEGATIVE if negative else 0) | (NOT_FINITE if strange else 0)


@compiled
def code_rows(
    out: Bytes, x: Floats, first_entry: int, first_row: int, input_range: np.float32, step: np.float32,
    levels: np.float32, magnitude: bool, power: int,
) -> int:  # fmt: skip
    """Planes of some rows of a linear layer's inputs, and their flags.

    out: (4, entries, rows of the block); x: (entries, features); magnitude, power: which planes besides the codes are
    made (of the squares, how many; magnitudes only where an input is negative).
    """
    flags = 0
    for entry in range(out.shape[1]):
        line = x[first_entry + entry, first_row:]
        flags |= input_flags(line[: out.shape[2]])
        _code_line(out[CODE, entry], line, input_range, step, levels)
    for entry in range(out.shape[1]):
        _further_planes(out[:, entry], magnitude and flags & NEGATIVE != 0, power)
    return flags


@compiled
def code_windows(
    out: Bytes, scratch: Bytes, x: Floats, first_entry: int, first_channel: int, first_row: int, shape: Ints,
    input_range: np.float32, step: np.float32, levels: np.float32, magnitude: bool, power: int,
) -> int:  # fmt: skip
    """Planes of the windows of some entries, and the flags of their inputs.

    out: (4, rows of the block, entries * positions); scratch: (4, phases, cells of a phase); x: (entries, channels,
    height, width); first_channel: of the group; shape: ``WindowShape.numbers``; the rest is as in ``code_rows``.
    """
    places, positions, rows = shape[0] * shape[1], shape[9], out.shape[1]
    first, last = first_row // places, (first_row + rows + places - 1) // places
    entries = out.shape[2] // positions
    flags = 0
    for entry in range(first_entry, first_entry + entries):
        for channel in range(first_channel + first, first_channel + last):
            flags |= input_flags(x[entry, channel].reshape(-1))
    magnitude = magnitude and flags & NEGATIVE != 0
    scratch[:] = 0
    for entry in range(entries):
        for channel in range(first, last):
            plane = x[first_entry + entry, first_channel + channel]
            _code_channel(scratch[CODE], plane, shape, input_range, step, levels)
            _further_planes(scratch.reshape(4, -1), magnitude, power)
            target = out[:, :, entry * positions : (entry + 1) * positions]
            _gather(target, scratch, channel * places - first_row, shape, magnitude, power)
    return flags


@compiled
def _code_channel(
    scratch: Bytes, x: Floats, shape: Ints, input_range: np.float32, step: np.float32, levels: np.float32
) -> None:
    """Codes of one channel's rows that these windows meet. scratch: (phases, cells), zero where nothing is written."""
    stride_h, stride_w, pad, top, pitch = shape[2], shape[3], shape[6], shape[7], shape[8]
    height, width = x.shape
    for row in range(max(top, 0), min(top + scratch.shape[1] // pitch * stride_h, height)):
        phase, line = (row - top) % stride_h * stride_w, (row - top) // stride_h * pitch
        if stride_w == 1:
            _code_line(scratch[phase, line + pad : line + pad + width], x[row], input_range, step, levels)
            continue
        for column in range(width):
            at = column + pad
            scratch[phase + at % stride_w, line + at // stride_w] = _code(x[row, column], input_range, step, levels)


@compiled
def _gather(out: Bytes, scratch: Bytes, first: int, shape: Ints, magnitude: bool, power: int) -> None:
    """A row of ``out`` for each place of the kernel; first: the row of place 0, out of bounds where not held."""
    kernel_w, stride_h, stride_w, pitch = shape[1], shape[2], shape[3], shape[8]
    for place in range(max(-first, 0), min(shape[0] * kernel_w, out.shape[1] - first)):
        down, right = place // kernel_w * shape[4], place % kernel_w * shape[5]
        phase = down % stride_h * stride_w + right % stride_w
        at = down // stride_h * pitch + right // stride_w
        _copy(out[CODE, first + place], scratch[CODE, phase, at:])
        if magnitude:
            _copy(out[MAGNITUDE, first + place], scratch[MAGNITUDE, phase, at:])
        if power:
            _copy(out[HIGH, first + place], scratch[HIGH, phase, at:])
        if power > 1:
            _copy(out[LOW, first + place], scratch[LOW, phase, at:])
