"""Transposed convolutions in training: a product at each input position, overlaps added digitally.

As the compiler has them (``aimc_compiler.graph.transposed``).
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.analog import Contraction
from aimc_compiler.graph.matrix import MatrixKind
from aimc_compiler.graph.transposed import Overlap, products_weight
from aimc_compiler.training.layers import OneMatrix

_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_KINDS: dict[int, MatrixKind] = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


class _TrainedTransposed(OneMatrix):
    """Transposed convolutions of any number of dimensions."""

    parameter = "weight.T"
    bias: Tensor | None
    groups: int
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As torch's."""
        size = len(self.kernel_size)
        extra = self._output_padding(  # type: ignore[operator]
            x, output_size, self.stride, self.padding, self.kernel_size, size, self.dilation
        )
        products = self.analog(x, self.blocks("weight"), None)
        ones = self._overlap(tuple(extra)).single_ones(products)
        steps = (self.stride, self.padding, tuple(extra), self.out_channels, self.dilation)
        return _TRANSPOSED[size](products, ones, self.bias, *steps)

    def blocks(self, name: str) -> Tensor:
        return products_weight(self.weight, self.groups).reshape(self.analog.shape)

    def replace(self, name: str, blocks: Tensor) -> None:
        self.weight.data.copy_(blocks.transpose(1, 2).reshape(self.weight.shape))

    def _shape(self) -> tuple[int, int, int]:
        columns = self.out_channels // self.groups * prod(self.kernel_size)
        return self.groups, columns, self.in_channels // self.groups

    def _contraction(self) -> Contraction:
        size = len(self.kernel_size)
        return Contraction(
            kind=_KINDS[size], kernel=(1,) * size, stride=(1,) * size, padding=(0,) * size, dilation=(1,) * size
        )

    def _overlap(self, extra: tuple[int, ...]) -> Overlap:
        return Overlap(
            outputs=self.out_channels,
            kernel=tuple(self.kernel_size),
            stride=tuple(self.stride),
            padding=tuple(self.padding),
            output_padding=extra,
            dilation=tuple(self.dilation),
        )


class TrainedConvTranspose1d(_TrainedTransposed, nn.ConvTranspose1d):  # type: ignore[misc]
    """``nn.ConvTranspose1d`` on tiles."""

    plain = nn.ConvTranspose1d


class TrainedConvTranspose2d(_TrainedTransposed, nn.ConvTranspose2d):  # type: ignore[misc]
    """``nn.ConvTranspose2d`` on tiles."""

    plain = nn.ConvTranspose2d


class TrainedConvTranspose3d(_TrainedTransposed, nn.ConvTranspose3d):  # type: ignore[misc]
    """``nn.ConvTranspose3d`` on tiles."""

    plain = nn.ConvTranspose3d


TRANSPOSED: tuple[Any, ...] = (TrainedConvTranspose1d, TrainedConvTranspose2d, TrainedConvTranspose3d)
