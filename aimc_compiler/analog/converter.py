"""The converters at both ends of a column: inputs to codes, column outputs to codes.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "AIMC MVM": a b-bit converter has 2^b - 2 steps over twice its
bound, rounds to the nearest (halves to the even code) and then clips.

Gradients are those of the converters without steps: rounding passes them on, clipping where a value was not clipped.
"""

from math import inf

import torch
from torch import Tensor

from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.settings import MvmSettings, Points
from aimc_compiler.analog.straight_through import straight_through, tracks
from aimc_compiler.errors import InternalError


def quantise(x: Tensor, step: float) -> Tensor:
    """``step * rint(x / step)``: any shape, in the units of ``step``. The divisor is a step: no reciprocal is taken."""
    return straight_through((x / step).round_().mul_(step), x) if step else x


def clip(x: Tensor, bound: float) -> Tensor:
    """``x`` held to [-bound, bound]; an infinite bound leaves it alone."""
    return x if bound == inf else x.clamp(-bound, bound)


def asymmetric(x: Tensor, asymmetry: float) -> Tensor:
    """Negative values times ``1 - asymmetry``: any shape."""
    return torch.where(x < 0, x * (1 - asymmetry), x) if asymmetry else x


def bow(x: Tensor, bound: float, curve: tuple[float, ...] | Points) -> Tensor:
    """``x + sum_k c_k v^k`` with ``v = clip(x / bound, -1, 1)``, or ``x + p(v)`` with p linear between points.

    x: any shape; curve: c_1, c_2, ..., or points with values, in the units of x.
    """
    if isinstance(curve, Points):
        return x + _interpolated(x / bound, curve)
    v = (x / bound).clamp(-1, 1)
    deviation = torch.zeros_like(x)
    for coefficient in reversed(curve):
        deviation = (deviation + coefficient) * v
    return x + deviation


def _interpolated(v: Tensor, points: Points) -> Tensor:
    positions, values = v.new_tensor(points.positions), v.new_tensor(points.values)
    slopes = values.diff() / positions.diff()
    v = v.clamp(points.positions[0], points.positions[-1])
    left = torch.bucketize(v.detach().contiguous(), positions[1:-1], right=True)
    return torch.addcmul(values[left], v - positions[left], slopes[left])


def round_by_chance(x: Tensor, step: float, draw: Tensor) -> Tensor:
    """Codes about x, the upper one with the probability that gives x on average. draw: standard normals, x's shape."""
    steps = x / step
    below = steps.floor()
    up: Tensor = torch.special.ndtr(draw) < steps - below
    return straight_through((below + up) * step, x)


def input_codes(x: Tensor, settings: MvmSettings, draw: Tensor | None = None) -> Tensor:
    """Inputs as the digital side sends them. x: any shape, normalised to the input range (1 is the range).

    draw: standard normals of that shape, where rounding is stochastic. Rounding before clipping or after is the same,
    since the bound is a code. Raises InternalError where chance is needed and not given.
    """
    if settings.dac_stochastic and draw is None:
        raise InternalError("inputs are rounded by chance, and no normals were given for it")
    rounded = quantise(x, settings.dac_step) if draw is None else round_by_chance(x, settings.dac_step, draw)
    codes = clip(rounded, settings.in_bound)
    # What was clipped is told by x: the code of the bound can lie one unit of the last place beyond it.
    return straight_through(codes, clip(x, settings.in_bound)) if tracks(x) else codes


def driven(codes: Tensor, settings: MvmSettings) -> Tensor:
    """What rows receive for codes: any shape."""
    return bow(codes, 1.0, settings.dac_inl) if settings.dac_inl else codes


def dac(x: Tensor, settings: MvmSettings, draw: Tensor | None = None) -> Tensor:
    """Inputs as the rows receive them. As ``input_codes``."""
    return driven(input_codes(x, settings, draw), settings)


def adc(u: Tensor, settings: MvmSettings) -> Tensor:
    """Outputs as the converter gives them. u: any shape, in units of normalised weights times normalised inputs."""
    return held(quantise(u, settings.adc_step), u, settings)


def held(codes: Tensor, u: Tensor, settings: MvmSettings) -> Tensor:
    """Output codes within the bounds of their converter, with the gradient of ``u``, whose codes they are, within them.

    Bounds are 0 and ``out_bound`` where the converter knows no sign.
    """
    kept = _within(codes, settings)
    return straight_through(kept, _within(u, settings)) if tracks(u) else kept


def _within(u: Tensor, settings: MvmSettings) -> Tensor:
    if settings.signed or settings.out_bound == inf:
        return clip(u, settings.out_bound)
    return u.clamp(0, settings.out_bound)


def mismatched(u: Tensor, figures: ColumnFigures) -> Tensor:
    """What a converter with its own gain and offset takes u for."""
    u = u * figures.gain if isinstance(figures.gain, Tensor) else u
    return u + figures.offset if isinstance(figures.offset, Tensor) else u


def over_bound(u: Tensor, figures: ColumnFigures) -> Tensor:
    """u in units of its converter's bound, where that is what the settings are in."""
    return u / figures.bound if isinstance(figures.bound, Tensor) else u


def times_bound(y: Tensor, figures: ColumnFigures) -> Tensor:
    """What ``over_bound`` divided by."""
    return y * figures.bound if isinstance(figures.bound, Tensor) else y


def corrected(y: Tensor, figures: ColumnFigures) -> Tensor:
    """Outputs of calibrated converters: what was measured is taken off digitally."""
    y = y - figures.offset_measured if isinstance(figures.offset_measured, Tensor) else y
    return y / figures.gain_measured if isinstance(figures.gain_measured, Tensor) else y
