"""What hardware-aware training does beside the network's own training: a frozen record that reads and prints as JSON.

The defaults are what did best on a residual CNN, and for input ranges on spoken digits of held-out speakers
(docs/results.md). ``RASCH_2023`` is the method of Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "Hardware-aware
training".
"""

import dataclasses
import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from aimc_compiler.errors import RecipeError
from aimc_compiler.records import record

NoiseKind = Literal["programming", "gaussian", "none"]
RangeRule = Literal["learned", "fixed"]
ClipRule = Literal["none", "column", "k-sigma", "learned"]


@record
class Recipe:
    """noise: what disturbs weights, anew in every mini-batch and alike in its forward and backward pass:
    "programming", the programming noise of the chip's devices, whose sign never flips and whose zeros stay zero;
    "gaussian", of one standard deviation, ``gaussian_sd`` of the largest weight of a column; "none".
    noise_factor: scales it; noise_ramp: mini-batches over which it rises from nothing (0: at once).
    drift_s: (earliest, latest) seconds, or "evaluation" for the chip's own evaluation times: the weights of a chip at a
    time, the same for all matrices, drawn anew in each mini-batch, uniform in its logarithm: mean and variance of pairs
    of devices with programming noise, drift, accumulated read noise and drift compensation (signs may flip); None:
    right after programming. It is for noise "programming"; "evaluation" means nothing to other noise.
    read_noise, output_noise: factors of the chip's; converters: whether inputs and outputs are rounded and clipped;
    ir_drop: whether the wires' loss acts (Rasch et al. saw no effect of leaving it out).
    ranges: "learned", by the rule of ``aimc_compiler.training.ranges``, or "fixed"; range_batches: mini-batches in
    which a range follows ``range_sigmas`` standard deviations of the inputs before it is learned or fixed; range_decay:
    the share of it that is added to its gradient where more than ``range_inside`` of the inputs lie within.
    column_gain: whether each column of a tile has a learned digital factor; remap_every: mini-batches after which each
    column is scaled anew, so that its largest weight is 1. clip: what weights are held to, as soon as a mini-batch
    begins after an update: "none", "column" (the scale of the last remap), "k-sigma" (``clip_sigmas`` standard
    deviations of the weights of a tile's block from 0), "learned" (a bound for each column, a parameter); drop_connect:
    share of weights set to 0 in a mini-batch.
    distillation: weight of the float teacher in ``distillation_loss``, at ``temperature``.
    freeze_norms: share of the run, at its end, in which batch norms normalise by their running statistics, as they do
    on the chip: what noise does to the mean of a channel is then seen by the network behind, not taken back in each
    mini-batch. It needs the length of the run (``steps`` of ``prepare_hwa``; ``train`` knows it).

    >>> Recipe(noise_factor=2.0).noise_factor
    2.0
    """

    noise: NoiseKind = "programming"
    noise_factor: float = 1.0
    noise_ramp: int = 0
    gaussian_sd: float = 0.04
    drift_s: tuple[float, float] | Literal["evaluation"] | None = "evaluation"
    read_noise: float = 1.0
    output_noise: float = 1.0
    converters: bool = True
    ir_drop: bool = False
    ranges: RangeRule = "learned"
    range_batches: int = 100
    range_sigmas: float = 4.0
    range_decay: float = 1e-3
    range_inside: float = 0.999
    column_gain: bool = False
    remap_every: int = 1
    clip: ClipRule = "k-sigma"
    clip_sigmas: float = 2.0
    drop_connect: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0
    freeze_norms: float = 0.2

    def __post_init__(self) -> None:
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if not isfinite(value) or value < low:
                raise RecipeError(f"{name} is {value}: give a finite number, {low} or more")
        for name in ("drop_connect", "range_inside", "distillation", "freeze_norms"):
            if getattr(self, name) > 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, a share: give a number from 0 to 1")
        if isinstance(self.drift_s, str):
            if self.drift_s != "evaluation":
                raise RecipeError(
                    f"drift_s is {self.drift_s!r}: give 'evaluation', (earliest, latest) seconds, or None"
                )
            return
        if self.drift_s is not None and not 0 < self.drift_s[0] <= self.drift_s[1] < float("inf"):
            raise RecipeError(f"drift_s is {self.drift_s}: give (earliest, latest) seconds, rising and above 0")
        if self.drift_s is not None and self.noise != "programming":
            raise RecipeError(f"drift_s with noise {self.noise!r}, which does not drift: set noise to programming")

    def to_json(self) -> str:
        """All settings, as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Settings that are left out have their defaults. Raises RecipeError naming what is wrong."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise RecipeError(f"recipe: {_faults(error)}") from None

    @classmethod
    def of(cls, recipe: "Recipe | Mapping[str, Any] | str | Path | None") -> "Recipe":
        """A recipe as it is, from a mapping of settings, or from a JSON file; None: the default."""
        if recipe is None:
            return cls()
        if isinstance(recipe, Recipe):
            return recipe
        if isinstance(recipe, Mapping):
            return cls.from_json(json.dumps(dict(recipe)))
        path = Path(recipe)
        if not path.is_file():
            raise RecipeError(f"there is no recipe file {path}: give the path of a JSON file of settings")
        return cls.from_json(path.read_text())


#: The least value of each number.
_LEAST: dict[str, float] = {
    "noise_factor": 0.0,
    "noise_ramp": 0,
    "gaussian_sd": 0.0,
    "read_noise": 0.0,
    "output_noise": 0.0,
    "range_batches": 1,
    "range_sigmas": 1e-3,
    "range_decay": 0.0,
    "range_inside": 0.0,
    "remap_every": 1,
    "clip_sigmas": 1e-3,
    "drop_connect": 0.0,
    "distillation": 0.0,
    "temperature": 1e-3,
    "freeze_norms": 0.0,
}


#: The method of Rasch et al. (2023), for a network of some epochs of about 500 mini-batches.
RASCH_2023 = Recipe(
    noise_factor=3.0,
    noise_ramp=500,
    drift_s=None,
    range_sigmas=3.0,
    range_inside=0.95,
    remap_every=500,
    clip="column",
    freeze_norms=0.0,
)


def _faults(error: ValidationError) -> str:
    known = ", ".join(field.name for field in dataclasses.fields(Recipe))
    parts = []
    for fault in error.errors():
        where = ".".join(map(str, fault["loc"]))
        text = (
            f"there is no setting {where!r}; there are {known}"
            if fault["type"] == "unexpected_keyword_argument"
            else (f"{where}: {fault['msg']}" if where else fault["msg"])
        )
        parts.append(text)
    return "; ".join(parts)
