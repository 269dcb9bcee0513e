"""A matrix operation on its tiles in ``fast`` precision: the state's digits, and running them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.fast.block import FastBlock, fast_block
from aimc_compiler.analog.fast.product import FastPart, Numbering, run_rows, run_windows, side_by_side
from aimc_compiler.analog.fast.shape import WindowShape
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import Key

KeyOf = Callable[[Piece, str], Key]


@record
class FastProducts:
    """A matrix's row blocks with their digits at one time: blocks[b][g] of row block b and group g.

    deviation: the most that rounding weights can move any output before its converter rounds it, in ADC steps.
    """

    blocks: tuple[tuple[FastBlock, ...], ...]

    @property
    def deviation(self) -> float:
        return max(block.plan.deviation for groups in self.blocks for block in groups)


def fast_products(weights: Tensor, blocks: tuple[RowBlock, ...], settings: MvmSettings) -> FastProducts:
    """Make ready (groups, columns, rows) normalised weights, as they are at some time."""
    made = []
    for block in blocks:
        tile_rows = torch.empty(weights.shape[:2])
        for piece in block.pieces:
            tile_rows[piece.group, piece.first_column : piece.first_column + piece.columns] = piece.tile_row
        rows = slice(block.first_row, block.first_row + block.rows)
        made.append(tuple(fast_block(w[:, rows], j0, settings) for w, j0 in zip(weights, tile_rows, strict=True)))
    return FastProducts(blocks=tuple(made))


def run_fast(
    x: Tensor,
    products: FastProducts,
    blocks: tuple[RowBlock, ...],
    contraction: Contraction,
    settings: MvmSettings,
    scales: Tensor,
    ranges: Tensor,
    factor: Tensor | None,
    bias: Tensor | None,
    key_of: KeyOf,
    numbering: Numbering,
) -> Tensor:
    """The operation's output. x: a batch, as the operation takes it; scales: (row blocks, groups, columns), all digital
    factors of a row block; ranges: (groups, row blocks); factor, bias: (outputs,) or None.

    Raises NotFiniteError on inputs that are not finite.
    """
    from aimc_compiler.analog.fast import outputs as kernels

    groups, columns = scales.shape[1:]
    parts = []
    for block, members in zip(blocks, products.blocks, strict=True):
        order = (kernels.FIRST if block.index == 0 else 0) | (kernels.LAST if block is blocks[-1] else 0)
        for group, held in enumerate(members):
            table = held.table.copy()
            table[kernels.DIGITAL] = scales[block.index, group].numpy()
            mine = slice(group * columns, (group + 1) * columns)
            if factor is not None:
                table[kernels.FACTOR] = factor[mine].numpy()
            if bias is not None:
                table[kernels.BIAS] = bias[mine].numpy()
            pieces = tuple(piece for piece in block.pieces if piece.group == group)
            keys = tuple(key_of(piece, "output") for piece in pieces)
            streams = side_by_side(keys, tuple(piece.columns for piece in pieces))
            parts.append(
                FastPart(
                    block=held, group=group, groups=groups, first_row=block.first_row,
                    input_range=float(ranges[group, block.index]), table=table, keys=streams[0], columns=streams[1],
                    part=order,
                )
            )  # fmt: skip
    return _run(x, tuple(parts), groups * columns, contraction, settings, numbering)


def _run(
    x: Tensor,
    parts: tuple[FastPart, ...],
    outputs: int,
    contraction: Contraction,
    settings: MvmSettings,
    numbering: Numbering,
) -> Tensor:
    shape = contraction.output_shape(tuple(x.shape), outputs)
    if not np.prod(shape):
        return x.new_empty(shape)
    if contraction.kind == "linear":
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        windows = rows.shape[0] // x.shape[0]
        return run_rows(rows, parts, outputs, windows, settings, numbering).reshape(shape)
    images = x.unsqueeze(2) if x.dim() == 3 else x
    window_shape = WindowShape.of(contraction, tuple(x.shape[2:]))
    return run_windows(images.contiguous(), parts, outputs, window_shape, settings, numbering).reshape(shape)
