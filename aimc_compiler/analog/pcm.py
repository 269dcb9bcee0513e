"""Phase-change memory: programming, drift, accumulated read noise.

Nandakumar et al., ICECS 2019, as used by Rasch et al., Nat. Commun. 14, 5282 (2023), Methods. Conductances are
fractions of g_max, at which everything of the model is independent of g_max.
"""

from collections.abc import Callable
from math import log, sqrt

import torch
from torch import Tensor

from aimc_compiler.analog.devices import nu_mean, nu_sd, programming_sd_us, q
from aimc_compiler.chip.devices import PcmFigures
from aimc_compiler.chip.stored import WriteVerify

#: Standard normals of the devices at hand, all of one shape; named by what they are for.
Normals = Callable[..., Tensor]

#: The Brownian motion of ``log_time``: its clock ends here (T = 1e20 s at t_read = 250 ns), and is halved this often.
_CLOCK_END = 60.0
_HALVINGS = 14


def program(r: Tensor, draw: Tensor, figures: PcmFigures, factor: float) -> Tensor:
    """Programmed conductances, ``max(0, r + factor sigma_P(r) xi)``. r, draw: one shape; all over g_max."""
    return (r + programming_sd_us(r, figures) * draw * (factor / figures.g_max_us)).clamp(min=0)


def write_and_verify(
    r: Tensor, normals: Normals, figures: PcmFigures, factor: float, rule: WriteVerify
) -> tuple[Tensor, Tensor]:
    """Programmed conductances over g_max, and how many pulses each device took.

    Every pulse writes a device anew with the statistics of ``program``; the read after it accepts what lies within
    ``rule.tolerance`` of the target, and the others are written again, up to ``rule.max_pulses``. The read itself is
    taken as exact. The first pulse is that of programming once.
    """
    g = program(r, normals("programming"), figures, factor)
    pulses = torch.ones_like(g, dtype=torch.int64)
    for pulse in range(1, rule.max_pulses):
        missed = (g - r).abs() > rule.tolerance
        if not bool(missed.any()):
            break
        g = torch.where(missed, program(r, normals("programming", f"pulse {pulse}"), figures, factor), g)
        pulses += missed
    return g, pulses


def drift_exponents(r: Tensor, draw: Tensor, figures: PcmFigures, factor: float) -> Tensor:
    """``factor |mean + sd xi|``, one a device, fixed at programming. r: target conductances over g_max."""
    return (nu_mean(r, figures) + nu_sd(r, figures) * draw).abs() * factor


def drift(programmed: Tensor, exponents: Tensor, time_s: float, figures: PcmFigures) -> Tensor:
    """``g_P (T / t0)^-nu`` with T = t + t0: conductances at time_s after programming, over g_max."""
    return programmed * torch.exp(exponents * -log((time_s + figures.t0_s) / figures.t0_s))


def accumulate_read_noise(
    drifted: Tensor, programmed: Tensor, draw: Tensor, time_s: float, figures: PcmFigures, factor: float
) -> Tensor:
    """1/f noise since programming: ``max(0, g_D + factor g_D Q(g_P) sqrt(ln((T + t_read) / (2 t_read))) xi)``."""
    growth = factor * sqrt(noise_clock(time_s, figures))
    return (drifted + drifted * q(programmed, figures) * draw * growth).clamp(min=0)


def noise_clock(time_s: float, figures: PcmFigures) -> float:
    """``ln((T + t_read) / (2 t_read))``, T = t + t0: the variance of the accumulated noise over Q squared."""
    return log((time_s + figures.t0_s + figures.t_read_s) / (2 * figures.t_read_s))


def log_time_draw(normals: Normals, purpose: str, clock: float) -> Tensor:
    """A Brownian motion at ``clock``, over the square root of it: unit variance, correlation sqrt(s1 / s2), s1 < s2.

    1/f noise averaged over windows that grow with T is such a motion in ln T. The path is a function of its streams
    alone: [0, 60] is halved 14 times around the clock, every midpoint a draw named by its place (Levy's construction),
    and within the last interval, 0.4 % of T wide, the value is drawn by its own clock. So every marginal variance is
    exact, and the correlation of two times but for those closer than 0.4 %, which come out a little too independent.
    Raises ValueError beyond the end of the clock, 2e19 s at a t_read of 250 ns.
    """
    if not 0 < clock <= _CLOCK_END:
        raise ValueError(f"a clock of {clock} lies outside 0 to {_CLOCK_END}")
    low, high = 0.0, _CLOCK_END
    at_high = normals(purpose, "end") * sqrt(_CLOCK_END)
    at_low = torch.zeros_like(at_high)
    place = 1
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        at_middle = 0.5 * (at_low + at_high) + normals(purpose, "middle", str(place)) * (0.5 * sqrt(high - low))
        above = clock > middle
        low, high = (middle, high) if above else (low, middle)
        at_low, at_high = (at_middle, at_high) if above else (at_low, at_middle)
        place = 2 * place + above
    share = (clock - low) / (high - low)
    spread = sqrt(max(0.0, (clock - low) * (high - clock) / (high - low)))
    value = at_low + (at_high - at_low) * share + normals(purpose, "inside", repr(clock)) * spread
    return value / sqrt(clock)
