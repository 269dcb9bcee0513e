"""A matrix operation as a module: a stationary weight, a digital multiplier per output, and a bias.

Linear layers and convolutions are products with a weight that stays where it is; all else about them is digital::

    y = conv(x, weight) * factor + bias

``weight`` is the network's own, never scaled: a folded batch norm goes to ``factor`` and ``bias`` (``fold.py``).
"""

from collections.abc import Callable
from math import prod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.workload.ir import MatrixKey

MatrixKind = Literal["linear", "conv1d", "conv2d", "conv3d"]
KINDS: tuple[str, ...] = get_args(MatrixKind)
_CONVOLVE: dict[str, Callable[..., Tensor]] = {"conv1d": F.conv1d, "conv2d": F.conv2d, "conv3d": F.conv3d}


class NormStatistics(nn.Module):
    """The batch norm that was folded into a matrix operation, kept as it was.

    mean, var: (outputs,), the running statistics; gamma, beta: (outputs,) or None for a norm without them; eps.
    """

    def __init__(self, mean: Tensor, var: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> None:
        super().__init__()
        self.mean: Tensor
        self.var: Tensor
        self.gamma: Tensor | None
        self.beta: Tensor | None
        for name, value in (("mean", mean), ("var", var), ("gamma", gamma), ("beta", beta)):
            self.register_buffer(name, value)
        self.eps = eps

    def fold(self, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """(factor, bias) of the norm applied to ``product + bias``, each (outputs,).

        Computed in double precision and rounded once, so that folding costs no accuracy.
        """
        mean, var = self.mean.double(), self.var.double()
        factor = torch.rsqrt(var + self.eps)
        if self.gamma is not None:
            factor = factor * self.gamma.double()
        offset = (bias.double() - mean if bias is not None else -mean) * factor
        if self.beta is not None:
            offset = offset + self.beta.double()
        return factor.to(self.mean.dtype), offset.to(self.mean.dtype)


class MatrixModule(nn.Module):
    """One use of a weight matrix, in floating point.

    kind: "linear", "conv1d", "conv2d" or "conv3d"; parameter: the path of the weight in the network, its identity;
    weight: (outputs, inputs) or (outputs, inputs / groups, *kernel); factor, bias: (outputs,) or None;
    stride, padding, dilation: one int a spatial dimension (empty for linear); norm: the folded batch norm or None;
    own_bias: (outputs,) or None, the bias before the norm was folded.
    """

    def __init__(
        self,
        kind: MatrixKind,
        parameter: str,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        dilation: tuple[int, ...] = (),
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.parameter = parameter
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
        self.factor: Tensor | None
        self.bias: Tensor | None
        self.own_bias: Tensor | None
        self.register_buffer("factor", None)
        self.register_buffer("bias", bias)
        self.register_buffer("own_bias", bias)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.norm: NormStatistics | None = None

    @property
    def key(self) -> MatrixKey:
        """Of its matrix, which other operations may use too."""
        return self.parameter, self.groups

    @property
    def spatial(self) -> int:
        """Number of spatial dimensions: 0 to 3."""
        return self.weight.dim() - 2

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel size, one int a spatial dimension; () for linear."""
        return tuple(self.weight.shape[2:])

    @property
    def rows(self) -> int:
        """Inputs of one group: channels times kernel places."""
        return prod(self.weight.shape[1:])

    @property
    def columns(self) -> int:
        """Outputs of one group."""
        return int(self.weight.shape[0]) // self.groups

    def blocks(self) -> Tensor:
        """The weight as (groups, columns, rows); row = channel * kernel places + place."""
        return self.weight.reshape(self.groups, self.columns, self.rows)

    def with_blocks(self, blocks: Tensor, *, with_bias: bool) -> "MatrixModule":
        """The same operation with another weight; factor stays, bias and norm do so if with_bias.

        blocks: (groups, columns, rows).
        """
        weight = blocks.reshape(self.weight.shape)
        twin = MatrixModule(
            self.kind, self.parameter, weight, None, self.stride, self.padding, self.dilation, self.groups
        )
        twin.factor = self.factor
        if with_bias:
            twin.bias, twin.own_bias, twin.norm = self.bias, self.own_bias, self.norm
        return twin

    def product(self, x: Tensor) -> Tensor:
        """The product with the weight alone. x: (..., inputs) for linear, (..., channels, *places) otherwise."""
        if self.kind == "linear":
            return F.linear(x, self.weight)
        return _CONVOLVE[self.kind](x, self.weight, None, self.stride, self.padding, self.dilation, self.groups)

    def per_output(self, values: Tensor) -> Tensor:
        """(outputs,) shaped to broadcast against the result of ``product``."""
        return values.reshape(-1, *(1,) * self.spatial)

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x)
        if self.factor is not None:
            y = y * self.per_output(self.factor)
        if self.bias is not None:
            y = y + self.per_output(self.bias)
        # The statistics of a folded norm may be of higher precision: a norm keeps its input's type.
        return y.to(x.dtype)

    def fold_norm(self, norm: NormStatistics) -> None:
        """Take over a batch norm that follows: the weight stays, factor and bias become the norm's."""
        self.norm = norm
        factor, bias = norm.fold(self.own_bias)
        self.factor, self.bias = factor, bias

    def extra_repr(self) -> str:
        text = f"{self.kind}, weight={tuple(self.weight.shape)}, parameter={self.parameter!r}"
        return text + (f", groups={self.groups}" if self.groups > 1 else "")
