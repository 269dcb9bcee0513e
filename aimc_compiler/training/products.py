"""Products of float32 matrices on the CPU, by the faster of two libraries: that of torch's BLAS, or oneDNN.

oneDNN is what torch's own float LSTM runs on. Where the processor has AVX-512 and the BLAS library does not know it,
oneDNN takes half the time; with AVX2 it is as fast at best, and with a transposed operand, which it copies, it takes up
to 2.7 times as long.
Which of the two is taken follows from shapes and processor alone, so a product has the same bits whenever it is made
again.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Multiplications that are worth the call of oneDNN, and the least width at which its reordering of an operand is.
_WORTH, _LEAST = 1 << 21, 64


def product(x: Tensor, y: Tensor) -> Tensor:
    """``x @ y``: (rows, inner), (inner, outputs)."""
    return linear(x, y.T)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T``: (..., inner), (outputs, inner)."""
    onednn = _onednn(x, weight)
    return F.linear(x, weight) if onednn is None else onednn(x, weight, None, "none", [], "")


def product_into(x: Tensor, y: Tensor, out: Tensor) -> None:
    """``out = x @ y``. out: (rows, outputs)."""
    onednn = _onednn(x, y)
    if onednn is None:
        torch.mm(x, y, out=out)
    else:
        out.copy_(onednn(x, y.T, None, "none", [], ""))


def add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """``total += x @ y``. total: (rows, outputs)."""
    onednn = _onednn(x, y)
    if onednn is None:
        total.addmm_(x, y)
    else:
        total.add_(onednn(x, y.T, None, "none", [], ""))


def _onednn(x: Tensor, y: Tensor) -> Callable[..., Tensor] | None:
    """oneDNN's product where it is worth it. x: (..., inner)."""
    rows = x.shape[:-1].numel()
    if x.dtype != torch.float32 or x.device.type != "cpu" or rows * y.numel() < _WORTH:
        return None
    if not x.is_contiguous() and min(rows, x.shape[-1], *y.shape) < _LEAST:
        return None
    return _found()


@cache
def _found() -> Callable[..., Tensor] | None:
    """oneDNN's product, where this processor gains by it, and this torch has it and it is one."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    try:
        found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise.default
        x, w = torch.arange(6.0).reshape(2, 3), torch.arange(12.0).reshape(4, 3)
        return found if torch.equal(found(x, w, None, "none", [], ""), x @ w.T) else None
    except (AttributeError, RuntimeError):
        return None
