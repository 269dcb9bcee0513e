"""Large tensors in memory of their own.

States come and go with the times that are asked for. Taken from the allocator's heaps, one a thread, their memory would
stay there in pieces; pages of their own go back to the system when the tensor does.
"""

from math import prod
from mmap import mmap

import torch
from torch import Tensor

_LARGE_BYTES = 1 << 20


def empty_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor of this shape; in pages of its own where it is large."""
    size = prod(shape) * dtype.itemsize
    if size < _LARGE_BYTES:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mmap(-1, size), dtype=dtype).view(shape)
