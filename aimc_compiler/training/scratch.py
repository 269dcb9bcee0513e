"""Memory that is used again: a step would else fault in the pages of each array anew, for longer than it fills them."""

import threading
import weakref
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


class Scratch(threading.local):
    """Arrays of each thread's own; a copy begins empty. They begin where torch would have them begin, at 64 bytes."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[Any]] = {}
        self._free: dict[tuple[int, torch.dtype], list[npt.NDArray[Any]]] = {}

    def floats(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """An array of this shape with any content; who asked for this name before must be done with it."""
        return self._taken(name, shape, torch.float32)

    def halves(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
        """As ``floats``, of 16-bit words."""
        return self._taken(name, shape, torch.int16).view(np.uint16)

    def lent(self, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        """A tensor with any content, whose memory comes back when nothing holds it any more."""
        word = torch.int16 if kind == torch.bfloat16 else kind
        free = self._free.setdefault((prod(shape), word), [])
        held = free.pop() if free else torch.empty(prod(shape), dtype=word).numpy()
        array = held.reshape(shape)  # an object of its own, which the tensor's storage holds
        weakref.finalize(array, free.append, held).atexit = False
        return torch.from_numpy(array).view(kind)

    def _taken(self, name: str, shape: tuple[int, ...], kind: torch.dtype) -> npt.NDArray[Any]:
        count, held = prod(shape), self._held.get(f"{name} {kind}")
        if held is None or held.size < count:
            held = self._held[f"{name} {kind}"] = torch.empty(count, dtype=kind).numpy()
        return held[:count].reshape(shape)

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        return Scratch, ()
