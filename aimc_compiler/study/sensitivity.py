"""`sensitivity`: what of a chip costs a network most, and what must be improved first.

Rasch et al., Nat. Commun. 14, 5282 (2023), "Sensitivity": weights stay fixed, one nonideality is scaled at a time and
all others stay as the chip has them. They are compared at equal MVM error of a full tile, and by the scale at which
normalised accuracy A* falls below 99 %.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aimc_compiler.analog.fast import Precision
from aimc_compiler.chip import active
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import DataError
from aimc_compiler.executor import CompiledEntry
from aimc_compiler.metrics import MetricFunction, find_metric
from aimc_compiler.study.attribution import Loss, cross_entropy, protect_layers, rank_columns, rank_layers
from aimc_compiler.study.bench import Bench, progress_bar
from aimc_compiler.study.chip_scores import ChipScores
from aimc_compiler.study.confidence import Bootstrap, Estimate
from aimc_compiler.study.knobs import Knob, default_names, find_knob
from aimc_compiler.study.mvm_error import FullTile
from aimc_compiler.study.recalibration import Recalibration
from aimc_compiler.study.scaled_effects import EffectStudy
from aimc_compiler.study.sensitivity_results import (
    ColumnSensitivity,
    EffectSensitivity,
    LayerSensitivity,
    ProtectedPoint,
    Sensitivity,
)
from aimc_compiler.study.sensitivity_sweeps import sweep_figures, usual_sweeps
from aimc_compiler.study.times import require_times

#: What a study consists of.
PARTS = ("effects", "layers", "columns", "sweeps")
MVM_ERROR = 0.2
THRESHOLD = 0.99
#: Where the chip itself is above the MVM error that effects are scaled to, or below the threshold of A*.
_ABOVE_OWN, _BELOW_OWN = 1.2, 0.01
_VECTORS = 64


def sensitivity(
    compiled: CompiledModel,
    data: Iterable[tuple[Any, Any]],
    metric: str | MetricFunction = "accuracy",
    chance: float | None = None,
    *,
    baseline: float | None = None,
    time_s: float = 86_400.0,
    n_chips: int = 10,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    effects: Sequence[str] | None = None,
    mvm_error: float | None = None,
    threshold: float = THRESHOLD,
    confidence: float = 0.95,
    sweeps: Mapping[str, Sequence[float]] | None = None,
    loss: Loss | None = None,
    recalibration: str | Recalibration = "always",
    precision: Precision = "auto",
    entry: str | None = None,
    progress: bool | None = None,
) -> Sensitivity:
    """Measure what each effect, layer, column and figure of the chip costs in normalised accuracy A*.

    data, metric, chance, recalibration, precision, entry: as of ``evaluate``; chance is needed with a metric of your
    own. baseline: the metric that A* takes for 1, by default the network's own in floating point; of a network that was
    trained for the chip give that of the digital one it came from. time_s: after programming; n_chips: the same for
    everything, so that differences are those of the change. parts: some of ``PARTS``. effects: names of the table, or
    "device_noise" and "all_noise" for several together; by default those that the chip has on and a few that it has
    not. mvm_error: of a full tile, to which each is scaled, others as they are (default: 20 %, or a fifth above the
    chip's own where that is more). threshold: of A*, down to which an effect is tolerated; where the chip is below it
    by itself, one point less than the chip's own A*. confidence: of intervals. sweeps: values by name, as ``SWEEPS``.
    loss: (outputs, targets) to a tensor of one number, by whose gradient columns are ranked (default: cross entropy
    where the metric is accuracy).

    Raises DataError on bad arguments and where there is no A*, CalibrationError without input ranges.

    Example:
        >>> found = aimc.sensitivity(compiled, data, n_chips=10)  # doctest: +SKIP
        >>> max(found.effects, key=lambda row: row.equal.loss.mean if row.equal else 0).title  # doctest: +SKIP
        'output noise'
    """
    _require(parts, n_chips, mvm_error, threshold)
    (time_s,) = require_times((time_s,))
    policy = Recalibration.of(recalibration)
    batches, ran = list(data), compiled.entry(entry)
    if not batches:
        raise DataError("the data is empty: give at least one batch of (inputs, targets)")
    bootstrap = Bootstrap(n_chips, confidence, seed)
    knobs = _knobs(compiled, effects) if "effects" in parts else ()
    swept, notes = _swept(compiled, sweeps) if "sweeps" in parts else ({}, ())
    bench = Bench(ran, batches, find_metric(metric))
    compiled.require_values("studied")
    total = 1 + len(knobs) + ("layers" in parts) + ("columns" in parts) + len(swept)
    with progress_bar(progress, total) as advance:
        scores = ChipScores(compiled, bench, chance, baseline, n_chips, seed, time_s, policy, precision)
        study = _Study(scores, ran, bootstrap, threshold, advance)
        return study.result(parts, knobs, swept, mvm_error, (batches, loss), notes)


def _require(parts: Sequence[str], n_chips: int, mvm_error: float | None, threshold: float) -> None:
    unknown = [part for part in parts if part not in PARTS]
    if isinstance(parts, str) or unknown or not parts:
        raise DataError(f"parts is {parts!r}: give some of {', '.join(PARTS)} in a list")
    if n_chips < 1:
        raise DataError(f"n_chips is {n_chips}: at least one chip is needed, several for intervals")
    if mvm_error is not None and not 0 < mvm_error < 1:
        raise DataError(f"mvm_error is {mvm_error:g}: give the share to which effects are scaled, as in 0.2")
    if not 0 < threshold < 1:
        raise DataError(f"threshold is {threshold:g}: give the A* down to which an effect is tolerated, as in 0.99")


def _knobs(compiled: CompiledModel, effects: Sequence[str] | None) -> tuple[Knob, ...]:
    chip = compiled.chip
    names = default_names(active(chip), chip) if effects is None else tuple(effects)
    if isinstance(effects, str):
        raise DataError(f"effects is {effects!r}: give a list of names, as in ['output_noise', 'drift']")
    return tuple(find_knob(name, chip) for name in dict.fromkeys(names))


def _swept(
    compiled: CompiledModel, sweeps: Mapping[str, Sequence[float]] | None
) -> tuple[Mapping[str, Sequence[float]], tuple[str, ...]]:
    """Values by name, and why some usual ones are missing."""
    return usual_sweeps(compiled.chip) if sweeps is None else (sweeps, ())


class _Study:
    """The parts of a study on the same chips. threshold: the one asked for, or below the chip's own A*."""

    def __init__(
        self,
        scores: ChipScores,
        ran: CompiledEntry,
        bootstrap: Bootstrap,
        threshold: float,
        advance: Callable[[str], None],
    ) -> None:
        self._scores, self._ran, self._bootstrap, self._advance = scores, ran, bootstrap, advance
        self._asked = threshold
        self._own = scores.of()
        self.a_star: Estimate = bootstrap.estimate(self._own)
        self.threshold = threshold if self.a_star.mean >= threshold else self.a_star.mean - _BELOW_OWN
        advance("the chip as it is")

    def result(
        self,
        parts: Sequence[str],
        knobs: tuple[Knob, ...],
        swept: Mapping[str, Sequence[float]],
        mvm_error: float | None,
        ranked_on: tuple[list[Any], Loss | None],
        notes: tuple[str, ...],
    ) -> Sensitivity:
        """The parts asked for. ranked_on: batches and loss, for columns."""
        scores, ran = self._scores, self._ran
        effects, (own_error, target_error) = self.effects(knobs, mvm_error)
        layers, protected = self.layers() if "layers" in parts else ((), ())
        columns, why = self.columns(*ranked_on) if "columns" in parts else (None, ())
        return Sensitivity(
            network=ran.workload.name,
            chip=scores.compiled.chip.name,
            entry=ran.name,
            metric=scores.bench.metric_name,
            time_s=scores.time_s,
            n_chips=scores.n_chips,
            n_samples=scores.bench.samples,
            seed=scores.seed,
            recalibration=str(scores.policy),
            precision=str(scores.precision),
            confidence=self._bootstrap.confidence,
            float_metric=scores.float_metric,
            baseline=scores.baseline,
            chance=scores.chance,
            a_star=self.a_star,
            mvm_error=own_error,
            target_error=target_error,
            threshold=self.threshold,
            asked_threshold=self._asked,
            effects=effects,
            layers=layers,
            layers_protected=protected,
            columns=columns,
            sweeps=sweep_figures(scores, swept, self._bootstrap, self._advance),
            notes=(*notes, *why),
        )

    def effects(
        self, knobs: tuple[Knob, ...], mvm_error: float | None
    ) -> tuple[tuple[EffectSensitivity, ...], tuple[float | None, float | None]]:
        """A row each; the MVM error of the chip's tile and the one that effects are scaled to."""
        types = [op.tile_type for op in self._ran.workload.analog_ops]
        if not knobs or not types:
            return (), (None, None)
        chip, scores = self._scores.compiled.chip, self._scores
        tile = FullTile(chip, types[0], _VECTORS, 1, scores.seed, (scores.time_s,), scores.policy)
        own = tile.error(chip)
        target = max(MVM_ERROR, own * _ABOVE_OWN) if mvm_error is None else mvm_error
        if own >= target:
            raise DataError(
                f"mvm_error is {target:g}, but a tile of {chip.name} has {own:.3f} by itself, so nothing can be scaled "
                "up to it: give a larger one, or leave it out"
            )
        study = EffectStudy(
            scores,
            self._own,
            tile,
            target,
            self.threshold,
            self._bootstrap,
            relative=self.threshold != self._asked,
        )
        rows = []
        for knob in knobs:
            rows.append(study.of(knob))
            self._advance(knob.title)
        return tuple(rows), (own, target)

    def layers(self) -> tuple[tuple[LayerSensitivity, ...], tuple[ProtectedPoint, ...]]:
        """Ranked, and the first of them exempt until A* reaches the threshold that was asked for."""
        layers = rank_layers(self._scores, self._ran, self._own, self._bootstrap)
        protected = protect_layers(self._scores, layers, self._asked, self._bootstrap) if layers else ()
        self._advance("layers")
        return layers, protected

    def columns(self, batches: list[Any], loss: Loss | None) -> tuple[ColumnSensitivity | None, tuple[str, ...]]:
        """Ranked, or why not."""
        metric = self._scores.bench.metric_name
        if loss is None and metric != "accuracy":
            return None, (f"columns are not ranked: metric {metric!r} has no gradient; give loss=...",)
        if not self._ran.workload.analog_ops:
            return None, ("columns are not ranked: no operation is on tiles",)
        found = rank_columns(self._scores, self._ran, batches, loss or cross_entropy, self._bootstrap)
        self._advance("columns")
        return found, ()
