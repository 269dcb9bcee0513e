"""Scaling of input vectors before their conversion ("noise management"); outputs are multiplied by it again.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods; Gokmen, Onen, Haensch, Front. Neurosci. 11, 538 (2017). A vector
is what one row block receives for one window, after the division by the input range.
"""

import torch
from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings

_LARGEST_GAIN = 0.25


def constant_scale(settings: MvmSettings) -> float:
    """The scale that all vectors share: theta, or 1 where theta is 0 or each vector has its own."""
    return settings.scaling_bound or 1.0 if settings.input_scaling == "constant" else 1.0


def vector_scales(x: Tensor, settings: MvmSettings) -> Tensor:
    """(..., 1): the scale a of each vector, 0 for a zero vector, whose output is then 0. x: (..., rows).

    abs_max: ``A = max |x|``, at most theta where theta > 0; abs_max_sums: ``max(A, min(0.25 A / step_in,
    0.6 max(sum x+, -sum x-) / b_out))``, so that vectors of many inputs of one sign do not overflow the output.
    """
    largest = x.abs().amax(dim=-1, keepdim=True)
    if settings.input_scaling == "abs_max":
        return largest.clamp(max=settings.scaling_bound) if settings.scaling_bound else largest
    sums = torch.maximum(x.clamp(min=0).sum(-1, keepdim=True), -x.clamp(max=0).sum(-1, keepdim=True))
    sums = settings.sum_share * sums
    if settings.dac_step:
        sums = torch.minimum(sums, largest * (_LARGEST_GAIN / settings.dac_step))
    return torch.maximum(largest, sums)


def scale_down(x: Tensor, scales: Tensor) -> Tensor:
    """``x / a``; a zero vector stays zero."""
    return x / torch.where(scales > 0, scales, torch.ones_like(scales))
