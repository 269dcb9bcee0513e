"""What all cells share, made once and kept in the folder: the data, the float network on it, a program for each chip.

Chips that differ only in figures that ``CompiledModel.with_chip`` takes share a compilation. Those that agree in all
that calibration reads share a program: in the figures of tiles, and for calibrated output bounds in the nonidealities.
The network and the calibration data are asked for again after an interruption; where they then differ from what the
first run saw, that is an error.
"""

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

import aimc_compiler.compiler as compiler
from aimc_compiler.chip import ChipSpec, dump_yaml
from aimc_compiler.chip.figures import figures
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.compiler.compiled import placed_figures
from aimc_compiler.errors import AimcError, DoesNotFitError, NotBuiltError, SweepError
from aimc_compiler.graph import Entry
from aimc_compiler.study.bench import Bench
from aimc_compiler.study.evaluation import held_after
from aimc_compiler.study.sweep.cell import Task, pack_data, resolve_metric
from aimc_compiler.study.sweep.definition import Cell, Setting, Sweep
from aimc_compiler.study.sweep.files import digest, read_checked, write_checked, write_whole
from aimc_compiler.study.sweep.folder import SweepFolder, tensors_digest

Tell = Callable[[str], None]


class Sources(Protocol):
    """How references become a network and data; the command line's are in ``cli/reference.py``."""

    def network(self, reference: str) -> tuple[nn.Module, tuple[Any, ...] | dict[str, Entry]]:
        """(the network, inputs of one call, or those of every entry by name)."""

    def data(self, reference: str, batch: int, limit: int | None, entry: str | None) -> list[tuple[Any, Any]]:
        """Batches of (inputs, targets)."""

    def inputs(self, reference: str, batch: int, entry: str | None) -> list[Any]:
        """Batches of inputs."""

    def calibration(self, reference: str, batch: int) -> Any:
        """Batches of inputs, or those of several entries by name."""


