"""The passes of one MVM: bit planes of the inputs, slices of the weights, and how their outputs are put together.

A bit-serial input is the whole number ``m = x (2^(b-1) - 1)`` of b bits, sent plane by plane::

    sign_magnitude     m = sum_p 2^p s_p,  s_p in {-1, 0, 1}                p = 0 .. b - 2
    twos_complement    m = -2^(b-1) s_(b-1) + sum_p 2^p s_p,  s_p in {0, 1} p = 0 .. b - 1

Each plane is a pass through the crossbar with noise of its own. With ``accumulate: digital`` (Shafiee et al., ISCA
2016) every plane of every slice is converted, then shifted and added; with ``analog`` (Wan et al., Nature 608, 504
(2022)) the planes add up as charge, weighed by their significance, and are converted once.
"""

from dataclasses import replace
from math import inf, prod

import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.converter import adc
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.noise import Draw, add_output_noise
from aimc_compiler.analog.row_block import BlockProduct, KeyOf, multiply_block
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import Key


@record
class SlicedBlock:
    """A row block ready to multiply. products: of each slice; factors: (slices, groups, columns), of its outputs;
    shift: (groups, columns), of the sum of inputs; sums: kernel that sums a window's inputs, None where shift is 0.
    """

    products: tuple[tuple[BlockProduct, ...], ...]
    factors: Tensor
    shift: Tensor
    sums: Tensor | None


def bit_planes(codes: Tensor, settings: MvmSettings) -> list[tuple[float, Tensor]]:
    """(weight, plane) of each pass, plane entries in {-1, 0, 1}; ``codes`` itself where inputs are not bit-serial.

    codes: after the DAC, in [-1, 1], any shape. The weighed sum of the planes is ``codes``.
    """
    if not settings.input_planes:
        return [(1.0, codes)]
    bits = settings.input_planes
    if settings.input_code == "sign_magnitude":
        largest = 2**bits - 1
        whole = (codes * largest).round().to(torch.int64)
        rest, sign = whole.abs(), codes.sign()
    else:
        largest = 2 ** (bits - 1) - 1
        whole = (codes * largest).round().to(torch.int64)
        rest, sign = whole % 2**bits, torch.ones_like(codes)
    planes = [(2**p / largest, sign * ((rest >> p) & 1).to(codes)) for p in range(bits)]
    if settings.input_code == "twos_complement":
        planes[-1] = (-planes[-1][0], planes[-1][1])
    return planes


def multiply_passes(
    codes: Tensor,
    block: RowBlock,
    sliced: SlicedBlock,
    contraction: Contraction,
    settings: MvmSettings,
    key_of: KeyOf,
    draw: Draw,
) -> tuple[Tensor, int]:
    """Outputs of all passes put together, in units of normalised weights and inputs, and the conversions it took."""
    if len(sliced.products) == 1 and sliced.sums is None and not settings.input_planes:
        u = multiply_block(codes, block, sliced.products[0], contraction, settings, key_of, draw)
        return u, u.numel()
    planes = bit_planes(codes, settings)
    in_charge = settings.input_planes > 0 and settings.accumulate == "analog"
    bare = replace(settings, adc_step=0.0, out_bound=inf, sigma_out=0.0) if in_charge else settings
    total: Tensor | None = None
    conversions = 0
    for index, products in enumerate(sliced.products):
        summed: Tensor | None = None
        for place, (weight, plane) in enumerate(planes):
            keys = _named(key_of, place, index)
            u = multiply_block(plane, block, products, contraction, bare, keys, draw)
            summed = u * weight if summed is None else torch.add(summed, u, alpha=weight)
            conversions += 0 if in_charge else u.numel()
        assert summed is not None
        if in_charge:
            summed = _converted(summed, block, contraction, settings, _named(key_of, len(planes), index), draw)
            conversions += summed.numel()
        part = summed * contraction.along_columns(sliced.factors[index])
        total = part if total is None else total + part
    assert total is not None
    if sliced.sums is not None:
        total = total + contraction.multiply(codes, sliced.sums) * contraction.along_columns(sliced.shift)
    return total, conversions


def _named(key_of: KeyOf, place: int, index: int) -> KeyOf:
    """Streams of a pass; those of the first have the plain names."""
    suffix = f", plane {place}, slice {index}" if place or index else ""

    def named(piece: Piece, purpose: str) -> Key:
        return key_of(piece, purpose + suffix)

    return named


def _converted(
    u: Tensor, block: RowBlock, contraction: Contraction, settings: MvmSettings, key_of: KeyOf, draw: Draw
) -> Tensor:
    """One conversion of the gathered charge."""
    if settings.sigma_out:
        keys = tuple(key_of(piece, "output") for piece in block.pieces)
        named = replace(draw, keys=keys, columns=tuple(piece.columns for piece in block.pieces))
        windows = prod(u.shape[1:]) // sum(named.columns)
        normals = named.normals(u.shape[0], windows, contraction.layout, u).reshape(u.shape)
        u = add_output_noise(u, None, normals, settings)
    return adc(u, settings)
