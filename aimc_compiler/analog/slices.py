"""Weights cut into slices: several cells a weight, each with some of its bits, in columns of their own.

With K slices of c bits (B = K c), slice 0 the most significant, and d_k the digit of slice k, 0 to 2^c - 1::

    differential     |w| (2^B - 1) = sum_k 2^(c (K - 1 - k)) d_k    the sign chooses the device
    offset_column    w (2^(B-1) - 1) + 2^(B-1) = sum_k 2^(c (K - 1 - k)) d_k    the offset is subtracted digitally

A cell is programmed to ``d_k / (2^c - 1)`` of g_max. One slice without ``bits_per_slice`` is analog: in an offset
column ``g = (w + 1) / 2``. The offset, and what a flipped column lacks, go with the sum of a window's inputs, which is
formed digitally.

Flipped columns (Shafiee et al., ISCA 2016, section V): a column of one slice whose digits sum to more than half of
what they could stores ``1 - g`` instead, so that its output needs one bit less.
"""

import torch
from torch import Tensor

from aimc_compiler.analog.straight_through import straight_through, tracks
from aimc_compiler.chip.stored import Device
from aimc_compiler.records import record


@record
class Slices:
    """How weights lie in cells. factors: of each slice's state in the weight; offset: what is subtracted from the sum.

    levels: steps of a cell, 0 where it is analog; offset_column: cells hold no sign.
    """

    factors: tuple[float, ...] = (1.0,)
    offset: float = 0.0
    levels: int = 0
    offset_column: bool = False
    flips: bool = False

    @classmethod
    def of(cls, device: Device) -> "Slices":
        offset = device.encoding == "offset_column"
        flips = device.flip_columns
        if device.bits_per_slice is None:
            return cls(factors=(2.0,), offset=1.0, offset_column=True, flips=flips) if offset else cls()
        bits, count = device.bits_per_slice, device.slices
        levels = 2**bits - 1
        largest = 2 ** (bits * count - 1) - 1 if offset else 2 ** (bits * count) - 1
        factors = tuple(2 ** (bits * (count - 1 - k)) * levels / largest for k in range(count))
        shift = (largest + 1) / largest if offset else 0.0
        return cls(factors=factors, offset=shift, levels=levels, offset_column=offset, flips=flips)

    @property
    def count(self) -> int:
        """Cells a weight."""
        return len(self.factors)

    @property
    def plain(self) -> bool:
        """Whether a cell holds the weight itself."""
        return self == Slices()

    def states(self, w: Tensor) -> Tensor:
        """(slices, ...): what each cell is programmed to, over g_max, |state| <= 1. w: normalised, any shape.

        Gradients: all slices move alike, so that together they move with the weight.
        """
        if self.plain:
            return w.unsqueeze(0)
        if not self.levels:
            return ((w + 1) / 2).unsqueeze(0)
        base = self.levels + 1
        largest = round(self.factors[-1] ** -1 * self.levels)
        whole = (w.double() * largest).round() if self.offset_column else (w.double().abs() * largest).round()
        rest = whole + largest + 1 if self.offset_column else whole
        digits = []
        for _ in self.factors:
            digits.append(rest % base)
            rest = torch.div(rest, base, rounding_mode="floor")
        states = torch.stack(digits[::-1]) / self.levels
        states = (states if self.offset_column else states * w.sign()).to(w)
        return straight_through(states, (w / sum(self.factors)).expand_as(states)) if tracks(w) else states

    def flipped(self, states: Tensor) -> Tensor:
        """(slices, columns): which columns store 1 - g. states: (slices, columns, rows)."""
        if not self.flips:
            return torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
        return states.mean(dim=2) > 0.5


def stored_states(states: Tensor, flipped: Tensor) -> Tensor:
    """What columns hold, of (slices, columns, rows) states."""
    return torch.where(flipped.unsqueeze(-1), 1 - states, states) if bool(flipped.any()) else states


def signs(flipped: Tensor) -> Tensor:
    """-1 for flipped columns, 1 for the others, as numbers."""
    return 1.0 - 2.0 * flipped.float()
