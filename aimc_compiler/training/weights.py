"""What disturbs the weights of a mini-batch: the noise of devices, and weights set to 0.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "Hardware-aware training": normalised weights get fresh noise of
the programming model in every mini-batch, the same in its forward and backward pass. The gradient goes to the clean
weights. Noise never flips a sign, and exact zeros stay zero.
"""

from functools import partial
from math import exp, log, sqrt
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog.devices import programming_sd_us
from aimc_compiler.analog.models import deviation_sd_us, statistics_of
from aimc_compiler.analog.state import devices_figures
from aimc_compiler.analog.straight_through import straight_through
from aimc_compiler.chip.devices import DeviationFigures, PcmFigures
from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.chip.stored import DeviceNonidealities
from aimc_compiler.errors import RecipeError
from aimc_compiler.records import record
from aimc_compiler.rng import Key, stream_key, uniforms
from aimc_compiler.training.recipe import Recipe


@record
class WeightNoise:
    """The noise of one tile type's devices under a recipe. figures: None for ideal devices, which make none.

    effects: factors of the chip's own; spread: standard deviation of a weight of several pairs over that of one pair.
    """

    recipe: Recipe
    figures: Any
    effects: DeviceNonidealities
    spread: float

    @classmethod
    def of(cls, recipe: Recipe, tile: Tile, nonidealities: Nonidealities) -> "WeightNoise":
        """Raises RecipeError where the devices have no statistics of programming to train with."""
        figures = devices_figures(tile.device, nonidealities.device)
        if recipe.noise == "programming" and figures is not None and type(figures) not in _DEVIATIONS:
            known = ", ".join(kind.__name__ for kind in _DEVIATIONS)
            raise RecipeError(
                f"noise 'programming' with device {tile.device.model!r}, whose figures ({type(figures).__name__}) are "
                f"none of {known}: set noise to gaussian"
            )
        parts = tile.device.significance or (1.0,) * tile.device.pairs
        spread = sqrt(sum(part**2 for part in parts)) / sum(parts)
        return cls(recipe=recipe, figures=figures, effects=nonidealities.device, spread=spread)

    def factor(self, batch: int) -> float:
        """By how much noise is scaled in mini-batch ``batch`` (from 0)."""
        ramp = self.recipe.noise_ramp
        return self.recipe.noise_factor * (min(1.0, batch / ramp) if ramp else 1.0)

    @property
    def polynomial(self) -> tuple[float, ...] | None:
        """Coefficients of the deviation of a weight over g_max, from r^0 up, where that is all there is; else None."""
        recipe = self.recipe
        if recipe.drop_connect or recipe.drift_s is not None or recipe.noise == "gaussian":
            return None
        if recipe.noise == "none" or self.figures is None:
            return ()
        if not isinstance(self.figures, PcmFigures) or len(self.figures.programming_us) > TERMS:
            return None
        scale = self.spread * self.effects.programming_noise / self.figures.g_max_us
        return tuple(scale * coefficient for coefficient in self.figures.programming_us)

    def key(self, seed: int, name: str) -> Key:
        """Of the normals of a row block in a mini-batch."""
        return stream_key(seed, "training", name, "weights")

    def disturb(self, w: Tensor, batch: int, seed: int, name: str) -> Tensor:
        """``w`` as a mini-batch sees it, its gradient that of ``w``.

        w: (groups, columns, rows), normalised; batch: how many mini-batches came before; seed, name: of the mini-batch
        and of the row block: all draws follow from them.
        """
        value = self._noisy(w.detach(), self.factor(batch), partial(stream_key, seed, "training", name))
        if self.recipe.drop_connect:
            kept = _kept(w, self.recipe.drop_connect, stream_key(seed, "training", name, "drop connect"))
            return straight_through(value, w) * kept
        return straight_through(value, w)

    def _noisy(self, w: Tensor, factor: float, key_of: Any) -> Tensor:
        if not factor or self.recipe.noise == "none":
            return w
        if self.recipe.noise == "gaussian":
            return w + _normals(w, key_of("weights")) * (self.recipe.gaussian_sd * factor)
        if self.figures is None:
            return w
        if self.recipe.drift_s is not None:
            return self._aged(w, factor, key_of)
        r = w.abs()
        sd = _DEVIATIONS[type(self.figures)](r, self.figures)
        scale = factor * self.spread * self.effects.programming_noise / self.figures.g_max_us
        noisy = torch.addcmul(r, sd, _normals(w, key_of("weights")), value=scale).clamp_(min=0)
        return torch.copysign(noisy, w).mul_(r > 0)

    def _aged(self, w: Tensor, factor: float, key_of: Any) -> Tensor:
        """Devices at a time of this mini-batch, compensated by the mean of all weights of the block.

        A pair of devices as on the chip, zeros included: here signs may flip.
        """
        early, late = self.recipe.drift_s or (1.0, 1.0)
        draw = float(uniforms(key_of("time"), 1)[0])
        time_s = exp(log(early) + draw * (log(late) - log(early)))
        scale = factor * self.spread
        effects = self.effects.model_copy(
            update={
                "programming_noise": self.effects.programming_noise * scale,
                "accumulated_read_noise": self.effects.accumulated_read_noise * scale,
                "write_verify": None,
            }
        )
        targets = torch.stack([w.clamp(min=0), (-w).clamp(min=0)])

        def draws(purpose: str, *more: str) -> Tensor:
            return _normals(targets, key_of(purpose, *more))

        of = statistics_of(self.figures)
        now = of(targets, draws, self.figures, effects, time_s)
        before = of(targets, draws, self.figures, effects, None)
        aged, programmed = now[0] - now[1], before[0] - before[1]
        alpha = programmed.abs().mean() / aged.abs().mean().clamp(min=1e-4)
        return aged * alpha


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
