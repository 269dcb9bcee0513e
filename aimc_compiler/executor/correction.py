"""Corrections of a chip's digital output factors and biases, fitted to what the chip gives at some time.

Two kinds, both free at run time, because factor and bias are multiplied and added digitally anyhow:

* *columns*: an affine map for each output, least squares of the product in the floating-point network on the chip's,
  of the same samples: ``a_i = cov(p_i, u_i) / var(u_i)``, ``b_i = mean p_i - a_i mean u_i``. It takes out what a column
  does wrong by itself and, on average, what the layers before it do;
* *norms*: mean and variance of a folded batch norm, measured on the chip's outputs instead of the network's (Joshi et
  al., Nat. Commun. 11, 2473 (2020), "AdaBS"; Rasch et al., Nat. Commun. 14, 5282 (2023), Methods).

Both take one pass over their batches: each operation is corrected by all it has seen up to and with the present batch,
so that those behind it see inputs as they will be.
"""

from collections import deque
from typing import Protocol

import torch
from torch import Tensor, nn

from aimc_compiler.errors import CalibrationError
from aimc_compiler.graph import MatrixModule, NormStatistics


class OutputScaling:
    """Digital factor and bias of one operation's outputs. gain, offset: (outputs,) float64 of the column correction,
    None without one; norm: the batch norm in force, None for an operation without."""

    def __init__(self, module: MatrixModule) -> None:
        self.module = module
        self.gain: Tensor | None = None
        self.offset: Tensor | None = None
        self.norm = module.norm

    def copy(self) -> "OutputScaling":
        """Another with the same corrections, to be fitted."""
        twin = OutputScaling(self.module)
        twin.gain, twin.offset, twin.norm = self.gain, self.offset, self.norm
        return twin

    def digital(self) -> tuple[Tensor | None, Tensor | None]:
        """(factor, bias), each (outputs,) or None: the network's own where nothing was corrected."""
        module = self.module
        factor, bias = module.factor, module.bias
        if self.norm is not None and self.norm is not module.norm:
            factor, bias = self.norm.fold(module.own_bias)
        if self.gain is None or self.offset is None:
            return factor, bias
        slope = self.gain.new_ones(()) if factor is None else factor.to(self.gain)
        shift = slope * self.offset + (0 if bias is None else bias.to(self.gain))
        return (slope * self.gain).to(module.weight.dtype), shift.to(module.weight.dtype)

    def apply(self, product: Tensor) -> Tensor:
        """Outputs of the chip's raw ``product``, any batch."""
        factor, bias = self.digital()
        per_output = self.module.per_output
        y = product if factor is None else product * per_output(factor).to(product)
        return y if bias is None else y + per_output(bias).to(y)

    def corrected(self, values: Tensor) -> Tensor:
        """(n, outputs) raw products after the column correction, in float64."""
        return values if self.gain is None or self.offset is None else values * self.gain + self.offset

    def flat(self, product: Tensor) -> Tensor:
        """(n, outputs) of a product in any batch form, in float64 on the CPU."""
        axis = product.dim() - 1 - self.module.spatial
        return product.detach().movedim(axis, -1).reshape(-1, product.shape[axis]).to("cpu", torch.float64)


class Fit(Protocol):
    """A correction being fitted: sees the raw products of each batch and keeps its scaling up to date."""

    scaling: OutputScaling

    def observe(self, product: Tensor) -> None: ...


class Recorded(nn.Module):
    """A matrix operation in floating point that keeps its products, samples first, until they are taken.

    One a batch; in a recurrent layer one a step.
    """

    def __init__(self, module: MatrixModule, batch_axis: int) -> None:
        super().__init__()
        self.module, self.batch_axis = module, batch_axis
        self.products: deque[Tensor] = deque()

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output."""
        self.products.append(self.module.product(x).movedim(self.batch_axis, 0))
        y: Tensor = self.module(x)
        return y


class ColumnFit:
    """Fits gain and offset of one operation. recorded: ran the same batch in floating point before."""

    def __init__(self, scaling: OutputScaling, recorded: Recorded) -> None:
        self.scaling, self._recorded = scaling, recorded
        scaling.gain = scaling.offset = None
        self._count = 0
        self._sums: Tensor | None = None

    def observe(self, product: Tensor) -> None:
        """product: the chip's, samples first, without factor and bias."""
        u, p = self.scaling.flat(product), self.scaling.flat(self._recorded.products.popleft())
        sums = torch.stack([u.sum(0), p.sum(0), u.square().sum(0), (u * p).sum(0)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += u.shape[0]
        u_mean, p_mean, u_square, u_p = self._sums / self._count
        variance = u_square - u_mean.square()
        moves = variance > 1e-12 * u_square  # an output that is constant but for rounding has an offset alone
        gain = torch.where(moves, (u_p - u_mean * p_mean) / torch.where(moves, variance, 1.0), 1.0)
        self.scaling.gain, self.scaling.offset = gain, p_mean - gain * u_mean


class NormFit:
    """Measures mean and variance for the batch norm of one operation."""

    def __init__(self, scaling: OutputScaling, norm: NormStatistics) -> None:
        self.scaling, self._norm = scaling, norm
        self._count = 0
        self._sums: Tensor | None = None

    def observe(self, product: Tensor) -> None:
        """product: the chip's, without factor and bias. Raises CalibrationError on a single value an output."""
        values = self.scaling.corrected(self.scaling.flat(product))
        own = self.scaling.module.own_bias
        values = values if own is None else values + own.to(values)
        sums = torch.stack([values.sum(0), values.square().sum(0)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += values.shape[0]
        if self._count < 2:
            raise CalibrationError("one value an output has no variance: give batches of two samples or more")
        mean, square = self._sums / self._count
        variance = (square - mean.square()).clamp(min=0) * self._count / (self._count - 1)
        old = self._norm
        self.scaling.norm = NormStatistics(mean.to(old.mean), variance.to(old.var), old.gamma, old.beta, old.eps)
