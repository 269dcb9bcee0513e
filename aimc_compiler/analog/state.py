"""The devices of one piece: what was programmed, how it drifts, what it is at time t.

A weight w is a differential pair, ``g+ = g_max max(w, 0)`` and ``g- = g_max max(-w, 0)``; both devices are programmed
and both drift, the zero one too (Rasch et al., Nat. Commun. 14, 5282 (2023), Methods; Nandakumar et al., ICECS 2019).
Conductances here are fractions of g_max, at which everything of the model is independent of g_max.

Nothing is stored: each state is a function of named streams (seed, chip, piece, purpose[, time]), so it depends
neither on the order in which times are asked for nor on other pieces.
"""

from math import log, sqrt

import torch
from torch import Tensor

from aimc_compiler.analog.devices import nu_mean, nu_sd, programming_sd_us, q
from aimc_compiler.chip.devices import PcmFigures
from aimc_compiler.chip.spec import DeviceNonidealities
from aimc_compiler.records import record
from aimc_compiler.rng import Key, cell_normals, stream_key


@record
class Streams:
    """The named streams of one piece on one chip."""

    seed: int
    chip: int
    piece: str

    def key(self, purpose: str, *more: str) -> Key:
        return stream_key(self.seed, "chip", self.chip, "piece", self.piece, purpose, *more)


def time_name(time_s: float) -> str:
    """How a time enters the name of a stream: exactly."""
    return repr(float(time_s) + 0.0)  # -0.0 is 0.0


def program(r: Tensor, draw: Tensor, figures: PcmFigures, factor: float) -> Tensor:
    """Programmed conductances, ``max(0, r + factor sigma_P(r) xi)``. r, draw: one shape; all over g_max."""
    return (r + programming_sd_us(r, figures) * draw * (factor / figures.g_max_us)).clamp(min=0)


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
    elapsed = time_s + figures.t0_s
    growth = factor * sqrt(log((elapsed + figures.t_read_s) / (2 * figures.t_read_s)))
    return (drifted + drifted * q(programmed, figures) * draw * growth).clamp(min=0)


@record
class PieceDevices:
    """The devices of a piece. target: (columns, rows) normalised weights, |w| <= 1; figures: None for ideal devices."""

    target: Tensor
    streams: Streams
    effects: DeviceNonidealities
    figures: PcmFigures | None

    def programmed(self) -> Tensor:
        """(columns, rows): the weights as programmed, before drift and accumulated noise."""
        return _weights(self.conductances(None))

    def at(self, time_s: float) -> Tensor:
        """(columns, rows): the weights at ``time_s`` seconds after programming; |w| may exceed 1."""
        return _weights(self.conductances(time_s))

    def conductances(self, time_s: float | None) -> Tensor:
        """(2, columns, rows): g+ and g- over g_max at ``time_s``; None: as programmed."""
        figures, effects = self.figures, self.effects
        targets = torch.stack([self.target.clamp(min=0), (-self.target).clamp(min=0)])
        if figures is None:
            return targets
        programmed = targets
        if effects.programming_noise:
            programmed = program(targets, self._normals("programming"), figures, effects.programming_noise)
        if time_s is None:
            return programmed
        g = programmed
        if effects.drift:
            exponents = drift_exponents(targets, self._normals("drift"), figures, effects.drift)
            g = drift(programmed, exponents, time_s, figures)
        if effects.accumulated_read_noise:
            draw = self._normals("accumulated read noise", time_name(time_s))
            g = accumulate_read_noise(g, programmed, draw, time_s, figures, effects.accumulated_read_noise)
        return g

    def _normals(self, purpose: str, *more: str) -> Tensor:
        values = cell_normals(self.streams.key(purpose, *more), 2 * self.target.numel())
        return torch.from_numpy(values).to(self.target).reshape(2, *self.target.shape)


def _weights(g: Tensor) -> Tensor:
    """g+ - g- of (2, columns, rows) conductances over g_max."""
    return g[0] - g[1]


def devices_figures(figures: PcmFigures | None, effects: DeviceNonidealities) -> PcmFigures | None:
    """``figures`` where any device effect is on, else None: ideal devices."""
    on = effects.programming_noise or effects.drift or effects.accumulated_read_noise
    return figures if on else None
