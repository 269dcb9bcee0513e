"""Attention as the networks of the zoo share it: products written out, so that each has its place and its price.

Vaswani et al., "Attention is all you need", NeurIPS 2017, equation 1.
"""

import math

import torch
from torch import Tensor, nn


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, time, heads * size) to (batch, heads, time, size)."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(batch, heads, time, size) to (batch, time, heads * size)."""
    return x.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(size) + mask) V, over the last two dimensions: (..., time, size).

    mask: added to the scores (..., time of the query, time of the key); 0 where attention may go.
    """
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1) @ value


def causal_mask(x: Tensor) -> Tensor:
    """(time, time) for x (batch, time, ...): minus infinity above the diagonal, 0 elsewhere; of x's floating type."""
    return torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype, device=x.device).triu(1)


def padding_mask(attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """(batch, 1, 1, time): 0 where ``attention_mask`` (batch, time) is 1, the lowest number where it is 0.

    The lowest number and not minus infinity: a sample of padding alone then has finite outputs.
    """
    if attention_mask is None:
        return None
    return (1.0 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


class SelfAttention(nn.Module):
    """Queries, keys and values from one tensor, and attention between them; no projection behind it.

    x: (batch, time, width), mask: added to the scores, as ``attend`` takes it; returns (batch, time, width).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        require_heads(width, heads)
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        return join_heads(attend(query, key, value, mask))


def require_heads(width: int, heads: int) -> None:
    """Raises ValueError where ``heads`` does not divide ``width``."""
    if width % heads:
        raise ValueError(f"{heads} heads do not divide a width of {width}: choose a multiple of {heads}")
