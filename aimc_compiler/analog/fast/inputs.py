"""Compiled kernels from inputs to the 8-bit operands of the integer products.

After the input converter an input *is* an integer code of at most 7 bits and sign. Of each code c four planes are made:
c, |c|, and c^2 = 128 high + low, so that products with 8-bit weights stay exact; or c^2 rounded to 128 high.

A convolution's operand has a row for each row of the block (channel, place of the kernel) and a column for each
output position. The codes of a channel are kept in the cache once for each column of the kernel, shifted to the inputs
that it meets, and by phase of the vertical stride, so that such a row is one contiguous copy.
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
    out: Bytes, line: Bytes, shifted: Bytes, x: Floats, first_entry: int, first_channel: int, first_row: int,
    shape: Ints, input_range: np.float32, step: np.float32, levels: np.float32, magnitude: bool, power: int,
) -> int:  # fmt: skip
    """Planes of the windows of some entries, and the flags of their inputs.

    out: (4, rows of the block, entries * positions); line: ``Strip.line`` cells; shifted: (4, kernel width, vertical
    stride, cells); x: (entries, channels, height, width); first_channel: of the group; shape: ``Strip.numbers``; the
    rest is as in ``code_rows``.
    """
    places, positions, rows = shape[0] * shape[1], shape[8], out.shape[1]
    first, last = first_row // places, (first_row + rows + places - 1) // places
    entries = out.shape[2] // positions
    flags = 0
    for entry in range(first_entry, first_entry + entries):
        for channel in range(first_channel + first, first_channel + last):
            flags |= input_flags(x[entry, channel].reshape(-1))
    magnitude = magnitude and flags & NEGATIVE != 0
    shifted[:] = 0
    for entry in range(entries):
        for channel in range(first, last):
            plane = x[first_entry + entry, first_channel + channel]
            _code_channel(shifted[CODE], line, plane, shape, input_range, step, levels)
            _further_planes(shifted.reshape(4, -1), magnitude, power)
            target = out[:, :, entry * positions : (entry + 1) * positions]
            _gather(target, shifted, channel * places - first_row, shape, magnitude, power)
    return flags


@compiled
def _code_channel(
    shifted: Bytes, line: Bytes, x: Floats, shape: Ints, input_range: np.float32, step: np.float32, levels: np.float32
) -> None:
    """Codes of one channel's rows that these windows meet; what is not written is zero and stays so.

    shifted: (kernel width, vertical stride, cells); line: scratch.
    """
    kernel_w, stride_h, stride, pad, top, width = shape[1], shape[2], shape[3], shape[6], shape[7], shape[9]
    first = min(max(top, 0), x.shape[0])
    last = max(first, min(top + shifted.shape[2] // width * stride_h, x.shape[0]))
    count, inputs = (last - first) * x.shape[1], x.shape[1]
    codes = line[:count]
    _code_line(codes, x[first:last].reshape(-1), input_range, step, levels)
    for k in range(kernel_w):
        by = k * shape[5] - pad
        if stride_h == 1 and stride == 1 and width == inputs:
            at = (first - top) * width
            _shift_rows(shifted[k, 0, at : at + count], codes, by, width)
            continue
        # Outputs whose input at this column of the kernel is no padding.
        begin, end = max(0, (stride - 1 - by) // stride), min(width, (inputs - 1 - by) // stride + 1)
        for row in range(first, last):
            phase = (row - top) % stride_h
            if begin < end and (phase == 0 or shape[0] > 1):
                at, source = (row - top) // stride_h * width, (row - first) * inputs + by + begin * stride
                _shift(shifted[k, phase, at + begin : at + end], codes[source:], stride)


@compiled
def _shift_rows(out: Bytes, codes: Bytes, by: int, width: int) -> None:
    """Rows as wide as the output, each shifted to the left by ``by``: one copy, then the edges."""
    count, edge = codes.shape[0], min(abs(by), width)
    if abs(by) < count:
        _copy(out[max(-by, 0) : count - max(by, 0)], codes[max(by, 0) :])
    start = 0 if by < 0 else width - edge
    for row in range(count // width):
        for k in range(edge):
            out[row * width + start + k] = 0


@compiled
def _shift(out: Bytes, line: Bytes, stride: int) -> None:
    if stride == 1:
        for k in range(out.shape[0]):
            out[k] = line[k]
    else:
        for k in range(out.shape[0]):
            out[k] = line[k * stride]


@compiled
def _gather(out: Bytes, shifted: Bytes, first: int, shape: Ints, magnitude: bool, power: int) -> None:
    """A row of ``out`` for each place of the kernel; first: the row of place 0, out of bounds where not held."""
    kernel_w, stride_h, width = shape[1], shape[2], shape[9]
    for place in range(max(-first, 0), min(shape[0] * kernel_w, out.shape[1] - first)):
        down, k = place // kernel_w * shape[4], place % kernel_w
        phase, at = down % stride_h, down // stride_h * width
        _copy(out[CODE, first + place], shifted[CODE, k, phase, at:])
        if magnitude:
            _copy(out[MAGNITUDE, first + place], shifted[MAGNITUDE, k, phase, at:])
        if power:
            _copy(out[HIGH, first + place], shifted[HIGH, k, phase, at:])
        if power > 1:
            _copy(out[LOW, first + place], shifted[LOW, k, phase, at:])
