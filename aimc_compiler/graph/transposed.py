"""Transposed convolutions: a product at each input position, and a digital sum of where the results overlap.

The vector of channels at an input position gives a block of ``outputs x places`` values, which a matrix of
(channels) rows and (outputs x places) columns makes in one MVM; blocks of neighbouring positions overlap and are added
digitally. No row ever receives one of the zeros that the usual picture, a convolution over a stretched input, is
full of. The sum is written as the transposed convolution of each output with kernels of a single one.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from aimc_compiler.graph.arguments import arguments, spread
from aimc_compiler.graph.matrix import MatrixKind
from aimc_compiler.records import record

_KINDS: dict[int, MatrixKind] = {1: "conv1d", 2: "conv2d", 3: "conv3d"}
_OPERATIONS: dict[int, Any] = {
    1: torch.ops.aten.conv_transpose1d.default,
    2: torch.ops.aten.conv_transpose2d.input,
    3: torch.ops.aten.conv_transpose3d.input,
}


@record
class Overlap:
    """What a transposed convolution does with its products: all arguments of torch's, one int a dimension."""

    outputs: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, node: fx.Node, weight: Tensor) -> "Overlap":
        values, count = arguments(node), weight.dim() - 2
        return cls(
            outputs=weight.shape[1] * values["groups"],
            kernel=tuple(weight.shape[2:]),
            stride=spread(values["stride"], count),
            padding=spread(values["padding"], count),
            output_padding=spread(values["output_padding"], count),
            dilation=spread(values["dilation"], count),
        )

    @property
    def kind(self) -> MatrixKind:
        """Of the products: a convolution of one place."""
        return _KINDS[len(self.kernel)]

    def single_ones(self, like: Tensor) -> Tensor:
        """(outputs * places, 1, *kernel): channel ``output * places + place`` has its one at its place."""
        places = prod(self.kernel)
        ones = torch.eye(places, dtype=like.dtype, device=like.device).reshape(places, 1, *self.kernel)
        return ones.repeat(self.outputs, *(1,) * (ones.dim() - 1))

    def add(self, graph: fx.Graph, products: fx.Node, ones: fx.Node, bias: fx.Node | None) -> fx.Node:
        """The node that adds products up. ones: of ``single_ones``; bias: (outputs,)."""
        steps = (list(self.stride), list(self.padding), list(self.output_padding), self.outputs, list(self.dilation))
        return graph.call_function(_OPERATIONS[len(self.kernel)], (products, ones, bias, *steps))


def products_weight(weight: Tensor, groups: int) -> Tensor:
    """(outputs * places, channels / groups, 1, ...), from torch's (channels, outputs / groups, *kernel)."""
    grouped = weight.reshape(groups, weight.shape[0] // groups, -1)
    return grouped.transpose(1, 2).reshape(-1, grouped.shape[1], *(1,) * (weight.dim() - 2)).contiguous()
