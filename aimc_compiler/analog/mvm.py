"""One row block's matrix-vector multiplications: product, IR drop, noise, output converter.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "AIMC MVM", equation 1. All windows of a batch, all groups and all
column blocks of the row block at once. At most four products, made in two calls: of x with [w; w p] (p: position
weights of the IR drop), and of [|x|; x^2] with |w|.
"""

from math import prod

import torch
from torch import Tensor

from aimc_compiler.analog.column_effects import bias_column, s_shape
from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.contraction import Product
from aimc_compiler.analog.converter import (
    asymmetric,
    bow,
    corrected,
    held,
    mismatched,
    over_bound,
    quantise,
    round_by_chance,
    times_bound,
)
from aimc_compiler.analog.finish import Sums, finish, is_standard, runs_here
from aimc_compiler.analog.ir_drop import drop, positions
from aimc_compiler.analog.noise import Draw, add_output_noise, add_read_noise, needs_draw
from aimc_compiler.analog.passes import Planes, bit_planes
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.traced_drop import attenuated, traced_loss
from aimc_compiler.records import record


@record
class BlockWeights:
    """The weights of a row block, made ready for its products; a product that no effect needs is None.

    main: kernel of w, or of [w; w p] along the columns; magnitude: kernel of |w|; ones: (groups, 1) kernel of ones
    at the block's rows; first_row: (groups, columns) tile rows j0 in broadcasting shape, None where all are 0; figures:
    what is fixed for each column, in broadcasting shape; standard: whether one pass can finish the products.
    """

    main: Tensor
    magnitude: Tensor | None
    ones: Tensor | None
    rows: int
    columns: int
    first_row: Tensor | None
    figures: ColumnFigures
    standard: bool = False


def block_weights(
    w: Tensor,
    first_row: int,
    tile_row: Tensor,
    product: Product,
    settings: MvmSettings,
    figures: ColumnFigures | None = None,
) -> BlockWeights:
    """Prepare (groups, columns, rows) normalised weights.

    first_row: the block's first row in the matrix; tile_row: (groups, columns), the block's first row on its tile;
    figures: in the shape that ``product`` broadcasts, None where columns are alike.
    """
    rows = w.shape[2]
    drops = settings.drops_by_formula
    main = attenuated(w, tile_row, settings) if settings.drops_in_weights else w
    main = torch.cat([main, main * positions(rows, w.dtype, w.device)], dim=1) if drops else main
    magnitude = drops or (settings.sigma_w > 0 and settings.read_noise == "pcm")
    counts = settings.sigma_w > 0 and settings.read_noise == "constant"
    counts = counts or (settings.biases_columns and settings.reference_weight != 0)
    offset = (drops or settings.traces_wires) and bool(tile_row.any())
    return BlockWeights(
        main=product.kernel_of(main, first_row),
        magnitude=product.kernel_of(w.abs(), first_row) if magnitude else None,
        ones=product.kernel_of(torch.ones_like(w[:, :1]), first_row) if counts else None,
        rows=rows,
        columns=w.shape[1],
        first_row=product.along_columns(tile_row.to(w)) if offset else None,
        figures=figures or ColumnFigures.nominal(settings),
        standard=is_standard(settings),
    )


def mvm(x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings, draw: Draw | None) -> Tensor:
    """Converted outputs of every window, before any digital scale.

    x: codes, as ``product`` takes them, normalised; bit-serial ones are sent plane by plane; draw: where noise comes
    from (needed with sigma_w, sigma_out or stochastic rounding of outputs). Returns outputs as ``product`` gives them.
    """
    return mvm_and_clips(bit_planes(x, settings), weights, product, settings, draw)[0]


def mvm_and_clips(
    planes: Planes, weights: BlockWeights, product: Product, settings: MvmSettings, draw: Draw | None
) -> tuple[Tensor, Tensor | None]:
    """As ``mvm``, and which outputs were clipped; None without bound management, which alone asks.

    planes: what the rows receive, pass by pass. In two passes, the positive inputs and then the negative ones, each
    pass has its products and read noise; "analog" adds them before the output converters, "digital" after.
    """
    planes = [(weight, asymmetric(plane, settings.input_asymmetry)) for weight, plane in planes]
    if settings.passes != "digital":
        return _planes(planes, weights, product, settings, draw)
    above = [(weight, _above(plane)) for weight, plane in planes]
    below = [(weight, _below(plane)) for weight, plane in planes]
    y, clips = _planes(above, weights, product, settings, draw)
    y_below, clips_below = _planes(below, weights, product, settings, _again(draw, "second pass"))
    return y + y_below, _either(clips, clips_below)


