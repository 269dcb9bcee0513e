"""A matrix operation on its tiles in ``fast`` precision: the digits of its state, and running them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.fast.block import FastBlock, fast_block
from aimc_compiler.analog.fast.product import FastPart, Numbering, run_rows, run_windows, side_by_side
from aimc_compiler.analog.fast.shape import WindowShape
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.normalisation import copied, same_values
from aimc_compiler.analog.pool import spread
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.rng import Key

KeyOf = Callable[[Piece, str], Key]
BoundOf = Callable[[Piece], float]


class FastMatrix:
    """A matrix at one time, ready for integer products.

    weights: (groups, columns, rows), normalised, as the devices hold them; key_of: the stream of a piece for a purpose;
    bound_of: the bound of a piece's output converters where each has its own, else 1.
    ``deviation`` bounds how far rounding weights to digits can move any output before its converter rounds it, in ADC
    steps.
    """

    def __init__(
        self,
        weights: Tensor,
        blocks: tuple[RowBlock, ...],
        contraction: Contraction,
        settings: MvmSettings,
        key_of: KeyOf,
        bound_of: BoundOf,
    ) -> None:
        self.contraction, self.settings = contraction, settings
        self._outputs = weights.shape[0] * weights.shape[1]
        places = [(block, group) for block in blocks for group in range(len(weights))]
        made: dict[tuple[int, int], FastPart] = {}

        def make(taken: Iterator[tuple[RowBlock, int]]) -> None:
            for block, group in taken:
                made[block.index, group] = _part(block, group, weights, blocks, settings, key_of, bound_of)

        spread(make, places)
        self._parts = tuple(made[block.index, group] for block, group in places)
        self._kept: tuple[Tensor | None, Tensor | None, Tensor | None, tuple[FastPart, ...]] | None = None

    @property
    def deviation(self) -> float:
        return max(part.block.plan.deviation for part in self._parts)

    @property
    def products(self) -> int:
        """Integer products of its own size for each input vector, of the block that has most."""
        return max(part.block.plan.products for part in self._parts)

    def forward(self, x: Tensor, parts: tuple[FastPart, ...], numbering: Numbering) -> Tensor:
        """The operation's output. x: a batch, as the operation takes it; parts: of ``scaled``.

        Raises NotFiniteError on inputs that are not finite.
        """
        shape = self.contraction.output_shape(tuple(x.shape), self._outputs)
        if self.contraction.kind == "linear":
            rows = x.reshape(-1, x.shape[-1]).contiguous()
            windows = rows.shape[0] // x.shape[0]
            return run_rows(rows, parts, self._outputs, windows, self.settings, numbering).reshape(shape)
        images = x.unsqueeze(2) if x.dim() == 3 else x
        windows_shape = WindowShape.of(self.contraction, tuple(x.shape[2:]))
        y = run_windows(images.contiguous(), parts, self._outputs, windows_shape, self.settings, numbering)
        return y.reshape(shape)

    def scaled(
        self, ranges: Tensor, scales: Tensor, factor: Tensor | None, bias: Tensor | None, named: Tensor | None = None
    ) -> tuple[FastPart, ...]:
        """Row blocks with their digital factors.

        ranges: (groups, row blocks); scales: (row blocks, groups, columns), all digital factors of a row block; factor,
        bias: (outputs,) or None; named: the values by which ``kept`` finds them again.
        """
        parts = tuple(_scaled(part, ranges, scales, factor, bias) for part in self._parts)
        self._kept = copied(named), factor, bias, parts
        return parts

    def kept(self, named: Tensor | None, factor: Tensor | None, bias: Tensor | None) -> tuple[FastPart, ...] | None:
        """What ``scaled`` last gave for these values of ``named`` and this very factor and bias."""
        kept = self._kept
        if kept is None or kept[1] is not factor or kept[2] is not bias or not same_values(named, kept[0]):
            return None
        return kept[3]


def _part(
    block: RowBlock,
    group: int,
    weights: Tensor,
    blocks: tuple[RowBlock, ...],
    settings: MvmSettings,
    key_of: KeyOf,
    bound_of: BoundOf,
) -> FastPart:
    from aimc_compiler.analog.fast import outputs

    pieces = tuple(piece for piece in block.pieces if piece.group == group)
    tile_rows = torch.cat([torch.full((piece.columns,), piece.tile_row) for piece in pieces])
    bounds = np.concatenate([np.full(piece.columns, bound_of(piece)) for piece in pieces])
    rows = slice(block.first_row, block.first_row + block.rows)
    held: FastBlock = fast_block(weights[group, :, rows], tile_rows, settings, bounds)
    keys, columns = side_by_side(
        tuple(key_of(piece, "output") for piece in pieces), tuple(piece.columns for piece in pieces)
    )
    return FastPart(
        block=held,
        index=block.index,
        group=group,
        groups=len(weights),
        first_row=block.first_row,
        input_range=1.0,
        table=held.table,
        keys=keys,
        columns=columns,
        part=(outputs.FIRST if block is blocks[0] else 0) | (outputs.LAST if block is blocks[-1] else 0),
    )


def _scaled(part: FastPart, ranges: Tensor, scales: Tensor, factor: Tensor | None, bias: Tensor | None) -> FastPart:
    from aimc_compiler.analog.fast import outputs

    columns = part.block.columns
    mine = slice(part.group * columns, (part.group + 1) * columns)
    table = part.table.copy()
    table[outputs.DIGITAL] *= scales[part.index, part.group].numpy()
    if factor is not None:
        table[outputs.FACTOR] = factor[mine].numpy()
    if bias is not None:
        table[outputs.BIAS] = bias[mine].numpy()
    return replace(part, table=np.ascontiguousarray(table), input_range=float(ranges[part.group, part.index]))
