"""One effect at a time: switched off, scaled to an equal MVM error, and scaled until A* falls below a threshold."""

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import NotBuiltError, SpecError
from aimc_compiler.study.chip_scores import ChipScores
from aimc_compiler.study.confidence import Bootstrap, Estimate, Values
from aimc_compiler.study.knobs import Knob, bits_below
from aimc_compiler.study.mvm_error import FullTile
from aimc_compiler.study.sensitivity_results import EffectSensitivity, EqualError
from aimc_compiler.study.tolerance import Tolerance, find_tolerance

#: The MVM error is found to this share of itself; what jumps over it by more than the second has no such level.
_CLOSE, _NEAR = 2e-3, 0.05
_STEPS = 20
#: First level of an effect that the chip has off, and how much it grows until the error is reached.
_FIRST, _GROWTH = 1e-4, 4.0
T = TypeVar("T")


class EffectStudy:
    """Everything about one effect on one chip. own: A* of every chip as it is; tile: measures the MVM error; target: of
    it; threshold: of A*; relative: the threshold is one below the chip's own mean, so chips count by what they lose."""

    def __init__(
        self,
        scores: ChipScores,
        own: tuple[float, ...],
        tile: FullTile,
        target: float,
        threshold: float,
        bootstrap: Bootstrap,
        *,
        relative: bool = False,
    ) -> None:
        self._scores, self._own, self._tile = scores, own, tile
        self._target, self._threshold, self._bootstrap = target, threshold, bootstrap
        mean = math.fsum(own) / len(own)
        self._shift = tuple(mean - value if relative else 0.0 for value in own)
        self._chip: ChipSpec = scores.compiled.chip
        self._base = tile.error(self._chip)

    def of(self, knob: Knob) -> EffectSensitivity:
        """All there is to say of an effect; where something cannot be had, ``notes`` say why."""
        notes: list[str] = []
        without = self._tried(notes, lambda: self._without(knob)) if knob.is_on else None
        equal: tuple[EqualError, float] | None = None
        tolerance = None
        if knob.kind == "switch":
            notes.append("on or off: it has no scale")
        elif knob.kind == "bits":
            equal = self._tried(notes, lambda: self._equal_bits(knob, notes))
            tolerance = self._tried(notes, lambda: self._tolerated_bits(knob))
        else:
            equal = self._tried(notes, lambda: self._equal(knob, notes))
            start = equal[1] if equal else min(knob.largest, 1.0 if knob.kind == "factor" else 1e-2)
            tolerance = self._tried(notes, lambda: self._tolerated(knob, start))
        return EffectSensitivity(
            name=knob.name,
            title=knob.title,
            effects=knob.effects,
            kind=knob.kind,
            figure=knob.figure,
            unit=knob.unit,
            without=without,
            equal=equal[0] if equal else None,
            tolerance=tolerance,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _tried(self, notes: list[str], ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except (SpecError, NotBuiltError) as error:
            notes.append(f"not on this chip: {error}")
            return None

    def _without(self, knob: Knob) -> Estimate:
        return self._difference(self._scores.of(knob.off(self._chip)), self._own)

    def _difference(self, more: tuple[float, ...], less: tuple[float, ...]) -> Estimate:
        return self._bootstrap.estimate([one - other for one, other in zip(more, less, strict=True)])

    def _at(self, knob: Knob, level: float) -> tuple[float, ...]:
        return self._scores.of(knob.turned(self._chip, level))

    def _shifted(self, knob: Knob, level: float) -> tuple[float, ...]:
        """A* to hold against the threshold."""
        return tuple(value + shift for value, shift in zip(self._at(knob, level), self._shift, strict=True))

    def _error(self, knob: Knob, level: float) -> float:
        return self._tile.error(knob.turned(self._chip, level))

    def _equal(self, knob: Knob, notes: list[str]) -> tuple[EqualError, float] | None:
        """At the level, with that level; None where no level reaches the error."""
        low, high = (0.0, self._base), (1.0 if knob.kind == "factor" else min(_FIRST, knob.largest), 0.0)
        while (error := self._error(knob, high[0])) < self._target:
            if high[0] >= knob.largest:
                notes.append(f"its MVM error stays below: {100 * error:.1f} % at {knob.value(high[0]):.3g} {knob.unit}")
                return None
            low, high = (high[0], error), (min(high[0] * _GROWTH, knob.largest), 0.0)
        level, high = high[0], (high[0], error)
        for step in range(_STEPS):
            if abs(error / self._target - 1) < _CLOSE:
                break
            level = _between(low, high, self._target, halve=step % 3 == 2)
            error = self._error(knob, level)
            low, high = ((level, error), high) if error < self._target else (low, (level, error))
        if abs(error / self._target - 1) > _NEAR:
            ends = f"from {100 * low[1]:.1f} to {100 * high[1]:.1f} %"
            notes.append(f"its MVM error jumps {ends} at {knob.value(level):.3g} {knob.unit}")
            return None
        found = EqualError(
            value=knob.value(level),
            factor=level if knob.kind == "factor" else None,
            mvm_error=error,
            loss=self._difference(self._own, self._at(knob, level)),
        )
        return found, level

    def _equal_bits(self, knob: Knob, notes: list[str]) -> tuple[EqualError, float] | None:
        """Between the two whole bits whose errors enclose the target, A* by linear interpolation in the error."""
        above, error_above = None, 0.0
        for bits in bits_below(knob):
            error = self._error(knob, bits)
            if error >= self._target:
                break
            above, error_above = bits, error
        else:
            notes.append(f"its MVM error stays below: {100 * error_above:.1f} % at {above} bits")
            return None
        if above is None:
            above, error_above = bits, error
        share = 1.0 if error == error_above else (self._target - error_above) / (error - error_above)
        fine, coarse = self._at(knob, above), self._at(knob, bits)
        mixed = tuple((1 - share) * f + share * c for f, c in zip(fine, coarse, strict=True))
        found = EqualError(
            value=above - share * (above - bits),
            factor=None,
            mvm_error=error_above + share * (error - error_above),
            loss=self._difference(self._own, mixed),
        )
        return found, float(bits)

    def _tolerated(self, knob: Knob, start: float) -> Tolerance:
        own = tuple(value + shift for value, shift in zip(self._own, self._shift, strict=True))
        known = {1.0: own} if knob.kind == "factor" else None

        def score(level: float) -> tuple[float, ...]:
            return self._shifted(knob, level)

        return find_tolerance(score, self._threshold, start, knob.largest, self._bootstrap, known)

    def _tolerated_bits(self, knob: Knob) -> Tolerance:
        """The least whole bits that keep the threshold; infinite where the chip's own do not."""
        measured: dict[int, tuple[float, ...]] = {}
        for bits in bits_below(knob):
            measured[bits] = self._shifted(knob, bits)
            if max(measured[bits]) < self._threshold:  # nor would any draw of chips
                break
        order = list(measured)

        def least(means: Values) -> Values:
            fails = means < self._threshold
            first = np.where(fails.any(axis=0), fails.argmax(axis=0), len(order))
            return np.array([math.inf, *map(float, order)])[first]

        low, high = self._bootstrap.interval(least, [measured[bits] for bits in order])
        means = [math.fsum(measured[bits]) / len(measured[bits]) for bits in order]
        return Tolerance(
            threshold=self._threshold,
            level=float(least(np.array(means)[:, None])[0]),
            low=low,
            high=high,
            measured=tuple((float(bits), mean) for bits, mean in zip(order, means, strict=True))[::-1],
        )


def _between(low: tuple[float, float], high: tuple[float, float], target: float, *, halve: bool) -> float:
    """A level between two (level, error): the error of independent effects is linear in squares; or half way."""
    (first, less), (second, more) = low, high
    share = 0.5 if halve or more <= less else (target**2 - less**2) / (more**2 - less**2)
    share = min(max(share, 0.02), 0.98)
    return math.sqrt(first**2 + share * (second**2 - first**2))
