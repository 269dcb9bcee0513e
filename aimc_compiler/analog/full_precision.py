"""The precision that a matrix is computed in, whatever ``torch.autocast`` is set to around it."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


class OnDevice(Protocol):
    """What has tensors on one device."""

    target: Tensor


S = TypeVar("S", bound=OnDevice)


def full_precision(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """``method`` without autocast: products in half precision would be off by more than the converters resolve."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        device = self.target.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return method(self, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return method(self, *args, **kwargs)

    return run
