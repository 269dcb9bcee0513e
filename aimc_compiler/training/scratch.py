"""Memory for what lives within one pass, kept for the next: a step would else fault in the pages of each anew."""

import threading
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt


class Scratch(threading.local):
    """Arrays by name, of each thread its own, as large as the largest use so far. A copy begins empty."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[Any]] = {}

    def floats(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """An array of this shape with any content; who asked for this name before must be done with it."""
        return self._taken(name, shape, np.float32)

    def halves(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint16]:
        """As ``floats``, of 16-bit words."""
        return self._taken(name, shape, np.uint16)

    def _taken(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        count, held = prod(shape), self._held.get(name)
        if held is None or held.size < count or held.dtype != dtype:
            held = self._held[name] = np.empty(count, dtype)
        return held[:count].reshape(shape)

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        return Scratch, ()
