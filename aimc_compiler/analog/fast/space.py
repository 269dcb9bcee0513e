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
    """Sums of the digits of w, w p and |w| and where each begins in them, and of the digits of x^2; products: that
    make them."""

    main: Sums
    load: Sums
    places: npt.NDArray[np.int64]
    high: Sums
    low: Sums
    products: tuple[_Product, ...]


class Space:
    """Codes and sums of a chunk of one block: ``count`` rows, or ``count`` positions of windows.

    codes: (4, count, rows) or (4, rows, count); sums: (count, digits * columns) or (digits * columns, count).
    """

    def __init__(self, block: FastBlock, count: int, by_rows: bool, memory: "Memory") -> None:
        # No reference to the block: it would live as long as what is kept for it.
        self._by_rows, self._count, self._memory = by_rows, count, memory
        self._planes = memory.of("codes", (4, count, block.rows) if by_rows else (4, block.rows, count), torch.int8)
        self.codes: Bytes = self._planes.numpy()
        self._joint = self._sums(block, nonnegative=True)
        self._apart = self._sums(block, nonnegative=False) if block.plan.far else self._joint
        self.lines: tuple[npt.NDArray[Any], ...] = ()
        if not by_rows:
            numbers = memory.of("numbers", (2, count), torch.int64).numpy().view(np.uint64)
            self.lines = (numbers, memory.of("lines", (9, count), torch.float32).numpy())

    def multiply(self, flags: int) -> BlockSums:
        """All integer products of the codes. flags: of the inputs. Raises NotFiniteError."""
        from aimc_compiler.analog.fast import inputs

        if flags & inputs.NOT_FINITE:
            raise NotFiniteError
        sums = self._apart if flags & inputs.NEGATIVE else self._joint
        for product in sums.products:
            product.run()
        return sums

    def _sums(self, block: FastBlock, *, nonnegative: bool) -> BlockSums:
        """nonnegative: codes are their own magnitudes, so w, w p and |w| meet them in one product."""
        plan = block.plan
        whole = nonnegative and plan.far > 0
        main = self._product(block.digits if whole else block.joint, self._planes[0], "main")
        products, load = [main], main.out
        loads = 1 if plan.far and not nonnegative else 0
        sides: list[Tensor] = []
        if self._by_rows and plan.load == 1 and loads + plan.power:
            # Magnitudes and squares meet the same weights: one product of all.
            planes = self._planes[2 - loads : 2 + plan.power].view(-1, block.rows)
            out = self._memory.of("sides", (planes.shape[0], block.columns), torch.int32)
            products.append(_Product(first=planes, second=block.load.t(), out=out))
            sides = list(out.view(-1, self._count, block.columns))
        else:
            if loads:
                products.append(self._product(block.load, self._planes[1], "load"))
            products += [self._product(block.power, self._planes[2 + k], f"power {k}") for k in range(plan.power)]
            sides = [product.out for product in products[1:]]
        if loads:
            load = sides[0]
        squares = sides[loads:] or [self._memory.of("none", self._shape(block.columns), torch.int32)]
        return BlockSums(
            main=main.out.numpy(),
            load=load.numpy(),
            places=block.places(nonnegative),
            high=squares[0].numpy(),
            low=squares[-1].numpy(),
            products=tuple(products),
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
            # Written by threads that do not inherit the caller's inference mode.
            with torch.inference_mode(False):
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

    def codes(self, name: str, shape: tuple[int, ...]) -> Bytes:
        """Four planes of codes of this shape."""
        codes: Bytes = self.of(name, (4, *shape), torch.int8).numpy()
        return codes


_SPARE: list[Memory] = []


@contextmanager
def memory() -> Iterator[Memory]:
    """The memory of a thread while it works; it is used again, so that it need not be mapped anew each time."""
    try:
        held = _SPARE.pop()  # not asked beforehand whether there is one: another thread may take the last
    except IndexError:
        held = Memory()
    try:
        yield held
    finally:
        _SPARE.append(held)
