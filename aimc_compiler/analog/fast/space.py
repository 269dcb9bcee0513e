"""The memory of one thread, and the integer products of a chunk in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.fast.block import FastBlock
from aimc_compiler.records import record

Bytes = npt.NDArray[np.int8]
Sums = npt.NDArray[np.int32]


class NotFiniteError(Exception):
    """An input is not a finite number; the operation that ran says so to its user."""


@record
class _Product:
    """One integer product: first @ second into out."""

    first: Tensor
    second: Tensor
    out: Tensor

    def run(self) -> None:
        torch._int_mm(self.first, self.second, out=self.out)


@record
class BlockSums:
    """Sums of the digits of w, w p and |w|, and where each begins in them; products: that make them."""

    main: Sums
    load: Sums
    places: npt.NDArray[np.int64]
    products: tuple[_Product, ...]


class Space:
    """Codes and sums of a chunk of one block: ``count`` rows, or ``count`` positions of windows.

    codes: (4, count, rows) or (4, rows, count); sums: (count, digits * columns) or (digits * columns, count).
    """

    def __init__(self, block: FastBlock, count: int, by_rows: bool, memory: "Memory") -> None:
        plan = block.plan
        self._by_rows, self._count, self._memory = by_rows, count, memory
        codes = memory.of("codes", (4, count, block.rows) if by_rows else (4, block.rows, count), torch.int8)
        self.codes: Bytes = codes.numpy()
        self.power = [self._product(block.power, codes[2 + k], f"power {k}") for k in range(plan.power)]
        squares = [product.out for product in self.power] or [
            memory.of("none", self._shape(block.columns), torch.int32)
        ]
        self.high: Sums = squares[0].numpy()
        self.low: Sums = squares[-1].numpy()
        self.joint = self._sums(block, (self._product(block.digits, codes[0], "main"),), nonnegative=True)
        self.apart = self.joint
        if plan.far:
            products = (self._product(block.joint, codes[0], "main"), self._product(block.load, codes[1], "load"))
            self.apart = self._sums(block, products, nonnegative=False)
        elif plan.load:
            self.joint = self.apart = self._sums(
                block, (self._product(block.joint, codes[0], "main"),), nonnegative=True
            )
        self.lines: tuple[npt.NDArray[Any], ...] = ()
        if not by_rows:
            numbers = memory.of("numbers", (2, count), torch.int64).numpy().view(np.uint64)
            self.lines = (numbers, memory.of("lines", (9, count), torch.float32).numpy())

    def multiply(self, flags: int) -> BlockSums:
        """All integer products of the codes. flags: of the inputs. Raises NotFiniteError."""
        from aimc_compiler.analog.fast import inputs

        if flags & inputs.NOT_FINITE:
            raise NotFiniteError
        sums = self.apart if flags & inputs.NEGATIVE else self.joint
        for product in (*sums.products, *self.power):
            product.run()
        return sums

    def _sums(self, block: FastBlock, products: tuple[_Product, ...], *, nonnegative: bool) -> BlockSums:
        return BlockSums(
            main=products[0].out.numpy(),
            load=products[-1].out.numpy(),
            places=block.places(nonnegative),
            products=products,
        )

    def _product(self, weights: Tensor, codes: Tensor, name: str) -> _Product:
        out = self._memory.of(name, self._shape(weights.shape[0]), torch.int32)
        if self._by_rows:
            return _Product(first=codes, second=weights.t(), out=out)
        return _Product(first=weights, second=codes, out=out)

    def _shape(self, columns: int) -> tuple[int, int]:
        return (self._count, columns) if self._by_rows else (columns, self._count)


class Memory:
    """Buffers by name, each with room for the largest shape it was asked for; one thread's at a time."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}
        self.made: WeakKeyDictionary[FastBlock, dict[int, Space]] = WeakKeyDictionary()

    def of(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = prod(shape)
        held = self._held.get(name)
        if held is None or held.numel() < size:
            held = self._held[name] = torch.empty(size, dtype=dtype)
            self.made.clear()
        return held[:size].view(shape)

    def space(self, block: FastBlock, count: int, *, by_rows: bool) -> "Space":
        """The space of some rows or positions through a block; kept for as long as the block is."""
        spaces = self.made.get(block)
        space = spaces.get(count) if spaces else None
        if space is None:
            space = Space(block, count, by_rows, self)
            self.made.setdefault(block, {})[count] = space
        return space

    def cells(self, shape: tuple[int, int]) -> Bytes:
        """(4, phases, cells) for one channel's codes."""
        cells: Bytes = self.of("cells", (4, *shape), torch.int8).numpy()
        return cells


_SPARE: list[Memory] = []


@contextmanager
def memory() -> Iterator[Memory]:
    """The memory of a thread while it works; it is used again, so that it need not be mapped anew each time."""
    held = _SPARE.pop() if _SPARE else Memory()
    try:
        yield held
    finally:
        _SPARE.append(held)
