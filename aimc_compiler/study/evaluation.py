"""`evaluate`: a metric over programmed chips and times after programming, next to the float network.

Rasch et al., Nat. Commun. 14, 5282 (2023): mean over repeated programming (25 in the paper) at 1 s, 1 h, 1 day and
1 year, and the normalised accuracy A*.
"""

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aimc_compiler.calibration import as_call
from aimc_compiler.chip.devices import held_after_s
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import DataError
from aimc_compiler.executor import Device
from aimc_compiler.records import record
from aimc_compiler.study.metric import Metric, MetricFunction, find_metric, join, normalised
from aimc_compiler.units import print_time

Advance = Callable[[str], None]


@record
class TimeResult:
    """One time after programming. values: the metric of each chip; std: their standard deviation (None for one
    chip); a_star: normalised accuracy of the mean, or None where chance is unknown."""

    time_s: float
    mean: float
    std: float | None
    a_star: float | None
    values: tuple[float, ...]

    @property
    def standard_error(self) -> float | None:
        """Of the mean over chips."""
        return None if self.std is None else self.std / math.sqrt(len(self.values))


@record
class Evaluation:
    """float_metric: of the floating-point network on the same samples; chance: what A* takes for zero.

    held_after_s: results later than this rest on device statistics held on from their last measurement; None: none do.
    """

    metric: str
    float_metric: float
    chance: float | None
    times: tuple[TimeResult, ...]
    n_chips: int
    n_samples: int
    seed: int
    held_after_s: float | None = None


def evaluate(
    compiled: CompiledModel,
    data: Iterable[tuple[Any, Any]],
    metric: str | MetricFunction = "accuracy",
    chance: float | None = None,
    times_s: Sequence[float] | None = None,
    n_chips: int = 25,
    seed: int = 0,
    *,
    progress: bool | None = None,
) -> Evaluation:
    """Program ``n_chips`` chips and score each at each time.

    data: batches of (inputs, targets); inputs as for ``compile``'s calibration. metric: "accuracy", or a function
    (outputs, targets) -> float, higher is better, called once on all outputs. chance: the metric of a network that
    knows nothing, needed for A* with a function of your own. times_s: the chip spec's by default. progress: a bar on
    standard error; by default where that is a terminal.

    Chip k of a seed is the same chip whatever ``n_chips`` and ``times_s`` are.
    """
    times = tuple(compiled.chip.evaluation.times_s if times_s is None else times_s)
    _check(times, n_chips)
    batches = list(data)
    if not batches:
        raise DataError("the evaluation data is empty: give at least one batch of (inputs, targets)")
    scored = find_metric(metric)
    targets = join([_pair(batch, number)[1] for number, batch in enumerate(batches)])
    shown = sys.stderr.isatty() if progress is None else progress
    with _progress(shown, total=len(batches) * (1 + n_chips * len(times))) as advance:
        reference = scored.function(_outputs(compiled.float_outputs, batches, advance, "float network"), targets)
        values: list[list[float]] = [[] for _ in times]
        for chip_index in range(n_chips):
            chip = compiled.deploy(seed, chip_index=chip_index)
            for place, time_s in enumerate(times):
                values[place].append(_score(chip, time_s, batches, scored, targets, advance))
    base = chance if chance is not None or scored.chance is None else scored.chance(targets)
    results = tuple(_summary(time, found, reference, base) for time, found in zip(times, values, strict=True))
    return Evaluation(
        metric=scored.name,
        float_metric=reference,
        chance=base,
        times=results,
        n_chips=n_chips,
        n_samples=sum(compiled.graph.sample_count(*as_call(x)[0], **as_call(x)[1]) for x, _ in batches),
        seed=seed,
        held_after_s=_held_after(compiled, times),
    )


def _held_after(compiled: CompiledModel, times: tuple[float, ...]) -> float | None:
    """The earliest time after which some of ``times`` rest on held statistics."""
    ends = [held_after_s(tile.device) for tile in compiled.chip.tile_types.values()]
    first = min((end for end in ends if end is not None), default=math.inf)
    return first if first < max(times) else None


def _score(chip: Device, time_s: float, batches: list[Any], metric: Metric, targets: Any, advance: Advance) -> float:
    chip.rewind()  # an evaluation's samples are numbered from 0 at each time

    def run(*args: Any, **kwargs: Any) -> Any:
        return chip(*args, time_s=time_s, **kwargs)

    label = f"chip {chip.chip_index + 1}, {print_time(time_s)}"
    return float(metric.function(_outputs(run, batches, advance, label), targets))


def _outputs(run: Callable[..., Any], batches: list[Any], advance: Advance, label: str) -> Any:
    outputs = []
    for inputs, _ in batches:
        args, kwargs = as_call(inputs)
        outputs.append(run(*args, **kwargs))
        advance(label)
    return join(outputs)


def _summary(time_s: float, values: list[float], reference: float, chance: float | None) -> TimeResult:
    mean = statistics.fmean(values)
    known = chance is not None and chance != reference
    return TimeResult(
        time_s=time_s,
        mean=mean,
        std=statistics.stdev(values) if len(values) > 1 else None,
        a_star=normalised(mean, float_value=reference, chance=chance) if known and chance is not None else None,
        values=tuple(values),
    )


def _check(times: tuple[float, ...], n_chips: int) -> None:
    if n_chips < 1:
        raise DataError(f"n_chips is {n_chips}: at least one chip is needed")
    wrong = [time for time in times if not (math.isfinite(time) and time >= 0)]
    if wrong or not times:
        raise DataError(f"times_s is {list(times)}: give one or more times in seconds after programming, 0 or later")


def _pair(batch: Any, number: int) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise DataError(f"batch {number} of the evaluation data is no pair (inputs, targets)")
    return batch[0], batch[1]


@contextmanager
def _progress(shown: bool, total: int) -> Iterator[Advance]:
    if not shown:
        yield lambda label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:24s}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=total)
        yield lambda label: bar.update(task, advance=1, description=label)
