"""The products of one row block: one for all its pieces, or one a piece where each has its own input noise."""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Contraction, Product, WindowProduct
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.mvm import BlockWeights, block_weights, mvm
from aimc_compiler.analog.noise import Draw, add_input_noise
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import Key

KeyOf = Callable[[Piece, str], Key]


@record
class BlockProduct:
    """One product. pieces: those whose columns it gives, in order; groups: the groups whose inputs it takes."""

    weights: BlockWeights
    product: Product
    pieces: tuple[Piece, ...]
    groups: slice


def block_products(
    block: RowBlock, w: Tensor, contraction: Contraction, settings: MvmSettings
) -> tuple[BlockProduct, ...]:
    """Make ready the products of ``block``; w: (groups, columns, rows of the block), the weights as they are now.

    All column blocks see one input vector, so they are one product; with input noise every tile's converters
    disturb it differently, window by window, so each piece multiplies unfolded windows of its own. So does a piece
    whose wires are traced, which takes every window's load for itself.
    """
    if not settings.unfolds:
        tile_rows = torch.empty(w.shape[:2])
        for piece in block.pieces:
            tile_rows[piece.group, _columns(piece)] = piece.tile_row
        weights = block_weights(w, block.first_row, tile_rows, contraction, settings)
        return (BlockProduct(weights=weights, product=contraction, pieces=block.pieces, groups=slice(None)),)
    product = WindowProduct()
    made = []
    for piece in block.pieces:
        part = w[piece.group, _columns(piece)][None]
        weights = block_weights(part, 0, torch.full((1, piece.columns), piece.tile_row), product, settings)
        groups = slice(piece.group, piece.group + 1)
        made.append(BlockProduct(weights=weights, product=product, pieces=(piece,), groups=groups))
    return tuple(made)


def multiply_block(
    x: Tensor,
    block: RowBlock,
    products: tuple[BlockProduct, ...],
    contraction: Contraction,
    settings: MvmSettings,
    key_of: KeyOf,
    draw: Draw,
) -> Tensor:
    """Converted outputs of the row block, in the form of ``contraction``, before digital scales.

    x: inputs after the DAC, as ``contraction.inputs_of`` gives them; key_of: the stream of a piece for a purpose;
    draw: which samples and calls these are.
    """
    if not settings.unfolds:
        (whole,) = products
        return mvm(x, whole.weights, contraction, settings, _output_draw(whole, key_of, draw))
    windows = contraction.unfold(x, block.first_row, block.rows)
    batch, groups, count, rows = windows.shape
    parts = []
    for part in products:
        noisy = windows[:, part.groups]
        if settings.sigma_in:
            noise = replace(draw, keys=(key_of(part.pieces[0], "input"),), columns=(rows,))
            normals = noise.normals(batch, count, "sample_call_column", x).unsqueeze(1)
            noisy = add_input_noise(noisy, normals, settings)
        parts.append(mvm(noisy, part.weights, part.product, settings, _output_draw(part, key_of, draw)).flatten(1, 2))
    return contraction.from_windows(torch.unflatten(torch.cat(parts, dim=1), 1, (groups, -1)), x)


def windows_of(u: Tensor, columns: int) -> int:
    """MVMs of each piece that outputs ``u`` stand for; columns: of all groups together."""
    return prod(u.shape) // columns


def _output_draw(part: BlockProduct, key_of: KeyOf, draw: Draw) -> Draw:
    keys = tuple(key_of(piece, "output") for piece in part.pieces)
    return replace(draw, keys=keys, columns=tuple(piece.columns for piece in part.pieces))


def _columns(piece: Piece) -> slice:
    return slice(piece.first_column, piece.first_column + piece.columns)
