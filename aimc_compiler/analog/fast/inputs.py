"""Compiled kernels from inputs to the 8-bit operands of the integer products.

After the input converter an input *is* an integer code of at most 7 bits and sign. Of each code c four planes are made:
c, |c|, and c^2 = 128 high + low, so that products with 8-bit weights stay exact.

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
NEGATIVE, NOT_A_NUMBER = 1, 2
_ROUNDING = np.float32(1.5 * 2**23)
_7 = np.int32(7)
_127 = np.int32(127)


@inlined
def _code(x: np.float32, input_range: np.float32, step: np.float32, levels: np.float32) -> np.int32:
    """``rint(x / range / step)`` held to +-levels. Clipping first is the same: the bound is a code."""
    scaled = np.float32(np.float32(x / input_range) / step)
    scaled = min(max(scaled, -levels), levels)
    return np.int32(np.float32(scaled + _ROUNDING) - _ROUNDING)


@compiled
def input_signs(x: Floats) -> int:
    """Flags NEGATIVE and NOT_A_NUMBER of (entries, elements) inputs."""
    negative, strange = False, False
    for entry in range(x.shape[0]):
        for k in range(x.shape[1]):
            negative |= x[entry, k] < np.float32(0)
            strange |= x[entry, k] != x[entry, k]
    return (NEGATIVE if negative else 0) | (NOT_A_NUMBER if strange else 0)


@compiled
def code_rows(
    out: Bytes, x: Floats, first_entry: int, first_row: int, input_range: np.float32, step: np.float32,
    levels: np.float32, magnitude: bool, power: bool,
) -> None:  # fmt: skip
    """Planes of some rows of a linear layer's inputs. out: (4, entries, rows of the block); x: (entries, features)."""
    for entry in range(out.shape[1]):
        for k in range(out.shape[2]):
            out[CODE, entry, k] = _code(x[first_entry + entry, first_row + k], input_range, step, levels)
        if magnitude:
            for k in range(out.shape[2]):
                out[MAGNITUDE, entry, k] = abs(np.int32(out[CODE, entry, k]))
        if power:
            for k in range(out.shape[2]):
                square = np.int32(np.int32(out[CODE, entry, k]) * np.int32(out[CODE, entry, k]))
                out[HIGH, entry, k] = square >> _7
                out[LOW, entry, k] = square & _127


@compiled
def code_windows(
    out: Bytes, scratch: Bytes, x: Floats, first_entry: int, first_channel: int, first_row: int, shape: Ints,
    input_range: np.float32, step: np.float32, levels: np.float32, magnitude: bool, power: bool,
) -> None:  # fmt: skip
    """Planes of the windows of some entries. out: (4, rows of the block, entries * positions).

    x: (entries, channels, height, width); first_channel: of the group; scratch: (4, phases, cells of one phase), zero
    at the padding; shape: the fields of ``WindowShape.numbers``.
    """
    kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, pitch, positions = (
        shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7], shape[8], shape[9]
    )  # fmt: skip
    places, rows = kernel_h * kernel_w, out.shape[1]
    height, width = x.shape[2], x.shape[3]
    for entry in range(out.shape[2] // positions):
        start = entry * positions
        for channel in range(first_row // places, (first_row + rows + places - 1) // places):
            for row in range(height):
                phase = (row + pad_h) % stride_h * stride_w
                line = (row + pad_h) // stride_h * pitch
                if stride_w == 1:
                    line += pad_w
                    for column in range(width):
                        value = x[first_entry + entry, first_channel + channel, row, column]
                        scratch[CODE, phase, line + column] = _code(value, input_range, step, levels)
                else:
                    for column in range(width):
                        value = x[first_entry + entry, first_channel + channel, row, column]
                        at = column + pad_w
                        scratch[CODE, phase + at % stride_w, line + at // stride_w] = _code(
                            value, input_range, step, levels
                        )
            _further_planes(scratch, magnitude, power)
            for place in range(places):
                k = channel * places + place - first_row
                if 0 <= k < rows:
                    down, right = place // kernel_w * dilation_h, place % kernel_w * dilation_w
                    phase = down % stride_h * stride_w + right % stride_w
                    at = down // stride_h * pitch + right // stride_w
                    for plane in range(4):
                        if plane == CODE or (plane == MAGNITUDE and magnitude) or (plane >= HIGH and power):
                            for position in range(positions):
                                out[plane, k, start + position] = scratch[plane, phase, at + position]


@compiled
def _further_planes(scratch: Bytes, magnitude: bool, power: bool) -> None:
    codes = scratch[CODE].reshape(-1)
    if magnitude:
        plain = scratch[MAGNITUDE].reshape(-1)
        for k in range(codes.shape[0]):
            plain[k] = abs(np.int32(codes[k]))
    if power:
        high, low = scratch[HIGH].reshape(-1), scratch[LOW].reshape(-1)
        for k in range(codes.shape[0]):
            square = np.int32(np.int32(codes[k]) * np.int32(codes[k]))
            high[k] = square >> _7
            low[k] = square & _127
