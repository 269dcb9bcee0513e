"""The data of a study, the network that runs it and the metric that scores it; a bar that says how far it is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aimc_compiler.errors import DataError
from aimc_compiler.executor import CompiledEntry, Device, as_call, run_graph
from aimc_compiler.metrics import Metric, join_outputs, join_targets
from aimc_compiler.units import print_time

Advance = Callable[[str], None]


class Bench:
    """The data of an evaluation, the entry that runs it and the metric that scores it.

    Raises DataError on a batch that is no pair.
    """

    def __init__(
        self, ran: CompiledEntry, batches: list[Any], metric: Metric, advance: Advance = lambda label: None
    ) -> None:
        self._ran, self._metric, self._advance = ran, metric, advance
        self._targets = join_targets([_pair(batch, number)[1] for number, batch in enumerate(batches)])
        self._calls = [as_call(inputs) for inputs, _ in batches]
        self._dims = ran.graph.batch.outputs if ran.graph.batch.dynamic else None

    @property
    def samples(self) -> int:
        """Samples of all batches."""
        return sum(self._ran.graph.sample_count(*args, **kwargs) for args, kwargs in self._calls)

    @property
    def entry(self) -> str:
        """The entry that is run."""
        return self._ran.name

    @property
    def metric_name(self) -> str:
        """Of the metric that scores."""
        return self._metric.name

    def chance(self) -> float | None:
        """The metric of constant prediction; None where that is not known."""
        return None if self._metric.chance is None else self._metric.chance(self._targets)

    def float_metric(self) -> float:
        """Of the floating-point network."""
        parts = []
        for number, (args, kwargs) in enumerate(self._calls):
            try:
                parts.append(run_graph(self._ran.graph, *args, **kwargs))
            except (TypeError, ValueError, RuntimeError, DataError) as error:
                raise DataError(
                    f"batch {number} of the evaluation data does not run through the network: {error}. Give inputs of "
                    "the shapes and types of the example that it was compiled with"
                ) from error
            self._advance("float network")
        return self._measured(parts, "the float network")

    def score(self, chip: Device, time_s: float) -> float:
        """Of a chip at a time."""
        parts = []
        for args, kwargs in self._calls:
            parts.append(chip(*args, time_s=time_s, entry=self._ran.name, **kwargs))
            self._advance(f"chip {chip.chip_index + 1}, {print_time(time_s)}")
        return self._measured(parts, f"chip_index {chip.chip_index} at {print_time(time_s)}")

    def _measured(self, parts: list[Any], where: str) -> float:
        """The metric as a number. Raises DataError where it gives none."""
        outputs = join_outputs(parts, self._dims)
        return self._metric.value(outputs, self._targets, where, self.samples)


def _pair(batch: Any, number: int) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise DataError(f"batch {number} of the evaluation data is no pair (inputs, targets)")
    return batch[0], batch[1]


@contextmanager
def progress_bar(shown: bool | None, total: int | None) -> Iterator[Advance]:
    """What advances a bar on standard error by one step and says which; of ``total`` steps, None: unknown. shown: None
    for where that is a terminal."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:24s}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=total)
        yield lambda label: bar.update(task, advance=1, description=label)