def _planes(
    planes: Planes, weights: BlockWeights, product: Product, settings: MvmSettings, draw: Draw | None
) -> tuple[Tensor, Tensor | None]:
    """Planes that add up as charge and are converted once, or are converted each, then shifted and added."""
    if weights.standard and runs_here(planes[0][1], weights.main):
        return _finish(planes[0][1], weights, product, settings, draw), None
    if len(planes) == 1:
        return _convert(*_collect(planes[0][1], weights, product, settings), weights, product, settings, draw)
    if settings.accumulate == "analog":
        return _convert(*_gathered(planes, weights, product, settings), weights, product, settings, draw)
    total: Tensor | None = None
    clips: Tensor | None = None
    for place, (weight, plane) in enumerate(planes):
        own = _again(draw, f"plane {place}") if place else draw
        y, also = _convert(*_collect(plane, weights, product, settings), weights, product, settings, own)
        total = y * weight if total is None else torch.add(total, y, alpha=weight)
        clips = also if clips is None else _either(clips, also)
    assert total is not None
    return total, clips


def _finish(x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings, draw: Draw | None) -> Tensor:
    """The standard model from products to outputs, in one pass."""
    load, power = _side_products(x, weights, product, settings)
    sums = Sums(u=product.multiply(x, weights.main), load=load, power=power)
    drawn = draw if needs_draw(settings) else None
    return finish(sums, weights.columns, weights.rows, weights.first_row, product.layout, settings, drawn)


def _gathered(
    planes: Planes, weights: BlockWeights, product: Product, settings: MvmSettings
) -> tuple[Tensor, Tensor | None]:
    """As ``_collect``, of all planes by their weights. Their read noises are one Gaussian of the summed variance."""
    u: Tensor | None = None
    power: Tensor | None = None
    for weight, plane in planes:
        part, part_power = _collect(plane, weights, product, settings)
        u = part * weight if u is None else torch.add(u, part, alpha=weight)
        if part_power is not None:
            part_power = part_power * weight**2
            power = part_power if power is None else power + part_power
    assert u is not None
    return u, power


def _collect(x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings) -> tuple[Tensor, Tensor | None]:
    """What columns collect of ``x``, and the power that its read noise goes by."""
    if settings.passes != "analog":
        return _collect_once(x, weights, product, settings)
    u, power = _collect_once(_above(x), weights, product, settings)
    u_below, power_below = _collect_once(_below(x), weights, product, settings)
    return u + u_below, None if power is None or power_below is None else power + power_below


def _above(x: Tensor) -> Tensor:
    # At 0, clamp passes the gradient on in either pass, which would count twice; relu does not.
    return x.relu()


def _below(x: Tensor) -> Tensor:
    return x.clamp(max=0)


def _again(draw: Draw | None, reading: str) -> Draw | None:
    return draw if draw is None or draw.keys_of is None else draw.again(reading)


def _either(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else first | second


def _collect_once(
    x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings
) -> tuple[Tensor, Tensor | None]:
    """One pass."""
    u = product.multiply(x, weights.main)
    load, power = _side_products(x, weights, product, settings)
    if settings.traces_wires:
        u = u - settings.ir_drop * traced_loss(x, weights.main, weights.first_row, settings)
    elif settings.drops_by_formula:
        assert load is not None
        u, weighted = torch.split(u, weights.columns, dim=product.columns_axis)
        u = drop(u, weighted, load, weights.rows, settings, weights.first_row)
    if settings.biases_columns:
        total = product.multiply(x, weights.ones) if weights.ones is not None and settings.reference_weight else None
        u = bias_column(u, total, weights.figures, settings)
    return u, power


def _convert(
    u: Tensor,
    power: Tensor | None,
    weights: BlockWeights,
    product: Product,
    settings: MvmSettings,
    draw: Draw | None,
) -> tuple[Tensor, Tensor | None]:
    """Noise and output converters. u, power: as ``_collect`` gives them; returns as ``mvm_and_clips``."""
    figures = weights.figures
    if needs_draw(settings):
        assert draw is not None
    if draw is not None and settings.splits_noise and power is not None:
        u = add_read_noise(u, power, _drawn(draw.of("read"), u, product), settings)
        power = None
    if settings.bends:
        u = s_shape(u, figures)
    u = asymmetric(u, settings.output_asymmetry)
    if draw is not None and (power is not None or settings.sigma_out):
        u = add_output_noise(u, power, _drawn(draw, u, product), settings, figures.sigma_out)
    u = over_bound(mismatched(u, figures), figures)
    if settings.adc_inl:
        u = bow(u, settings.inl_bound, settings.adc_inl)
    if settings.adc_stochastic:
        assert draw is not None
        codes = round_by_chance(u, settings.adc_step, _drawn(draw.of("output rounding"), u, product))
    else:
        codes = quantise(u, settings.adc_step)
    clips = codes.abs() > settings.out_bound if settings.bound_management else None
    return corrected(times_bound(held(codes, u, settings), figures), figures), clips


def _side_products(
    x: Tensor, weights: BlockWeights, product: Product, settings: MvmSettings
) -> tuple[Tensor | None, Tensor | None]:
    """(load, power): sum |w||x| for the IR drop; sum |w| x^2, or sum x^2, for the read noise; None where off."""
    drops, reads = settings.drops_by_formula, settings.sigma_w > 0
    constant = reads and settings.read_noise == "constant"
    power = product.multiply(x.square(), weights.ones) if constant and weights.ones is not None else None
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
