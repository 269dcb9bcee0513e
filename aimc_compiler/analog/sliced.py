"""The slices of one product: all see the same inputs, each has columns of its own, the outputs are added digitally."""

import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Product
from aimc_compiler.analog.mvm import BlockWeights, mvm_and_clips
from aimc_compiler.analog.noise import Draw
from aimc_compiler.analog.passes import Planes
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.records import record


@record
class SlicedWeights:
    """Weights in one or several slices. parts: each one's weights; factors: (slices, ...) of their outputs, in
    broadcasting shape, None for one slice that is the weight itself; shift: of the sum of a window's codes, in
    broadcasting shape, and ones: the kernel that sums them; None where there is no such part.
    """

    parts: tuple[BlockWeights, ...]
    factors: Tensor | None = None
    shift: Tensor | None = None
    ones: Tensor | None = None


def multiply_slices(
    codes: Tensor, planes: Planes, weights: SlicedWeights, product: Product, settings: MvmSettings, draw: Draw | None
) -> tuple[Tensor, Tensor | None]:
    """Converted outputs of all slices together, and which were clipped in any (None without bound management).

    codes: what the digital side sends, of which ``planes`` are what the rows receive.
    """
    total, clips = mvm_and_clips(planes, weights.parts[0], product, settings, draw)
    if weights.factors is None:
        return total, clips
    total = total * weights.factors[0]
    for index, part in enumerate(weights.parts[1:], 1):
        own = draw if draw is None else draw.again(f"slice {index}")
        y, also = mvm_and_clips(planes, part, product, settings, own)
        total = torch.addcmul(total, y, weights.factors[index])
        clips = clips if clips is None or also is None else clips | also
    if weights.shift is not None and weights.ones is not None:
        total = torch.addcmul(total, product.multiply(codes, weights.ones), weights.shift)
    return total, clips


def conversions(outputs: int, weights: SlicedWeights, settings: MvmSettings) -> int:
    """Output conversions behind ``outputs`` values of one product; repeated multiplications are not counted."""
    planes = settings.input_planes if settings.accumulate == "digital" else 1
    return outputs * len(weights.parts) * max(1, planes) * (2 if settings.passes == "digital" else 1)
