"""Gradients through what has none: rounding passes them on as if it were not there, noise is a constant.

The straight-through estimator (Bengio, Léonard, Courville, arXiv:1308.3432 (2013)), as in the hardware-aware training
of Rasch et al., Nat. Commun. 14, 5282 (2023), Methods: values are those of the converters, gradients those of the same
chain without steps. Values do not change by a bit, and where no gradient is asked for nothing is done.
"""

from typing import Any

import torch
from torch import Tensor


def tracks(x: Tensor) -> bool:
    """Whether a gradient is asked of what is computed from ``x`` now."""
    return x.requires_grad and torch.is_grad_enabled()


def straight_through(value: Tensor, smooth: Tensor) -> Tensor:
    """``value``, with the gradient of ``smooth``: both of one shape. Once differentiable or more often, as ``smooth``.

    >>> x = torch.tensor([0.4, 1.7], requires_grad=True)
    >>> straight_through(x.round(), x).sum().backward()
    >>> x.grad
    tensor([1., 1.])
    """
    return _with_gradient_of(value.detach(), smooth) if tracks(smooth) else value


def constant(x: Tensor) -> Tensor:
    """``x``, through which no gradient passes."""
    return x.detach() if x.requires_grad else x


def _with_gradient_of(value: Tensor, smooth: Tensor) -> Tensor:
    result: Tensor = _StraightThrough.apply(value, smooth)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    # ``value + (smooth - smooth.detach())`` would do in torch's own operations, but turns -0 into 0.
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, smooth: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient
