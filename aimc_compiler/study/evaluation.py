"""`evaluate`: a metric over programmed chips and times after programming, next to the float network.

Rasch et al., Nat. Commun. 14, 5282 (2023): mean over repeated programming (25 in the paper) at 1 s, 1 h, 1 day and
1 year, and the normalised accuracy A*.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from aimc_compiler.analog.fast import Precision
from aimc_compiler.chip.devices import held_after_s
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import DataError
from aimc_compiler.executor import Device, Repeats, price_repeats
from aimc_compiler.metrics import MetricFunction, find_metric, normalised
from aimc_compiler.records import record
from aimc_compiler.study.bench import Bench, progress_bar
from aimc_compiler.study.interval import Paired, PairedScores, ci95_of
from aimc_compiler.study.recalibration import Recalibration
from aimc_compiler.study.times import require_times


@record
class TimeResult:
    """One time after programming. values: the metric of each chip; std: their standard deviation (None for one
    chip); a_star: normalised accuracy of the mean, or None where chance is unknown; paired: the difference from the
    float network on the same samples, for metrics that are means over samples, else None."""

    time_s: float
    mean: float
    std: float | None
    a_star: float | None
    values: tuple[float, ...]
    paired: Paired | None = None

    @property
    def ci95(self) -> tuple[float, float] | None:
        """(low, high): the 95 % confidence interval of the mean over chips; None for one chip."""
        return ci95_of(self.values)

    @property
    def standard_error(self) -> float | None:
        """Of the mean over chips."""
        return None if self.std is None else self.std / math.sqrt(len(self.values))


@record
class Evaluation:
    """float_metric: of the floating-point network on the same samples; chance: what A* takes for zero; recalibration:
    when the chips were read for drift compensation; corrections: "columns", "norms", made at each time; precision: of
    each analog operation on the last chip, "fast", or "exact" and why; held_after_s: results later than this rest on
    device statistics held on from their last measurement, None: none do; repeats: what bound management repeated in
    all scored runs together (``n_samples`` on every chip at every time), beside the program's time and energy; entry:
    of the program, which was run."""

    metric: str
    float_metric: float
    chance: float | None
    times: tuple[TimeResult, ...]
    n_chips: int
    n_samples: int
    seed: int
    recalibration: str = "always"
    corrections: tuple[str, ...] = ()
    precision: tuple[tuple[str, str], ...] = ()
    held_after_s: float | None = None
    repeats: Repeats | None = None
    entry: str = "main"


def evaluate(
    compiled: CompiledModel,
    data: Iterable[tuple[Any, Any]],
    metric: str | MetricFunction = "accuracy",
    chance: float | None = None,
    times_s: Sequence[float] | None = None,
    n_chips: int = 25,
    seed: int = 0,
    *,
    recalibration: str | Recalibration = "always",
    columns: Iterable[Any] | None = None,
    norms: Iterable[Any] | None = None,
    precision: Precision = "auto",
    entry: str | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Program ``n_chips`` chips and score each at each time.

    data: batches of (inputs, targets); inputs as for ``compile``'s calibration. metric: "accuracy", or a function
    (outputs, targets) to a number, higher is better, or to the scores of all samples, (n, ...), whose mean it is;
    called once on all outputs, joined along their batch dimension, and all targets, joined along their first. chance:
    the metric of a network that knows nothing, needed for A* with a function of your own; where the float network is no
    better than that, there is no A*. times_s: the chip spec's by default. recalibration: when each chip is read for
    drift compensation: "always" (at every one of the times), "never" (after programming and not again), "1h" (at the
    latest full hour), or times as in "0s,1d". columns, norms: batches of inputs by which each chip's columns are
    corrected, then its batch norms recalibrated, at each time (``Device.correct_columns``,
    ``Device.recalibrate_norms``). precision: as of ``CompiledModel.deploy``. entry: of a program of several, the one
    whose inputs these are (default: the first). progress: a bar on standard error; by default where that is a terminal.

    Chip k of a seed is the same chip whatever ``n_chips`` and ``times_s`` are.
    """
    times = require_times(compiled.chip.evaluation.times_s if times_s is None else times_s)
    policy = Recalibration.of(recalibration)
    batches, corrections, ran = list(data), Corrections(columns, norms), compiled.entry(entry)
    _require_some(n_chips, batches)
    paired = PairedScores(find_metric(metric))
    with progress_bar(progress, total=len(batches) * (1 + n_chips * len(times))) as advance:
        compiled.require_values("run")
        bench = Bench(ran, batches, paired.metric, advance)
        reference = bench.float_metric()
        found = []
        for number in range(n_chips):
            chip = compiled.deploy(seed, chip_index=number, precision=precision)
            found.append(score_chip(chip, bench, times, policy, corrections))
    base = bench.chance() if chance is None else chance
    return Evaluation(
        metric=paired.metric.name,
        float_metric=reference,
        chance=base,
        times=_summaries(times, [scores for scores, _ in found], reference, base, paired),
        n_chips=n_chips,
        n_samples=bench.samples,
        seed=seed,
        recalibration=str(policy),
        corrections=corrections.names,
        precision=tuple((name, str(choice)) for name, choice in chip.precision_in(ran.name).items()),
        held_after_s=held_after(compiled, times),
        repeats=price_repeats(ran.program, sum((repeated for _, repeated in found), Counter[str]())),
        entry=ran.name,
    )


