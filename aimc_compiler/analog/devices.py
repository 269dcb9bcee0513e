"""The statistics of a device as functions of r, its conductance over g_max.

Fits of doped Ge2Sb2Te5 phase-change memory: Nandakumar et al., "Phase-change memory models for deep learning training
and inference", ICECS 2019, as used by Rasch et al., Nat. Commun. 14, 5282 (2023), Methods; figures of each device in
``aimc_compiler.chip.devices``. r is clamped from below at 1e-7, where ln r has left every fit's range.
"""

from math import inf

import torch
from torch import Tensor

from aimc_compiler.chip.devices import LogClip, PcmFigures, PowerClip

_R_MIN = 1e-7


def programming_sd_us(r: Tensor, figures: PcmFigures) -> Tensor:
    """Standard deviation of the programmed conductance in uS, at the g_max of the fit; it scales with g_max.

    r: target over g_max, any shape.
    """
    return polynomial(r, figures.programming_us)


def nu_mean(r: Tensor, figures: PcmFigures) -> Tensor:
    """Mean of the drift exponent. r: target over g_max, any shape."""
    return _log_clip(r, figures.nu_mean)


def nu_sd(r: Tensor, figures: PcmFigures) -> Tensor:
    """Standard deviation of the drift exponent before its absolute value is taken. r: target over g_max."""
    return _log_clip(r, figures.nu_sd)


def q(r: Tensor, figures: PcmFigures) -> Tensor:
    """Amplitude of the 1/f read noise. r: programmed conductance over g_max, any shape."""
    fit = figures.q
    return _log_clip(r, fit) if isinstance(fit, LogClip) else _power_clip(r, fit)


def polynomial(r: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Coefficients from r^0 upwards; none is 0. r: any shape."""
    total = torch.zeros_like(r)
    for coefficient in reversed(coefficients):
        total = total * r + coefficient
    return total


def _log_clip(r: Tensor, fit: LogClip) -> Tensor:
    low_branch = (fit.slope * r.clamp(min=_R_MIN).log() + fit.offset).clamp(fit.low, fit.high)
    if fit.threshold == -inf:
        return polynomial(r, fit.polynomial)
    if not fit.polynomial:
        return low_branch
    return torch.where(r < fit.threshold, low_branch, polynomial(r, fit.polynomial))


def _power_clip(r: Tensor, fit: PowerClip) -> Tensor:
    return (fit.factor / torch.pow(r, fit.exponent).clamp(min=fit.floor)).clamp(max=fit.high)
