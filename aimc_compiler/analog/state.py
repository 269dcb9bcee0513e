"""The devices of one piece: what was programmed, how it drifts, what it is at time t.

A weight w is a differential pair, ``g+ = g_max max(w, 0)`` and ``g- = g_max max(-w, 0)``; both devices are programmed
and both drift, the zero one too (Rasch et al., Nat. Commun. 14, 5282 (2023), Methods; Nandakumar et al., ICECS 2019).
Conductances here are fractions of g_max, at which everything of the model is independent of g_max.

Nothing is stored: each state is a function of named streams (seed, chip, piece, purpose[, time]), so it depends
neither on the order in which times are asked for nor on other pieces.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog.defects import PieceDefects
from aimc_compiler.analog.models import statistics_of
from aimc_compiler.analog.pcm import write_and_verify
from aimc_compiler.chip.devices import device_figures
from aimc_compiler.chip.stored import Device, DeviceNonidealities
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


@record
class PieceDevices:
    """The devices of a piece. target: (columns, rows) normalised weights, |w| <= 1; figures: None for ideal devices.

    figures: of a type that ``models.STATISTICS`` knows; significance: what each differential pair of a weight
    counts; single: a cell has one device, not a pair, and targets are not negative.
    """

    target: Tensor
    streams: Streams
    effects: DeviceNonidealities
    figures: Any
    significance: tuple[float, ...] = (1.0,)
    defects: PieceDefects | None = None
    single: bool = False

    def programmed(self) -> Tensor:
        """(columns, rows): the weights as programmed, before drift and accumulated noise."""
        return self._weights(None)

    def at(self, time_s: float) -> Tensor:
        """(columns, rows): the weights at ``time_s`` seconds after programming; |w| may exceed 1."""
        return self._weights(time_s)

    def conductances(self, time_s: float | None, pair: int = 0) -> Tensor:
        """(2, columns, rows): g+ and g- of a pair over g_max at ``time_s``; None: as programmed."""
        targets = torch.stack([self.target.clamp(min=0), (-self.target).clamp(min=0)])
        g = targets
        if self.figures is not None:
            normals = partial(self._normals, pair)
            g = statistics_of(self.figures)(targets, normals, self.figures, self.effects, time_s)
        return g if self.defects is None else self.defects.apply(g, pair)

    def pulses(self) -> Tensor:
        """(pairs, 2, columns, rows), or (pairs, 1, columns, rows): pulses that programming gave each device.

        1 each, but where devices are written and verified. A stuck device is pulsed like the others.
        """
        targets = torch.stack([self.target.clamp(min=0), (-self.target).clamp(min=0)])
        rule, noise = self.effects.write_verify, self.effects.programming_noise
        kept = slice(0, 1 if self.single else 2)
        if rule is None or not noise or self.figures is None:
            return torch.ones_like(targets[kept], dtype=torch.int64).expand(len(self.significance), -1, -1, -1)
        pairs = range(len(self.significance))
        return torch.stack(
            [write_and_verify(targets, partial(self._normals, p), self.figures, noise, rule)[1][kept] for p in pairs]
        )

    def _weights(self, time_s: float | None) -> Tensor:
        """Pairs weighed by their significance; each holds the same target, devices of its own."""
        total = sum(self.significance)
        weights = torch.zeros_like(self.target)
        for pair, factor in enumerate(self.significance):
            g = self.conductances(time_s, pair)
            weights = weights + (g[0] if self.single else g[0] - g[1]) * (factor / total)
        return weights

    def _normals(self, pair: int, purpose: str, *more: str) -> Tensor:
        names = (purpose, *more, f"pair {pair}") if pair else (purpose, *more)
        values = cell_normals(self.streams.key(*names), 2 * self.target.numel())
        return torch.from_numpy(values).to(self.target).reshape(2, *self.target.shape)


def tile_drift_factor(spread: float, seed: int, chip: int, tile: int) -> float:
    """``max(0, 1 + spread xi)``: what multiplies the drift exponents of all devices on a tile of a chip."""
    key = stream_key(seed, "chip", chip, "tile", tile, "drift spread")
    return max(0.0, 1.0 + spread * float(cell_normals(key, 1)[0]))


def devices_figures(device: Device, effects: DeviceNonidealities) -> Any:
    """The figures of the device where any of its effects is on, else None: ideal devices."""
    on = effects.programming_noise or effects.drift or effects.accumulated_read_noise
    return device_figures(device) if on else None
