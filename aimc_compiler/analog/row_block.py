"""The products of one row block: one for all its pieces, or one a piece where each has its own input noise."""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from aimc_compiler.analog.bound_management import managed
from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.contraction import Contraction, Product, WindowProduct
from aimc_compiler.analog.converter import driven, input_codes
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.mvm import BlockWeights, block_weights
from aimc_compiler.analog.noise import Draw, add_input_noise
from aimc_compiler.analog.passes import bit_planes
from aimc_compiler.analog.scaling import constant_scale, scale_down, vector_scales
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.sliced import SlicedWeights, conversions, multiply_slices
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import Key

KeyOf = Callable[[Piece, str], Key]
FiguresOf = Callable[[Piece, int], ColumnFigures]


@record
class BlockProduct:
    """One product. pieces: those whose columns it gives, in order; groups: the groups whose inputs it takes."""

    weights: SlicedWeights
    product: Product
    pieces: tuple[Piece, ...]
    groups: slice


@record
class Stored:
    """The weights of a row block as they are now. slices: (slices, groups, columns, rows), what cells hold.

    factors: (slices, groups, columns), of their outputs; shift: (groups, columns), of the sum of inputs; both None
    where cells hold the weights themselves.
    """

    slices: Tensor
    factors: Tensor | None = None
    shift: Tensor | None = None


def block_products(
    block: RowBlock,
    stored: Stored,
    contraction: Contraction,
    settings: MvmSettings,
    figures_of: FiguresOf | None = None,
) -> tuple[BlockProduct, ...]:
    """Make ready the products of ``block``.

    All column blocks see one input vector, so they are one product; with input noise every tile's converters
    disturb it differently, window by window, so each piece multiplies unfolded windows of its own. So does a piece
    whose wires are traced, which takes every window's load for itself, and one that repeats what clips. figures_of:
    what is fixed for the columns of a slice of a piece; None where they are alike.
    """
    product: Product = WindowProduct() if settings.unfolds else contraction
    if not settings.reads_alone:
        weights = _sliced(block.pieces, stored, block.first_row, product, settings, figures_of)
        return (BlockProduct(weights=weights, product=product, pieces=block.pieces, groups=slice(None)),)
    made = []
    for piece in block.pieces:
        groups = slice(piece.group, piece.group + 1)
        weights = _sliced((piece,), _part(stored, groups, _columns(piece)), 0, product, settings, figures_of)
        made.append(BlockProduct(weights=weights, product=product, pieces=(piece,), groups=groups))
    return tuple(made)


def _sliced(
    pieces: tuple[Piece, ...],
    stored: Stored,
    first_row: int,
    product: Product,
    settings: MvmSettings,
    figures_of: FiguresOf | None,
) -> SlicedWeights:
    """The weights of pieces that fill the groups and columns of ``stored``, side by side."""
    shape = stored.slices.shape[1:3]
    tile_rows = torch.cat([torch.full((piece.columns,), float(piece.tile_row)) for piece in pieces]).reshape(shape)
    parts = []
    for index, w in enumerate(stored.slices):
        figures = _figures_of(pieces, index, figures_of, product, w)
        parts.append(block_weights(w, first_row, tile_rows, product, settings, figures))
    if stored.factors is None:
        return SlicedWeights(parts=tuple(parts))
    factors = torch.stack([product.along_columns(factor) for factor in stored.factors])
    if stored.shift is None or not bool(stored.shift.any()):
        return SlicedWeights(parts=tuple(parts), factors=factors)
    ones = product.kernel_of(torch.ones_like(stored.slices[0, :, :1]), first_row)
    return SlicedWeights(parts=tuple(parts), factors=factors, shift=product.along_columns(stored.shift), ones=ones)


def _part(stored: Stored, groups: slice, columns: slice) -> Stored:
    return Stored(
        slices=stored.slices[:, groups, columns],
        factors=None if stored.factors is None else stored.factors[:, groups, columns],
        shift=None if stored.shift is None else stored.shift[groups, columns],
    )


def multiply_block(
    x: Tensor,
    block: RowBlock,
    products: tuple[BlockProduct, ...],
    contraction: Contraction,
    settings: MvmSettings,
    key_of: KeyOf,
    draw: Draw,
) -> tuple[Tensor, tuple[int, ...]]:
    """Converted outputs of the row block, in the form of ``contraction``, before digital scales; MVMs that bound
    management repeated in each of ``products``.

    x: inputs before the DAC, over their range, as ``contraction.inputs_of`` gives them; key_of: the stream of a piece
    for a purpose; draw: which samples and calls these are. Where each window has a scale or noise of its own, its
    codes are its own, too, and windows are unfolded.
    """
    if not settings.unfolds:
        (whole,) = products
        scale = constant_scale(settings)
        codes = input_codes(x if scale == 1 else x / scale, settings)
        planes = bit_planes(driven(codes, settings), settings)
        u, _ = multiply_slices(codes, planes, whole.weights, contraction, settings, _draw_of(whole, key_of, draw))
        return u if scale == 1 else u * scale, (0,)
    windows = contraction.unfold(x, block.first_row, block.rows)
    read = [
        _read_scaled(windows[:, part.groups], part.weights, settings, _draw_of(part, key_of, draw)) for part in products
    ]
    columns = torch.cat([u.flatten(1, 2) for u, _ in read], dim=1)
    y = contraction.from_windows(torch.unflatten(columns, 1, (windows.shape[1], -1)), x)
    return y, tuple(repeats for _, repeats in read)


