"""What `compile` returns: the levels of one network on one chip, and what can be asked of them."""

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Table
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimc_compiler.analog.fast import Precision, parse_precision
from aimc_compiler.calibration import RangeMethod, calibrate_ranges
from aimc_compiler.chip import EFFECTS, ChipSpec, figures
from aimc_compiler.compiler.entries import read_calibration
from aimc_compiler.errors import CalibrationError, CaptureError, SpecError
from aimc_compiler.executor import CompiledEntry, Device, InputRanges, find_entry, run_graph
from aimc_compiler.graph import Graph
from aimc_compiler.mapping import Mapping, Utilization, measure_utilization
from aimc_compiler.program import Program, Timing
from aimc_compiler.workload import Workload
from aimc_compiler.workload.joint import network_name

if TYPE_CHECKING:
    import torch

#: Batches of inputs, or of several entries the batches of each by name.
Calibration = Iterable[Any] | Table[str, Iterable[Any]]


class CompiledModel:
    """A network compiled for a chip: its entries, which share the chip's tiles, its chip and input ranges.

    ``graph``, ``workload``, ``mapping``, ``program`` and ``timing`` are those of the first entry; most networks have
    one. Made by ``aimc_compiler.compile`` and ``aimc_compiler.load``; not changed afterwards: ``calibrate`` and
    ``with_chip`` return others.
    """

    def __init__(
        self, *, entries: Sequence[CompiledEntry], chip: ChipSpec, ranges: InputRanges | None, seed: int
    ) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self.chip = chip
        self.ranges = ranges
        self.seed = seed

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the entries, in the order in which they were given; "main" where none was."""
        return tuple(self._entries)

    def entry(self, name: str | None = None) -> CompiledEntry:
        """One entry: its ``graph``, ``workload``, ``program``, ``timing`` and ``utilization``; None: the first.

        Raises DataError where there is none of this name.
        """
        return self._entries[find_entry(self.entries, name)]

    @property
    def network(self) -> str:
        """The class of the network."""
        return network_name([entry.workload for entry in self._entries.values()])

    @property
    def graph(self) -> Graph:
        """Of the first entry."""
        return self.entry().graph

    @property
    def workload(self) -> Workload:
        """Of the first entry."""
        return self.entry().workload

    @property
    def mapping(self) -> Mapping:
        """The pieces of all matrices at their sites, and the digital units of the first entry."""
        return self.entry().mapping

    @property
    def program(self) -> Program:
        """Of the first entry."""
        return self.entry().program

    @cached_property
    def utilization(self) -> Utilization:
        """Cells used per tile, per layer, in total, of all entries."""
        return measure_utilization(self.mapping, self.chip)

    @property
    def timing(self) -> Timing:
        """Latency, interval, energy, bounds and busy time of each resource, per sample of the first entry."""
        return self.entry().timing

    @property
    def needs_calibration(self) -> bool:
        """Whether the chip scales inputs by calibrated ranges and the program has analog operations."""
        return any(self.chip.tile_types[name].normalisation == "column" for name in self._tile_types)

    @property
    def needs_bounds(self) -> bool:
        """Whether the program's tiles have output converters whose bounds are calibrated."""
        return any(self.chip.tile_types[name].adc.out_bound == "calibrated" for name in self._tile_types)

    @cached_property
    def _tile_types(self) -> tuple[str, ...]:
        """Those that hold matrices."""
        ops = (op for entry in self._entries.values() for op in entry.workload.analog_ops)
        return tuple(dict.fromkeys(op.tile_type for op in ops))

    def calibrate(
        self, batches: Calibration, method: str = "percentile:99.9", output_ranges: str | None = None
    ) -> "CompiledModel":
        """The same program with input ranges from ``batches`` (inputs only), and output bounds where the chip's
        ``adc.out_bound`` is calibrated.

        batches: of a program of several entries a mapping from entries to their batches; an entry may be left out where
        all its operations on tiles belong to others as well. method, output_ranges: as ``compile``'s range_method and
        output_ranges. Raises CalibrationError.
        """
        self.require_values("calibrated")
        outputs = None if output_ranges is None else RangeMethod.parse(output_ranges)
        data = read_calibration(batches, self.entries)
        found = tuple(self._entries.values())
        ranges = calibrate_ranges(found, self.chip, data, RangeMethod.parse(method), outputs)
        return self._replace(ranges=ranges)

    def with_chip(self, chip: ChipSpec) -> "CompiledModel":
        """The same mapping on a chip that differs in its nonidealities alone, to study them.

        Raises SpecError naming the figures where geometry, timing or device differ: such a chip needs a new
        compilation.
        """
        if not isinstance(chip, ChipSpec):
            raise SpecError(f"with_chip takes a chip spec, not {chip!r}: load_chip gives one")
        changed = _difference(self.chip, chip)
        if changed:
            raise SpecError(
                f"chip {chip.name} differs from {self.chip.name}, for which this was compiled, in {changed}: "
                "nonidealities and converters may differ; for the rest compile again"
            )
        entries = [replace(entry, chip=chip) for entry in self._entries.values()]
        return self._replace(entries=entries, chip=chip)

    def deploy(
        self,
        seed: int | None = None,
        *,
        chip_index: int = 0,
        device: "torch.device | str" = "cpu",
        precision: Precision = "auto",
    ) -> Device:
        """One manufactured and programmed chip.

        seed: of all its random streams (default: the one given to ``compile``); chip_index: which chip of a series;
        device: the torch device that computes; precision: "exact" (float32 throughout, any torch device), or "fast" or
        "auto" (integer products for the operations and processors that they are built for, "exact" for the rest;
        ``Device.precision`` says which and why). Raises CaptureError where the weights have no
        values, DataError on another precision, CalibrationError without input ranges where the chip needs them,
        NotBuiltError where the chip asks for physics that is not modelled.
        """
        self.require_values("run")
        if self.needs_calibration and self.ranges is None:
            raise CalibrationError(
                "this program has no input ranges, so it cannot run analog. Give compile(..., calibration=batches), "
                "or call compiled.calibrate(batches), or: aimc calibrate net.aimc --data DATA"
            )
        if self.needs_bounds and (self.ranges is None or self.ranges.outputs is None):
            raise CalibrationError(
                f"this program has no output bounds, which chip {self.chip.name} takes from data (adc.out_bound: "
                "calibrated): it was calibrated for a chip with fixed ones. Call compiled.calibrate(batches), or: "
                "aimc calibrate net.aimc --data DATA"
            )
        return Device(
            entries=tuple(self._entries.values()),
            chip=self.chip,
            ranges=self.ranges,
            seed=self.seed if seed is None else seed,
            chip_index=chip_index,
            torch_device=device,
            precision=parse_precision(precision),
        )

    def float_outputs(self, *args: Any, entry: str | None = None, **kwargs: Any) -> Any:
        """The floating-point network's outputs, from the Graph of an entry (default: the first)."""
        self.require_values("run")
        return run_graph(self.entry(entry).graph, *args, **kwargs)

    def save(self, path: str | Path) -> Path:
        """Write the artifact (one file); the same program gives the same bytes."""
        from aimc_compiler.compiler.artifact import save

        return save(self, Path(path))

    @property
    def has_values(self) -> bool:
        """Whether the weights of all entries are there: on the meta device they are shapes alone."""
        return all(entry.graph.has_values for entry in self._entries.values())

    def require_values(self, what: str) -> None:
        """Raises CaptureError where the weights have no values; what: cannot be done without, as in "run"."""
        if not self.has_values:
            raise CaptureError(
                f"{self.network} was compiled on the meta device, as shapes without values: it can be mapped and "
                f"timed, not {what}. Compile the network with its weights"
            )

    def _replace(self, **changes: Any) -> "CompiledModel":
        entries = tuple(self._entries.values())
        fields: dict[str, Any] = {"entries": entries, "chip": self.chip, "ranges": self.ranges, "seed": self.seed}
        return CompiledModel(**(fields | changes))