def _require_some(n_chips: int, batches: list[Any]) -> None:
    if n_chips < 1:
        raise DataError(f"n_chips is {n_chips}: at least one chip is needed")
    if not batches:
        raise DataError("the evaluation data is empty: give at least one batch of (inputs, targets)")


def held_after(compiled: CompiledModel, times: tuple[float, ...]) -> float | None:
    """The earliest time after which some of ``times`` rest on held statistics."""
    ends = [held_after_s(tile.device) for tile in compiled.chip.tile_types.values()]
    first = min((end for end in ends if end is not None), default=math.inf)
    return first if first < max(times) else None


class Corrections:
    """What is corrected on each chip at each time, columns first: norms then measure what is left."""

    def __init__(self, columns: Iterable[Any] | None, norms: Iterable[Any] | None) -> None:
        self.columns = None if columns is None else list(columns)
        self.norms = None if norms is None else list(norms)

    @property
    def names(self) -> tuple[str, ...]:
        given = {"columns": self.columns, "norms": self.norms}
        return tuple(name for name, batches in given.items() if batches is not None)

    def apply(self, chip: Device, time_s: float, entry: str) -> None:
        if self.norms is not None:
            chip.recalibrate_norms(None)
        if self.columns is not None:
            chip.correct_columns(self.columns, time_s, entry=entry)
        if self.norms is not None:
            chip.recalibrate_norms(self.norms, time_s, entry=entry)


def score_chip(
    chip: Device, bench: "Bench", times_s: Sequence[float], policy: Recalibration, corrections: Corrections
) -> tuple[list[float], Counter[str]]:
    """(the metric at each time, MVMs that bound management repeated in the scored runs, by task)."""
    values: list[float] = []
    repeated: Counter[str] = Counter()
    for time_s in times_s:
        _age(chip, time_s, policy, corrections, bench.entry)
        before = chip.repeated_in(bench.entry)
        values.append(bench.score(chip, time_s))
        repeated += chip.repeated_in(bench.entry) - before
    return values, repeated


def _age(chip: Device, time_s: float, policy: Recalibration, corrections: Corrections, entry: str) -> None:
    """Recalibrated and corrected; samples are numbered from 0 at each time, those that correct the chip first."""
    chip.rewind()
    chip.recalibrate(policy.last_s(time_s))
    corrections.apply(chip, time_s, entry)


def _summaries(
    times: tuple[float, ...], scores: list[list[float]], reference: float, chance: float | None, paired: PairedScores
) -> tuple[TimeResult, ...]:
    """scores: of each chip, at each time."""
    return tuple(
        _summary(time_s, list(values), reference, chance, paired.of(place, len(times)))
        for place, (time_s, values) in enumerate(zip(times, zip(*scores, strict=True), strict=True))
    )


def _summary(
    time_s: float, values: list[float], reference: float, chance: float | None, paired: Paired | None
) -> TimeResult:
    mean = statistics.fmean(values)
    known = chance is not None and reference > chance
    return TimeResult(
        time_s=time_s,
        mean=mean,
        std=statistics.stdev(values) if len(values) > 1 else None,
        a_star=normalised(mean, float_value=reference, chance=chance) if known and chance is not None else None,
        values=tuple(values),
        paired=paired,
    )
