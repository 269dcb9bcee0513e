"""Input ranges in training: a rule for the gradient, and what they begin with.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "Hardware-aware training". For the first mini-batches a range r
follows the inputs, ``r <- (r k + sigmas std(x)) / (k + 1)``; afterwards the optimiser has the gradient::

    r [ sum_{x >= r} min(g, 0) - sum_{x <= -r} max(g, 0) ]      g = dL/dx behind the clip

with ``decay r`` added where more than a share of the inputs lies inside. It is a rule, not a derivative: r grows where
clipped inputs would lower the loss by being larger, and shrinks where they need no room.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.records import record

Doubles = npt.NDArray[np.float64]

#: What a range may not fall below.
LEAST_RANGE = 1e-6


@record
class RangeRule:
    """decay, inside: as above; learns: False where the range's gradient is to be 0."""

    decay: float
    inside: float
    learns: bool

    def gradient(self, ranges: Any, pull: Doubles, inside: Doubles, counts: Any) -> Doubles:
        """Of ranges, from sums: what clipped inputs pull by, how many inputs lie inside and how many there are; shapes
        that broadcast."""
        if not self.learns:
            return np.zeros(np.broadcast_shapes(np.shape(ranges), pull.shape))
        found: Doubles = ranges * (pull + self.decay * (inside > self.inside * counts))
        return found


def scaled(x: Tensor, r: Tensor, decay: float, inside: float, *, learns: bool) -> Tensor:
    """``clip(x, -r, r) / r``, any shape; the gradient of x is that of the clip, that of r the rule's (0 if not learns).

    r: broadcasts to x, positive. Its gradient is summed over what it was broadcast along.
    """
    if not torch.is_grad_enabled() or not (x.requires_grad or r.requires_grad):
        return torch.clamp(x / r, -1, 1)
    result: Tensor = _Scaled.apply(x, r, decay, inside, learns)  # type: ignore[no-untyped-call]
    return result


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, r: Tensor, decay: float, inside: float, learns: bool) -> Tensor:
        ctx.save_for_backward(x, r)
        ctx.rule = decay, inside, learns
        return (x / r).clamp_(-1, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, r = ctx.saved_tensors
        decay, inside, learns = ctx.rule
        behind = gradient / r
        kept = x.abs() < r
        to_r = None
        if ctx.needs_input_grad[1]:
            to_r = torch.zeros_like(r) if not learns else _rule(x, r, behind, kept, decay, inside)
        if not ctx.needs_input_grad[0]:
            return None, to_r, None, None, None
        # On the bound itself, the derivative of torch's clamp: it passes the gradient.
        return behind.mul_(kept | (x.abs() == r)), to_r, None, None, None


def _rule(x: Tensor, r: Tensor, behind: Tensor, kept: Tensor, decay: float, inside: float) -> Tensor:
    """The gradient of r. behind: of the loss to the clipped inputs."""
    # min(g, 0) above r and -max(g, 0) below -r are both min(g sign(x), 0) at clipped inputs.
    pull = torch.where(kept, torch.zeros_like(behind), (behind * x.sign()).clamp_(max=0))
    total = r * _summed(pull, r)
    share = _summed(kept.to(x.dtype), r) / (x.numel() // r.numel())
    return total + torch.where(share > inside, decay * r, torch.zeros_like(r))


def _summed(values: Tensor, like: Tensor) -> Tensor:
    """Summed to the shape of ``like``, which broadcasts to ``values``."""
    return values.sum_to_size(like.shape)
