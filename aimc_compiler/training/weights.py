"""What disturbs the weights of a mini-batch: the noise of devices, and weights set to 0.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "Hardware-aware training": normalised weights get fresh noise of
the programming model in every mini-batch, the same in its forward and backward pass. The gradient goes to the clean
weights. Noise never flips a sign, and exact zeros stay zero. Under ``drift_s`` weights are those of pairs of devices at
a time (``ageing.py``).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog.devices import programming_sd_us
from aimc_compiler.analog.models import deviation_sd_us
from aimc_compiler.analog.state import devices_figures
from aimc_compiler.analog.straight_through import straight_through
from aimc_compiler.chip.devices import DeviationFigures, PcmFigures
from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.chip.stored import DeviceNonidealities
from aimc_compiler.errors import RecipeError
from aimc_compiler.records import record
from aimc_compiler.rng import Key, stream_key, uniforms
from aimc_compiler.training.ageing import Ageing, Curve, ageing_of, compensation
from aimc_compiler.training.recipe import Recipe


@record
class WeightNoise:
    """The noise of one tile type's devices under a recipe. figures: None for ideal devices, which make none.

    effects: factors of the chip's own; spread: standard deviation of a weight of several pairs over that of one pair;
    ageing: where weights are those of a chip at a time.
    """

    recipe: Recipe
    figures: Any
    effects: DeviceNonidealities
    spread: float
    ageing: Ageing | None = None

    @classmethod
    def of(
        cls, recipe: Recipe, tile: Tile, nonidealities: Nonidealities, evaluated_s: Sequence[float]
    ) -> "WeightNoise":
        """evaluated_s: the chip's evaluation times. Raises RecipeError where the devices have no statistics of
        programming to train with."""
        figures = devices_figures(tile.device, nonidealities.device)
        times_s = _ages_between(recipe, evaluated_s)
        known_or_aged = figures is None or type(figures) in _DEVIATIONS or times_s is not None
        if recipe.noise == "programming" and not known_or_aged:
            known = ", ".join(kind.__name__ for kind in _DEVIATIONS)
            raise RecipeError(
                f"noise 'programming' with device {tile.device.model!r}, whose figures ({type(figures).__name__}) are "
                f"none of {known}: set noise to gaussian, or drift_s, which takes any device"
            )
        parts = tile.device.significance or (1.0,) * tile.device.pairs
        spread = sqrt(sum(part**2 for part in parts)) / sum(parts)
        effects = nonidealities.device
        ageing = None if times_s is None else _ageing(recipe, figures, effects, spread, times_s)
        return cls(recipe=recipe, figures=figures, effects=effects, spread=spread, ageing=ageing)

    def ramp(self, batch: int) -> float:
        """What share of the noise acts in mini-batch ``batch`` (from 0)."""
        ramp = self.recipe.noise_ramp
        return min(1.0, batch / ramp) if ramp else 1.0

    @property
    def in_few_passes(self) -> bool:
        """Whether ``disturbance.py`` makes these weights, too."""
        return not self.recipe.drop_connect and (self.ageing is not None or self.polynomial is not None)

    @property
    def polynomial(self) -> tuple[float, ...] | None:
        """Coefficients of the deviation of a weight over g_max, from r^0 up, where that is all there is; else None."""
        recipe = self.recipe
        if recipe.drop_connect or self.ageing is not None or recipe.noise == "gaussian":
            return None
        if recipe.noise == "none" or self.figures is None:
            return ()
        if not isinstance(self.figures, PcmFigures) or len(self.figures.programming_us) > TERMS:
            return None
        scale = recipe.noise_factor * self.spread * self.effects.programming_noise / self.figures.g_max_us
        return tuple(scale * coefficient for coefficient in self.figures.programming_us)

    def key(self, seed: int, name: str) -> Key:
        """Of the normals of a row block in a mini-batch."""
        return stream_key(seed, "training", name, "weights")

    def disturb(self, w: Tensor, batch: int, seed: int, name: str) -> Tensor:
        """``w`` as a mini-batch sees it, its gradient that of ``w``.

        w: (groups, columns, rows), normalised; batch: how many mini-batches came before; seed, name: of the mini-batch
        and of the row block: all draws follow from them.
        """
        value = self._noisy(w.detach(), self.ramp(batch), seed, self.key(seed, name))
        if self.recipe.drop_connect:
            kept = _kept(w, self.recipe.drop_connect, stream_key(seed, "training", name, "drop connect"))
            return straight_through(value, w) * kept
        return straight_through(value, w)

    def _noisy(self, w: Tensor, ramp: float, seed: int, key: Key) -> Tensor:
        recipe, factor, curves = self.recipe, ramp * self.recipe.noise_factor, self.curves(seed)
        if curves is not None:
            return _aged(w, *curves, ramp, _normals(w, key))
        if not factor or recipe.noise == "none":
            return w
        if recipe.noise == "gaussian":
            return w + _normals(w, key) * (recipe.gaussian_sd * factor)
        if self.figures is None:
            return w
        r = w.abs()
        sd = _DEVIATIONS[type(self.figures)](r, self.figures)
        scale = factor * self.spread * self.effects.programming_noise / self.figures.g_max_us
        noisy = torch.addcmul(r, sd, _normals(w, key), value=scale).clamp_(min=0)
        return torch.copysign(noisy, w).mul_(r > 0)

    def curves(self, seed: int) -> tuple[Curve, Curve] | None:
        """Right after programming, and at the time of a mini-batch, which is one for all matrices; or none."""
        if self.ageing is None:
            return None
        return self.ageing.fresh, self.ageing.at(_time_of(seed))


@lru_cache(maxsize=1)
def _time_of(seed: int) -> float:
    """The share of the way from the earliest to the latest time, of all matrices of a mini-batch."""
    return float(uniforms(stream_key(seed, "training", "time"), 1)[0])


def _ages_between(recipe: Recipe, evaluated_s: Sequence[float]) -> tuple[float, float] | None:
    """(earliest, latest) seconds of weights at a time, on a chip with these evaluation times; None for none."""
    if recipe.noise != "programming" or recipe.drift_s is None:
        return None
    return (min(evaluated_s), max(evaluated_s)) if isinstance(recipe.drift_s, str) else recipe.drift_s


def _ageing(
    recipe: Recipe, figures: Any, effects: DeviceNonidealities, spread: float, times_s: tuple[float, float]
) -> Ageing | None:
    """Of weights between two times; None where devices are ideal."""
    if figures is None:
        return None
    factors = {
        name: getattr(effects, name) * recipe.noise_factor for name in ("programming_noise", "accumulated_read_noise")
    }
    return ageing_of(figures, effects.model_copy(update=factors), times_s, spread)


def _aged(w: Tensor, fresh: Curve, now: Curve, ramp: float, draws: Tensor) -> Tensor:
    """Pairs of devices at the time of a mini-batch, compensated, zeros included: here signs may flip."""
    r = w.abs()
    mean, sd = now.compensated(compensation(float(fresh.at(r)[0].sum()), float(now.at(r)[0].sum())), ramp).at(r)
    value = torch.addcmul(mean, sd, draws)
    return torch.where(w < 0, -value, value)


def _pcm_sd(r: Tensor, figures: PcmFigures) -> Tensor:
    return programming_sd_us(r, figures)


def _deviation_sd(r: Tensor, figures: DeviationFigures) -> Tensor:
    return deviation_sd_us(r, figures, figures.times_s[0])


#: Coefficients of a polynomial that ``kernels.disturb`` takes.
TERMS = 4

#: Standard deviation in uS of a programmed conductance, by the kind of the device's figures.
_DEVIATIONS: dict[type, Any] = {PcmFigures: _pcm_sd, DeviationFigures: _deviation_sd}


def _normals(like: Tensor, key: Key) -> Tensor:
    """Standard normals of the shape, dtype and device of ``like``."""
    from aimc_compiler.training.normals import normals

    rows = like.shape[-1]
    values = normals(key, like.numel() // rows, rows)
    return torch.from_numpy(values).reshape(like.shape).to(like)


def _kept(w: Tensor, share: float, key: Key) -> Tensor:
    """Ones, and zeros for a share of the weights."""
    bound: float = torch.special.ndtri(torch.tensor(share, dtype=torch.float64)).item()
    kept: Tensor = _normals(w, key) >= bound
    return kept.to(w.dtype)