def placed_figures(chip: ChipSpec) -> dict[str, str]:
    """The figures that ``with_chip`` does not change, by path: chips that agree in them share a compilation. Figures of
    the values among them where the program counts what they make: bit planes and passes are conversions."""
    found = {figure.path: figure.text for figure in figures(chip) if not _is_numeric(figure.path)}
    passes = 2 if chip.nonidealities.mvm.passes == "digital" else 1
    for name, tile in chip.tile_types.items():
        found[f"output conversions a column of {name}"] = str(passes * tile.adc_conversions_per_column)
    return found


def _difference(mine: ChipSpec, other: ChipSpec, most: int = 5) -> str:
    """The first figures that may not differ but do, with both values."""
    ours, theirs = placed_figures(mine), placed_figures(other)
    paths = [path for path in ours | theirs if ours.get(path) != theirs.get(path)]
    shown = [f"{path} ({ours.get(path, 'none')}, now {theirs.get(path, 'none')})" for path in paths[:most]]
    return ", ".join(shown) + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _is_numeric(path: str) -> bool:
    """Whether a figure changes values alone, not what stands where or how long it takes."""
    section, _, below = path.partition(".")
    if section == "tiles":
        below = below.partition(".")[2]
    return section in _NUMERIC_SECTIONS or (section in ("tile", "tiles") and below in _NUMERIC_TILE_FIGURES)


_NUMERIC_SECTIONS = ("nonidealities", "evaluation")
_NUMERIC_TILE_FIGURES = (
    "normalisation",
    "adc.out_bound",
    "device.g_max",
    *(effect.path for effect in EFFECTS.values() if effect.per_tile),
)
