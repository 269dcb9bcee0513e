"""What a sweep is: one network on chips that differ in some figures, each made several times, at several times.

A *setting* is one choice of all figures that vary. A *cell* is one manufactured chip at one setting, at all times: the
times share what is programmed, so a finer cell would program the same chip again.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from aimc_compiler.chip import ChipSpec
from aimc_compiler.chip.figures import figures
from aimc_compiler.records import record

#: An axis that is no figure of the chip.
RECALIBRATION = "recalibration"


@record
class Setting:
    """One point of the axes. values: what varies, by name, in the order of the axes; chip: with these figures."""

    index: int
    values: tuple[tuple[str, Any], ...]
    chip: ChipSpec
    recalibration: str

    @property
    def title(self) -> str:
        """For people: "tile.adc.bits=6 tile.rows=256"; "the chip as it is" where nothing varies."""
        return " ".join(f"{name}={value}" for name, value in self.values) or "the chip as it is"


@record
class Cell:
    """One chip at one setting."""

    setting: int
    chip_index: int

    @property
    def name(self) -> str:
        """Also of its file."""
        return f"s{self.setting:04d}-c{self.chip_index:04d}"


@record
class Sweep:
    """A definition as it was read. network, calibration, data, columns, norms: references, as the command line takes
    them; chip: before any axis; axes: names of what varies; chance: None to take the metric's own; entry: None for the
    first; times_s: seconds after programming."""

    network: str
    chip: ChipSpec
    axes: tuple[str, ...]
    settings: tuple[Setting, ...]
    data: str
    times_s: tuple[float, ...]
    calibration: str | None = None
    ranges: str = "percentile:99.9"
    output_ranges: str | None = None
    rules: Any = None
    batch: int = 100
    limit: int | None = None
    metric: str = "accuracy"
    chance: float | None = None
    columns: str | None = None
    norms: str | None = None
    n_chips: int = 5
    recalibration: str = "always"
    seed: int = 0
    precision: str = "auto"
    entry: str | None = None

    def cells(self) -> Iterator[Cell]:
        """Setting after setting, so that a worker that takes the next finds its program in memory."""
        for setting in self.settings:
            for chip_index in range(self.n_chips):
                yield Cell(setting=setting.index, chip_index=chip_index)

    @property
    def precompiled(self) -> bool:
        """Whether the network is an artifact, which cannot be compiled again."""
        return self.network.endswith(".aimc")

    def plain(self) -> dict[str, Any]:
        """All that results depend on, as JSON has it."""
        fields = ("network", "calibration", "ranges", "output_ranges", "rules", "data", "batch", "limit", "metric")
        more = ("chance", "columns", "norms", "n_chips", "recalibration", "seed", "precision", "entry")
        return {
            **{name: getattr(self, name) for name in (*fields, *more)},
            "times_s": list(self.times_s),
            "chip": {"name": self.chip.name, **{figure.path: figure.value for figure in figures(self.chip)}},
            "axes": list(self.axes),
            "settings": [dict(setting.values) for setting in self.settings],
        }


def combine(grid: Mapping[str, list[Any]], together: Mapping[str, list[Any]]) -> list[tuple[tuple[str, Any], ...]]:
    """Every point of the axes: those of ``grid`` crossed, the last one varying fastest, and inside them those of
    ``together``, which advance side by side. Lists of ``together`` have one length.

    >>> [dict(point) for point in combine({"a": [1, 2]}, {"b": [3, 4], "c": [5, 6]})][1]
    {'a': 1, 'b': 4, 'c': 6}
    """
    crossed = itertools.product(*([(name, value) for value in values] for name, values in grid.items()))
    rows = list(zip(*([(name, value) for value in values] for name, values in together.items()), strict=True)) or [()]
    return [(*outer, *inner) for outer in crossed for inner in rows]
