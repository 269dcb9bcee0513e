"""One row block's matrix-vector multiplications: product, IR drop, noise, output converter.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "AIMC MVM", equation 1. All windows of a batch, all groups and all
column blocks of the row block at once. At most four products, made in two calls: of x with [w; w p] (p: position
weights of the IR drop), and of [|x|; x^2] with |w|.
"""

from math import prod

import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Product
from aimc_compiler.analog.converter import adc, asymmetric
from aimc_compiler.analog.ir_drop import drop, positions
from aimc_compiler.analog.noise import Draw, add_output_noise, add_read_noise, needs_draw
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.traced_drop import attenuated, traced_loss
from aimc_compiler.records import record


@record
class BlockWeights:
    """The weights of a row block, made ready for its products; a product that no effect needs is None.

    main: kernel of w, or of [w; w p] along the columns; magnitude: kernel of |w|; ones: (groups, 1) kernel of ones
    at the block's rows; first_row: (groups, columns) tile rows j0 in broadcasting shape, None where all are 0.
    """

    main: Tensor
    magnitude: Tensor | None
    ones: Tensor | None
    rows: int
    columns: int
    first_row: Tensor | None


def block_weights(w: Tensor, first_row: int, tile_row: Tensor, product: Product, settings: MvmSettings) -> BlockWeights:
    """Prepare (groups, columns, rows) normalised weights.

    first_row: the block's first row in the matrix; tile_row: (groups, columns), the block's first row on its tile.
    """
    rows = w.shape[2]
    drops = settings.drops_by_formula
    main = attenuated(w, tile_row, settings) if settings.drops_in_weights else w
    main = torch.cat([main, main * positions(rows, w.dtype, w.device)], dim=1) if drops else main
    magnitude = drops or (settings.sigma_w > 0 and settings.read_noise == "pcm")
    constant = settings.sigma_w > 0 and settings.read_noise == "constant"
    offset = (drops or settings.traces_wires) and bool(tile_row.any())
    return BlockWeights(
        main=product.kernel_of(main, first_row),
        magnitude=product.kernel_of(w.abs(), first_row) if magnitude else None,
        ones=product.kernel_of(torch.ones_like(w[:, :1]), first_row) if constant else None,
        rows=rows,
        columns=w.shape[1],
        first_row=product.along_columns(tile_row.to(w)) if offset else None,
    )


def mvm(x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings, draw: Draw | None) -> Tensor:
    """Converted outputs of every window, before any digital scale.

    x: what the rows receive, as ``product`` takes it, normalised; draw: where the output noise comes from (needed
    with sigma_w or sigma_out). Returns outputs as ``product`` gives them.
    """
    x = asymmetric(x, settings.input_asymmetry)
    u, power = _collect(x, weights, product, settings)
    return _convert(u, power, product, settings, draw)


def _collect(x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings) -> tuple[Tensor, Tensor | None]:
    """What columns collect of ``x``, and the power that its read noise goes by."""
    u = product.multiply(x, weights.main)
    load, power = _side_products(x, weights, product, settings)
    if settings.traces_wires:
        u = u - settings.ir_drop * traced_loss(x, weights.main, weights.first_row, settings)
    elif settings.drops_by_formula:
        assert load is not None
        u, weighted = torch.split(u, weights.columns, dim=product.columns_axis)
        u = drop(u, weighted, load, weights.rows, settings, weights.first_row)
    return u, power


def _convert(u: Tensor, power: Tensor | None, product: Product, settings: MvmSettings, draw: Draw | None) -> Tensor:
    """Noise and output converters. u, power: as ``_collect`` gives them."""
    if needs_draw(settings):
        assert draw is not None
    if draw is not None and settings.splits_noise and power is not None:
        u = add_read_noise(u, power, _drawn(draw.of("read"), u, product), settings)
        power = None
    u = asymmetric(u, settings.output_asymmetry)
    if draw is not None and (power is not None or settings.sigma_out):
        u = add_output_noise(u, power, _drawn(draw, u, product), settings)
    return adc(u, settings)


def _side_products(
    x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings
) -> tuple[Tensor | None, Tensor | None]:
    """(load, power): sum |w||x| for the IR drop; sum |w| x^2, or sum x^2, for the read noise; None where off."""
    drops, reads = settings.drops_by_formula, settings.sigma_w > 0
    power = product.multiply(x.square(), weights.ones) if reads and weights.ones is not None else None
    if weights.magnitude is None:
        return None, power
    if not (drops and reads and power is None):
        side = product.multiply(x.abs() if drops else x.square(), weights.magnitude)
        return (side, power) if drops else (None, side)
    both = product.multiply(torch.cat([x.abs(), x.square()]), weights.magnitude)
    load, power = both.chunk(2)
    return load, power


def _drawn(draw: Draw, u: Tensor, product: Product) -> Tensor:
    batch, width = u.shape[0], sum(draw.columns)
    windows = prod(u.shape[1:]) // width
    return draw.normals(batch, windows, product.layout, u).reshape(u.shape)
