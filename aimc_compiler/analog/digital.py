"""Precision of the digital numbers about a tile: activations on links, column scales, partial sums.

Gradients are those of the numbers before rounding, held to the same bounds.
"""

import torch
from torch import Tensor

from aimc_compiler.analog.converter import clip, quantise
from aimc_compiler.analog.straight_through import straight_through, tracks
from aimc_compiler.chip.spec import converter_steps

_FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def send(x: Tensor, bits: int) -> Tensor:
    """Activations over their range, any shape, as integers: 2^bits - 1 levels evenly about zero, held to the range."""
    sent = clip(quantise(x, 2.0 / converter_steps(bits)), 1.0)
    return straight_through(sent, clip(x, 1.0)) if tracks(x) else sent


def integer_scales(scales: Tensor, bits: int) -> Tensor:
    """Column scales (columns,) of one piece as integers times one scale, rounded up so that no weight exceeds 1."""
    levels, largest = int(2**bits - 1), scales.max()
    steps: Tensor = (scales / largest * levels).ceil().clamp(1, levels)
    return straight_through(steps * (largest / levels), scales)


def in_format(y: Tensor, name: str) -> Tensor:
    """Partial sums rounded to "fp16" or "bf16", in the dtype of y; what is too large stays at the largest number."""
    largest = torch.finfo(_FORMATS[name]).max
    within = y.clamp(-largest, largest)
    return straight_through(within.to(_FORMATS[name]).to(y.dtype), within)
