"""What the output converters of a matrix see, before they convert, with ideal cells: what their bounds are set by.

The inputs are those of the chip: over their range, scaled, rounded by the input converter (to the nearest) and clipped.
The cells hold the target weights, and nothing that disturbs acts, so an output depends on the network and its data
alone, on no chip and no time. One MVM of a slice makes as many conversions as it has bit planes that are not added as
charge, times two where negative inputs are converted by themselves.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Product, WindowProduct
from aimc_compiler.analog.converter import input_codes
from aimc_compiler.analog.digital import send
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.matrix import MatrixOnTiles
from aimc_compiler.analog.passes import bit_planes
from aimc_compiler.analog.scaling import constant_scale, scale_down, vector_scales
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.slices import stored_states
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record


@record
class Seen:
    """outputs: of a slice of a piece, any shape, in normalised w times x; conversion: which of an MVM's."""

    piece: Piece
    index: int
    conversion: int
    outputs: Tensor


class IdealColumns:
    """The columns of ``matrix`` with its target weights, slice by slice."""

    def __init__(self, matrix: MatrixOnTiles) -> None:
        self.matrix = matrix
        self.settings = replace(matrix.settings, dac_stochastic=False)
        self.product: Product = WindowProduct() if self.settings.scales_vectors else matrix.contraction
        self._kernels = {block.index: self._kernels_of(block) for block in matrix.blocks}

    def outputs(self, x: Tensor, ranges: Tensor) -> Iterator[Seen]:
        """All outputs of a batch. x: as ``MatrixOnTiles.forward`` takes it; ranges: (groups, row blocks)."""
        contraction = self.matrix.contraction
        x = x.detach().to(self.matrix.target)
        x = x[None] if x.dim() == contraction.sample_axes else x
        for block in self.matrix.blocks:
            conversions = self._conversions(x, block, ranges.to(x))
            for number, inputs in enumerate(conversions):
                for index, kernel in enumerate(self._kernels[block.index]):
                    u = self.product.multiply(inputs, kernel)
                    for piece in block.pieces:
                        own = self._columns(u, piece)
                        yield Seen(piece=piece, index=index, conversion=number, outputs=own)

    def _kernels_of(self, block: RowBlock) -> list[Tensor]:
        """Of each slice."""
        slices, rows = self.matrix.slices, slice(block.first_row, block.first_row + block.rows)
        w = self.matrix.target[:, :, rows]
        held = torch.empty((slices.count, *w.shape), dtype=w.dtype, device=w.device)
        for piece in block.pieces:
            cells = piece.group, slice(piece.first_column, piece.first_column + piece.columns)
            states = slices.states(w[cells])
            for index, stored in enumerate(stored_states(states, slices.flipped(states))):
                held[(index, *cells)] = stored
        return [self.product.kernel_of(each, block.first_row) for each in held]

    def _conversions(self, x: Tensor, block: RowBlock, ranges: Tensor) -> list[Tensor]:
        """What the rows of a block receive for each conversion, in the form that the product takes."""
        contraction, settings = self.matrix.contraction, self.settings
        inputs = contraction.inputs_of(x, self.matrix.target.shape[0], block.first_row, block.rows)
        inputs = inputs / contraction.along_inputs(ranges[:, block.index])
        bits = self.matrix.nonidealities.digital.activation_bits
        inputs = inputs if bits == "off" else send(inputs, bits)
        if settings.scales_vectors:
            inputs = contraction.unfold(inputs, block.first_row, block.rows)
            inputs = scale_down(inputs, vector_scales(inputs, settings))
        return _passes(input_codes(inputs / constant_scale(settings), settings), settings)

    def _columns(self, u: Tensor, piece: Piece) -> Tensor:
        columns = slice(piece.first_column, piece.first_column + piece.columns)
        return u[..., columns] if self.product.columns_axis == -1 else u[:, piece.group, columns]


def _passes(codes: Tensor, settings: MvmSettings) -> list[Tensor]:
    """Planes that are added as charge are one conversion, in which they are the codes again."""
    planes = [codes]
    if settings.accumulate == "digital":
        planes = [plane for _, plane in bit_planes(codes, settings)]
    if settings.passes != "digital":
        return planes
    return [half for plane in planes for half in (plane.clamp(min=0), plane.clamp(max=0))]
