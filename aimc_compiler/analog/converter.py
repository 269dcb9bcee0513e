"""The converters at both ends of a column: inputs to codes, column outputs to codes.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "AIMC MVM": a b-bit converter has 2^b - 2 steps over twice its
bound, rounds to the nearest (halves to the even code) and then clips.
"""

from math import inf

from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings


def quantise(x: Tensor, step: float) -> Tensor:
    """``step * rint(x / step)``: any shape, in the units of ``step``. The divisor is a step: no reciprocal is taken."""
    return (x / step).round_().mul_(step) if step else x


def clip(x: Tensor, bound: float) -> Tensor:
    """``x`` held to [-bound, bound]; an infinite bound leaves it alone."""
    return x if bound == inf else x.clamp(-bound, bound)


def dac(x: Tensor, settings: MvmSettings) -> Tensor:
    """Inputs as the rows receive them. x: any shape, normalised to the input range (1 is the range).

    Rounding before clipping or after is the same, since the bound is a code.
    """
    return clip(quantise(x, settings.dac_step), settings.in_bound)


def adc(u: Tensor, settings: MvmSettings) -> Tensor:
    """Outputs as the converter gives them. u: any shape, in units of normalised weights times normalised inputs."""
    codes = quantise(u, settings.adc_step)
    if settings.signed or settings.out_bound == inf:
        return clip(codes, settings.out_bound)
    return codes.clamp(0, settings.out_bound)