class Preparation:
    """Makes what cells need and the folder has not, in the order in which settings ask for it."""

    def __init__(self, sweep: Sweep, folder: SweepFolder, sources: Sources, tell: Tell) -> None:
        self._sweep, self._folder, self._sources, self._tell = sweep, folder, sources, tell
        self._compiled: tuple[str, CompiledModel] | None = None
        self._programs: dict[str, dict[str, Any]] = {}
        self._timings: dict[str, dict[str, float | None]] = {}

    def reference(self) -> dict[str, Any]:
        """float_metric, chance and n_samples, and digests; made, with the data, where the folder has none."""
        held = self._held(self._folder.reference)
        if held is not None and held["data"] == _file_digest(self._folder.data):
            return held
        if held is not None:
            self._tell(f"{self._folder.data} is not as it was written: it is made again")
        return self._make_reference(held)

    def programs(self) -> list[dict[str, Any]]:
        """``program`` of every setting; those that share a compilation are made one after another, so that each is
        compiled once."""
        groups: dict[str, list[Setting]] = {}
        for setting in self._sweep.settings:
            groups.setdefault(digest(placed_figures(setting.chip)), []).append(setting)
        made = {setting.index: self.program(setting) for group in groups.values() for setting in group}
        return [made[setting.index] for setting in self._sweep.settings]

    def program(self, setting: Setting) -> dict[str, Any]:
        """file: the artifact's name; tiles, latency_s, interval_s, energy_j: of one sample, None where a program of its
        size is not timed; held_after_s: as of an ``Evaluation``."""
        key = self._key(setting.chip)
        if key not in self._programs:
            self._programs[key] = self._program(key, setting)
        return self._programs[key]

    def _program(self, key: str, setting: Setting) -> dict[str, Any]:
        facts_path, path = self._folder.programs / f"{key}.json", self._folder.programs / f"{key}.aimc"
        held = self._held(facts_path)
        if held is not None and held["sha256_of_file"] == _file_digest(path):
            return held
        if held is not None:
            self._tell(f"{path} is not as it was written: it is compiled again")
        compiled = self._compile(setting)
        compiled.save(path)
        facts = {**self._facts(compiled), "file": path.name, "sha256_of_file": _file_digest(path)}
        write_checked(facts_path, facts)
        return facts

    def task(self, cell: Cell) -> Task:
        """What a worker needs for a cell."""
        sweep, setting = self._sweep, self._sweep.settings[cell.setting]
        return Task(
            cell=cell.name,
            chip_index=cell.chip_index,
            artifact=str((self._folder.programs / self.program(setting)["file"]).resolve()),
            chip=dump_yaml(setting.chip),
            data=str(self._folder.data.resolve()),
            metric=sweep.metric,
            times_s=sweep.times_s,
            recalibration=setting.recalibration,
            seed=sweep.seed,
            precision=sweep.precision,
            entry=sweep.entry,
        )

    def _held(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            return read_checked(path)
        except SweepError as error:
            self._tell(f"{error}: it is made again")
            return None

    def _make_reference(self, held: dict[str, Any] | None) -> dict[str, Any]:
        sweep = self._sweep
        compiled = self._compile(sweep.settings[0])
        entry = compiled.entry(sweep.entry)
        given = {
            "data": self._sources.data(sweep.data, sweep.batch, sweep.limit, entry.name),
            "columns": self._inputs(sweep.columns, entry.name),
            "norms": self._inputs(sweep.norms, entry.name),
        }
        if not given["data"]:
            raise SweepError(f"{sweep.data} holds no batches: give at least one")
        content = pack_data(pytree.tree_map(_as_tensor, given))
        bench = Bench(entry, given["data"], resolve_metric(sweep.metric))
        float_metric = bench.float_metric()
        found = {
            "data": hashlib.sha256(content).hexdigest(),
            "batches": tensors_digest(pytree.tree_leaves(given)),
            "inputs": self._inputs_digest,
            "float_metric": float_metric,
            "chance": bench.chance() if sweep.chance is None else sweep.chance,
            "n_samples": bench.samples,
            "entry": entry.name,
        }
        if held is not None and held["batches"] != found["batches"]:
            raise SweepError(
                f"{sweep.data} gives other data than when this sweep began: let it give the same each time"
            )
        write_whole(self._folder.data, content)
        write_checked(self._folder.reference, found)
        return found

    def _inputs(self, reference: str | None, entry: str) -> list[Any] | None:
        return None if reference is None else self._sources.inputs(reference, self._sweep.batch, entry)

    @cached_property
    def _network(self) -> tuple[nn.Module, tuple[Any, ...] | dict[str, Entry]]:
        return self._sources.network(self._sweep.network)

    @cached_property
    def _calibration(self) -> Any:
        reference = self._sweep.calibration
        return None if reference is None else self._sources.calibration(reference, self._sweep.batch)

    @cached_property
    def _inputs_digest(self) -> str:
        """Of the weights and the calibration data: what programs are made of, beside the chip."""
        leaves = pytree.tree_leaves(self._calibration)
        if self._sweep.precompiled:
            return tensors_digest([_file_digest(Path(self._sweep.network)), *leaves])
        model, _ = self._network
        state = model.state_dict()
        if any(value.is_meta for value in state.values() if isinstance(value, torch.Tensor)):
            raise SweepError(f"{self._sweep.network} has shapes without values, so it cannot run: give it its weights")
        return tensors_digest([item for pair in state.items() for item in pair] + leaves)

    def _compile(self, setting: Setting) -> CompiledModel:
        """For the chip of a setting, calibrated; chips that share a compilation are calibrated each."""
        held = self._held(self._folder.reference)
        if held is not None and held["inputs"] != self._inputs_digest:
            raise SweepError(
                f"{self._sweep.network} has other weights, or {self._sweep.calibration} other data, than when this "
                "sweep began: let the functions give the same each time (seed them), or give another folder (--out)"
            )
        key = digest(placed_figures(setting.chip))
        try:
            if self._compiled is None or self._compiled[0] != key:
                self._tell(f"compiling for {setting.title}")
                self._compiled = (key, self._place(setting.chip))
            compiled = self._compiled[1].with_chip(setting.chip)
            if self._calibration is None:
                return compiled
            return compiled.calibrate(self._calibration, self._sweep.ranges, self._sweep.output_ranges)
        except DoesNotFitError as error:
            raise SweepError(f"{setting.title}: {error}") from error
        except AimcError as error:
            raise SweepError(f"{setting.title}: {error}") from error

    def _place(self, chip: ChipSpec) -> CompiledModel:
        if self._sweep.precompiled:
            return compiler.load(self._sweep.network).with_chip(chip)
        model, example = self._network
        single = isinstance(example, tuple)
        return compiler.compile(
            model,
            chip,
            example if isinstance(example, tuple) else None,
            entries=None if single else example,  # type: ignore[arg-type]
            rules=self._sweep.rules,
            seed=self._sweep.seed,
        )

    def _key(self, chip: ChipSpec) -> str:
        """The same for chips that share a program."""
        if self._sweep.precompiled and self._sweep.calibration is None:
            return digest(placed_figures(chip))[:16]
        bounded = any(tile.adc.out_bound == "calibrated" for tile in chip.tile_types.values())
        not_read = ("evaluation.",) if bounded else ("evaluation.", "nonidealities.")  # those of passes and scaling are
        read = {figure.path: figure.text for figure in figures(chip) if not figure.path.startswith(not_read)}
        return digest(placed_figures(chip) | read)[:16]

    def _facts(self, compiled: CompiledModel) -> dict[str, Any]:
        key = digest(placed_figures(compiled.chip))
        if key not in self._timings:
            self._timings[key] = self._timing(compiled)
        return {
            **self._timings[key],
            "tiles": compiled.utilization.tiles_used,
            "held_after_s": held_after(compiled, self._sweep.times_s),
        }

    def _timing(self, compiled: CompiledModel) -> dict[str, float | None]:
        names = ("latency_s", "interval_s", "energy_j")
        try:
            timing = compiled.entry(self._sweep.entry).timing
        except NotBuiltError as error:
            self._tell(f"no time and energy: {error}")
            return dict.fromkeys(names)
        return {name: getattr(timing, name) for name in names}


def _as_tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _file_digest(path: Path) -> str:
    """ "" where the file is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