def read_windows(windows: Tensor, weights: BlockWeights, settings: MvmSettings, draw: Draw | None) -> Tensor:
    """(batch, groups, columns, windows) outputs of (batch, groups, windows, rows) inputs over their range.

    weights: of a ``WindowProduct``; draw: None where nothing is drawn.
    """
    return _read_scaled(windows, SlicedWeights(parts=(weights,)), settings, draw)[0]


def _read_scaled(
    windows: Tensor, weights: SlicedWeights, settings: MvmSettings, draw: Draw | None
) -> tuple[Tensor, int]:
    """As ``read_windows``, of weights in slices, and the MVMs that were repeated."""
    scales: Tensor | float = constant_scale(settings)
    if settings.scales_vectors:
        scales = vector_scales(windows, settings)
        windows = scale_down(windows, scales)
    elif scales != 1:
        windows = windows / scales
    u, repeats = _read(windows, weights, settings, draw)
    scaled = u * scales.transpose(2, 3) if isinstance(scales, Tensor) else u * scales if scales != 1 else u
    return scaled, repeats


def _read(x: Tensor, weights: SlicedWeights, settings: MvmSettings, draw: Draw | None) -> tuple[Tensor, int]:
    """Scaled windows, read once or as often as bound management asks for; how many MVMs that repeated."""
    if not settings.bound_management:
        return _read_once(x, weights, settings, draw)[0], 0

    def read(halved: Tensor, attempt: int) -> tuple[Tensor, Tensor]:
        fresh = draw if draw is None or not attempt else draw.again(f"attempt {attempt}")
        y, clips = _read_once(halved, weights, settings, fresh)
        assert clips is not None
        return y, clips.any(dim=2, keepdim=True)

    return managed(x, read, settings)


def _read_once(
    x: Tensor, weights: SlicedWeights, settings: MvmSettings, draw: Draw | None
) -> tuple[Tensor, Tensor | None]:
    if settings.dac_stochastic:
        assert draw is not None
        codes = input_codes(x, settings, _row_draw(draw, "input rounding", x))
    else:
        codes = input_codes(x, settings)
    planes = bit_planes(driven(codes, settings), settings)
    if settings.sigma_in:
        assert draw is not None
        names = ["input", *(f"input plane {place}" for place in range(1, len(planes)))]
        planes = [
            (weight, add_input_noise(plane, _row_draw(draw, name, plane), settings))
            for name, (weight, plane) in zip(names, planes, strict=True)
        ]
    return multiply_slices(codes, planes, weights, WindowProduct(), settings, draw)


def _row_draw(draw: Draw, purpose: str, x: Tensor) -> Tensor:
    """Normals for each row of each window of one piece: of the shape of x, (batch, 1, windows, rows)."""
    batch, _, count, rows = x.shape
    return replace(draw.of(purpose), columns=(rows,)).normals(batch, count, "sample_call_column", x).unsqueeze(1)


def conversions_of(u: Tensor, products: tuple[BlockProduct, ...], settings: MvmSettings) -> int:
    """Output conversions that ``u``, of all products of a row block, stands for."""
    return conversions(u.numel(), products[0].weights, settings)


def windows_of(u: Tensor, columns: int) -> int:
    """MVMs of each piece that outputs ``u`` stand for; columns: of all groups together."""
    return prod(u.shape) // columns


def _draw_of(part: BlockProduct, key_of: KeyOf, draw: Draw) -> Draw:
    def keys_of(purpose: str) -> tuple[Key, ...]:
        return tuple(key_of(piece, purpose) for piece in part.pieces)

    columns = tuple(piece.columns for piece in part.pieces)
    return replace(draw, keys=keys_of("output"), columns=columns, keys_of=keys_of)


def _figures_of(
    pieces: tuple[Piece, ...], index: int, figures_of: FiguresOf | None, product: Product, w: Tensor
) -> ColumnFigures | None:
    """Of pieces that lie side by side, as ``product`` broadcasts them."""
    if figures_of is None:
        return None
    parts = [figures_of(piece, index) for piece in pieces]
    return ColumnFigures.combine(
        parts, lambda tensors: product.along_columns(torch.cat(tensors).to(w).reshape(w.shape[:2]))
    )


def _columns(piece: Piece) -> slice:
    return slice(piece.first_column, piece.first_column + piece.columns)
