"""The product of inputs with the weights of a row block: linear, or a convolution over the channels it touches.

A row of a convolution's matrix is a place of the kernel of one input channel, ``row = channel * places + place``.
Rows a to b of it are a convolution over the channels they touch, its kernel zero at the places that other row
blocks hold: activations are never unfolded.

Inside, inputs and outputs have one of two forms: (batch, windows, columns) for linear, (batch, groups, columns,
*spatial) for convolutions.
"""

from collections.abc import Callable
from math import prod
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aimc_compiler.records import record
from aimc_compiler.rng import Layout

_CONVOLVE: dict[str, Callable[..., Tensor]] = {"conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d}


class Product(Protocol):
    """What an MVM needs to know of its product."""

    @property
    def layout(self) -> Layout:
        """Whether columns come last or before the windows."""

    @property
    def columns_axis(self) -> int:
        """The axis of the columns of a result."""

    def multiply(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Outputs of every window."""

    def kernel_of(self, rows: Tensor, first_row: int) -> Tensor:
        """What ``multiply`` takes for (groups, columns, rows) weights whose first row is ``first_row``."""

    def along_columns(self, values: Tensor) -> Tensor:
        """(groups, columns) values in a shape that broadcasts to a result."""


@record
class Contraction:
    """A linear operation or a convolution. kernel, stride, padding, dilation: one entry a spatial dimension."""

    kind: Literal["linear", "conv1d", "conv2d", "conv3d"]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @property
    def places(self) -> int:
        """Rows an input channel: kernel height times width; 1 for linear."""
        return prod(self.kernel)

    @property
    def sample_axes(self) -> int:
        """Axes of an input without batch."""
        return 1 + len(self.kernel)

    @property
    def layout(self) -> Layout:
        return "sample_call_column" if self.kind == "linear" else "sample_column_call"

    @property
    def columns_axis(self) -> int:
        return -1 if self.kind == "linear" else 2

    def inputs_of(self, x: Tensor, groups: int, first_row: int, rows: int) -> Tensor:
        """The channels that some rows touch, of each group; x: (batch, ..., features) or (batch, channels, *spatial).

        Returns (batch, windows, rows) for linear, (batch, groups, channels, *spatial) for convolutions.
        """
        inputs = x.reshape(self.input_shape(tuple(x.shape), groups))
        if self.kind == "linear":
            return inputs[..., first_row : first_row + rows]
        first, last = self._channels(first_row, rows)
        return inputs[:, :, first:last]

    def multiply(self, x: Tensor, kernel: Tensor) -> Tensor:
        """x: as ``inputs_of`` gives it; kernel: as ``kernel_of`` gives it."""
        if self.kind == "linear":
            return F.linear(x, kernel[0])
        groups = kernel.shape[0]
        y = _CONVOLVE[self.kind](
            x.flatten(1, 2),
            kernel.flatten(0, 1),
            None,
            self.stride,
            self.padding,
            self.dilation,
            groups,
        )
        return torch.unflatten(y, 1, (groups, -1))

    def kernel_of(self, rows: Tensor, first_row: int) -> Tensor:
        """rows: (groups, columns, rows). A kernel cut inside a channel is zero at the places of other blocks."""
        if self.kind == "linear":
            return rows
        first, last = self._channels(first_row, rows.shape[-1])
        before = first_row - first * self.places
        after = last * self.places - first_row - rows.shape[-1]
        padded = F.pad(rows, (before, after)) if before or after else rows
        return padded.reshape(*rows.shape[:2], last - first, *self.kernel).contiguous()

    def along_columns(self, values: Tensor) -> Tensor:
        """(groups, columns) to (columns,) or (groups, columns, 1, ...)."""
        if self.kind == "linear":
            return values.reshape(-1)
        return values.reshape(*values.shape, *(1 for _ in self.kernel))

    def along_inputs(self, values: Tensor) -> Tensor:
        """(groups,) values in a shape that broadcasts to what ``inputs_of`` gives."""
        return values if self.kind == "linear" else values.reshape(-1, 1, *(1 for _ in self.kernel))

    def unfold(self, x: Tensor, first_row: int, rows: int) -> Tensor:
        """(batch, groups, windows, rows): the input vector of each window, where every element needs its own noise.

        x: as ``inputs_of`` gives it. Padding is rows that receive zero.
        """
        if self.kind == "linear":
            return x.unsqueeze(1)
        if self.kind == "conv3d":
            return self._unfold_volume(x, first_row, rows)
        flat = (1,) * (2 - len(self.kernel))
        image = x.flatten(1, 2).reshape(x.shape[0], -1, *flat, *x.shape[3:])
        padding = (*(0 for _ in flat), *self.padding)
        columns = F.unfold(image, (*flat, *self.kernel), (*flat, *self.dilation), padding, (*flat, *self.stride))
        start = first_row - self._channels(first_row, rows)[0] * self.places
        grouped = torch.unflatten(columns, 1, (x.shape[1], -1))
        return grouped[:, :, start : start + rows].transpose(2, 3)

    def _unfold_volume(self, x: Tensor, first_row: int, rows: int) -> Tensor:
        """``unfold`` in any number of dimensions, by views: torch's own unfolds images alone."""
        ends = [pad for pad in reversed(self.padding) for _ in range(2)]
        windows = F.pad(x, ends)
        for axis, (size, step, spread) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True)):
            windows = windows.unfold(3 + axis, spread * (size - 1) + 1, step)[..., ::spread]
        # (batch, groups, channels, *positions, *places) with places inside channels, as the rows of the matrix.
        count = len(self.kernel)
        order = (0, 1, *range(3, 3 + count), 2, *range(3 + count, 3 + 2 * count))
        vectors = windows.permute(order).flatten(2 + count).flatten(2, 1 + count)
        start = first_row - self._channels(first_row, rows)[0] * self.places
        return vectors[..., start : start + rows]

    def from_windows(self, u: Tensor, x: Tensor) -> Tensor:
        """(batch, groups, columns, windows) in the form of ``multiply``; x: the inputs that ``unfold`` took."""
        if self.kind == "linear":
            return u[:, 0].transpose(1, 2)
        return torch.unflatten(u, 3, self._spatial(tuple(x.shape[3:])))

    def input_shape(self, x_shape: tuple[int, ...], groups: int) -> tuple[int, ...]:
        """In which form all inputs of the operation are multiplied, of its input's shape."""
        if self.kind == "linear":
            return x_shape[0], prod(x_shape[1:-1]), x_shape[-1]
        return x_shape[0], groups, x_shape[1] // groups, *x_shape[2:]

    def output_shape(self, x_shape: tuple[int, ...], columns: int) -> tuple[int, ...]:
        """Shape of the operation's output; columns: of all groups together."""
        if self.kind == "linear":
            return (*x_shape[:-1], columns)
        return (x_shape[0], columns, *self._spatial(x_shape[2:]))

    def _spatial(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        fields = zip(sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(
            (size + 2 * pad - step * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, pad, step in fields
        )

    def _channels(self, first_row: int, rows: int) -> tuple[int, int]:
        return first_row // self.places, -(-(first_row + rows) // self.places)


@record
class WindowProduct:
    """The product of unfolded windows (batch, groups, windows, rows): results are (batch, groups, columns, windows)."""

    @property
    def layout(self) -> Layout:
        return "sample_column_call"

    @property
    def columns_axis(self) -> int:
        return 2

    def multiply(self, x: Tensor, kernel: Tensor) -> Tensor:
        return torch.matmul(kernel, x.transpose(2, 3))

    def kernel_of(self, rows: Tensor, first_row: int) -> Tensor:
        """``first_row`` does not matter: windows hold the block's rows alone."""
        return rows

    def along_columns(self, values: Tensor) -> Tensor:
        return values.unsqueeze(-1)
