"""The weights of a chip at a time, for training: mean and standard deviation of a pair of devices over its target.

A mini-batch needs no chip of its own, only weights that are off as much as those of one. So the devices' functions
(``aimc_compiler.analog.models``) are asked once, for a grid of targets and times, and a mini-batch draws one normal a
weight instead of six. What is lost is the shape of the distribution beyond its variance, which a sum over the rows of
a tile does not show. The mean of phase-change memory lies off its target even after compensation, for small
conductances drift further.
"""

from dataclasses import dataclass, field
from functools import cache, cached_property
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.models import statistics_of
from aimc_compiler.chip.stored import DeviceNonidealities
from aimc_compiler.records import record

#: Targets from 0 to 1, times from the earliest to the latest, and draws of each; how many draws follow one sequence.
TARGETS, TIMES, DRAWS, DIMENSIONS = 129, 33, 2048, 32


@dataclass(frozen=True)
class Curve:
    """mean, sd: of a weight over g_max, (TARGETS,), float64, by its target from 0 to 1."""

    mean: Tensor
    sd: Tensor

    @cached_property
    def lines(self) -> npt.NDArray[np.float32]:
        """(4, TARGETS - 1): of the mean, between the targets, what each line is at target 0 and how much it rises in a
        step; then of the deviation."""
        steps = np.arange(TARGETS - 1)
        parts = []
        for values in (self.mean.numpy(), self.sd.numpy()):
            rise = np.diff(values)
            parts += [values[:-1] - steps * rise, rise]
        return np.stack(parts).astype(np.float32)

    def compensated_lines(self, alpha: float, ramp: float) -> npt.NDArray[np.float32]:
        """``lines`` of ``compensated``."""
        lines: npt.NDArray[np.float32] = self.lines * np.float32(alpha * ramp)
        lines[1] += np.float32((1 - ramp) / (TARGETS - 1))
        return lines

    def at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, sd) of targets, in between in proportion; NaN of NaN. r: any shape, 0 to 1."""
        place = r * (TARGETS - 1)
        low = place.long().clamp(0, TARGETS - 2)  # NaN is any number there
        share = place - low
        mean, sd = (values.to(r) for values in (self.mean, self.sd))
        return torch.lerp(mean[low], mean[low + 1], share), torch.lerp(sd[low], sd[low + 1], share)

    def compensated(self, alpha: float, ramp: float = 1.0) -> "Curve":
        """Multiplied by what drift compensation reads, and as far from the targets as a share of ``ramp`` says."""
        targets = torch.linspace(0, 1, TARGETS, dtype=torch.float64)
        return Curve(mean=targets.lerp(self.mean * alpha, ramp), sd=self.sd * (alpha * ramp))


@record
class Ageing:
    """fresh: right after programming; curves: at each of ``times_s``, rising, with equal steps of their logarithm."""

    fresh: Curve
    times_s: tuple[float, ...]
    curves: tuple[Curve, ...]
    _last: dict[str, tuple[float, Curve]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def at(self, share: float) -> Curve:
        """At a share of the way from the earliest to the latest time, by its logarithm."""
        kept = self._last.get("at")  # all matrices of a mini-batch have the same
        if kept is None or kept[0] != share:
            kept = self._last["at"] = share, self._between(share)
        return kept[1]

    def _between(self, share: float) -> Curve:
        place = share * (len(self.curves) - 1)
        low = min(int(place), max(0, len(self.curves) - 2))
        one, other, part = self.curves[low], self.curves[min(low + 1, len(self.curves) - 1)], place - low
        return Curve(mean=one.mean.lerp(other.mean, part), sd=one.sd.lerp(other.sd, part))


def ageing_of(figures: Any, effects: DeviceNonidealities, times_s: tuple[float, float], spread: float) -> Ageing:
    """Of a weight of devices with these figures and factors of effects, between two times.

    spread: standard deviation of a weight of several pairs over that of one.
    """
    key = (repr(figures), effects.model_dump_json(), times_s, spread)
    if key not in _KNOWN:
        early, late = times_s
        count = TIMES if late > early else 1
        steps = torch.linspace(log(early), log(late), count, dtype=torch.float64).exp().tolist()
        times = (early, *steps[1:-1], late) if count > 1 else (early,)
        curves = [_curve(figures, effects, time_s, spread) for time_s in (None, *times)]
        _KNOWN[key] = Ageing(fresh=curves[0], times_s=times, curves=tuple(curves[1:]))
    return _KNOWN[key]


_KNOWN: dict[tuple[Any, ...], Ageing] = {}


def _curve(figures: Any, effects: DeviceNonidealities, time_s: float | None, spread: float) -> Curve:
    """Of a device at its target less one at 0, whose draws are others."""
    targets = torch.linspace(0, 1, TARGETS, dtype=torch.float64).expand(DRAWS, TARGETS)
    held: dict[tuple[str, ...], Tensor] = {}

    def normals(*names: str) -> Tensor:
        if names not in held:
            held[names] = _even_normals(len(held)).unsqueeze(1).expand(DRAWS, TARGETS)
        return held[names]

    g = statistics_of(figures)(targets, normals, figures, effects, time_s)
    mean, variance = g.mean(0), g.var(0, correction=0)
    return Curve(mean=mean - mean[0], sd=(variance + variance[0]).sqrt() * spread)


def _even_normals(number: int) -> Tensor:
    """(DRAWS,) normals of unit variance, of the draw of this number: a Sobol sequence, so that moments over the first
    DIMENSIONS draws are exact to a few parts in a thousand; further ones are in an order by chance."""
    values = _sobol()[:, number % DIMENSIONS]
    if number >= DIMENSIONS:
        order = torch.Generator().manual_seed(number)
        values = values[torch.randperm(DRAWS, generator=order)]
    return values


@cache
def _sobol() -> Tensor:
    """(DRAWS, DIMENSIONS)."""
    engine = torch.quasirandom.SobolEngine(DIMENSIONS, scramble=True, seed=0)  # type: ignore[no-untyped-call]
    shares = engine.draw(DRAWS, dtype=torch.float64).clamp(0.25 / DRAWS, 1 - 0.25 / DRAWS)
    values: Tensor = torch.special.ndtri(shares)
    return values / values.square().mean(0).sqrt()


def compensation(fresh: float, aged: float) -> float:
    """What drift compensation multiplies by: the sum of all weights right after programming over that of now."""
    return fresh / aged if aged > 0 else 1.0
