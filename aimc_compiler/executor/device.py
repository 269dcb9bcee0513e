"""The virtual chip: one manufactured die, programmed once, aged by the time that is asked for, read by running.

Two devices of one seed and index are the same chip. One chip asked twice at one time differs by the noise of its
MVMs alone: samples are numbered from deployment on, and their noise follows their number.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog import MatrixState
from aimc_compiler.analog.fast import Choice, Precision
from aimc_compiler.analog.piece_bounds import NO_BOUNDS
from aimc_compiler.analog.tile_readings import TileReadings
from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import CalibrationError, DataError, InternalError
from aimc_compiler.executor.batches import run_batches
from aimc_compiler.executor.beside import SideBySide, Visit
from aimc_compiler.executor.correction import ColumnFit, Fit, NormFit, Recorded
from aimc_compiler.executor.level import run_graph
from aimc_compiler.executor.on_tiles import Clock, OnTiles, batch_axis, entries_together, matrix_on_tiles, on_tiles_type
from aimc_compiler.executor.programming import ProgrammingCost, programming_cost
from aimc_compiler.executor.ranges import InputRanges
from aimc_compiler.executor.repeats import Repeats, price_repeats
from aimc_compiler.graph import Graph
from aimc_compiler.mapping import Mapping as PieceMapping
from aimc_compiler.program import Program, Timing, mvm_names
from aimc_compiler.records import record
from aimc_compiler.units import print_time
from aimc_compiler.workload import Workload


@record
class Counts:
    """What a run did: samples, and the MVMs of all pieces, as the program has them."""

    samples: int
    mvms: int


@record
class RunResult:
    """outputs: like the model's own; timing: of one sample; energy_j: of all samples of this run; counts: of it.

    repeats: what bound management repeated in this run, which is in none of the others.
    """

    outputs: Any
    timing: Timing
    energy_j: float
    counts: Counts
    repeats: Repeats


class Device:
    """One programmed chip; made by ``CompiledModel.deploy``.

    Calling it runs samples: ``device(x, time_s=3600.0)`` gives outputs like the model's own. It numbers them and keeps
    its state at the last time, so one thread calls it at a time: deploy one for each.
    """

    def __init__(
        self,
        *,
        graph: Graph,
        workload: Workload,
        mapping: PieceMapping,
        program: Program,
        chip: ChipSpec,
        ranges: InputRanges | None,
        timing: Callable[[], Timing],
        seed: int,
        chip_index: int = 0,
        torch_device: torch.device | str = "cpu",
        precision: Precision = "auto",
    ) -> None:
        self.seed, self.chip_index = seed, chip_index
        self._timing, self._program = timing, program
        self._events = _mvm_events(program)
        self._conversions = sum(task.events * task.adc_conversions for task in program.tasks)
        self._clock = Clock()
        self._write_verify = chip.nonidealities.device.write_verify
        modules, nodes = graph.matrix_modules(), graph.matrix_nodes()
        calls: dict[str, int] = {}
        self._ops: dict[str, OnTiles] = {}
        self._mvm_names = {op.name: mvm_names(op.name, mapping.pieces_of(op.matrix)) for op in workload.analog_ops}
        readings = TileReadings(mapping.pieces)
        for op in workload.analog_ops:
            bounds = NO_BOUNDS if ranges is None or ranges.outputs is None else ranges.outputs.of(op.name)
            tiles = matrix_on_tiles(
                op,
                modules[op.name],
                mapping,
                chip,
                seed=seed,
                chip_index=chip_index,
                precision=precision,
                bounds=bounds,
                readings=readings,
            ).to(torch_device)
            scale = None if ranges is None else ranges.of(op.name)
            axis = batch_axis(graph, op.name, nodes[op.name])
            made = on_tiles_type(graph, nodes[op.name])
            call, inner = calls.get(op.matrix, 0), entries_together(nodes[op.name])
            self._ops[op.name] = made(tiles, scale, self._clock, call, axis, modules[op.name], inner)
            calls[op.matrix] = calls.get(op.matrix, 0) + op.windows
        self._graph = graph.with_modules(dict(self._ops))
        self._float_graph = graph

    @property
    def samples(self) -> int:
        """Samples run since deployment."""
        return self._clock.first_sample

    @property
    def precision(self) -> dict[str, Choice]:
        """How each analog operation is computed, and why one is not in ``fast``.

        It can change to ``exact`` when a state is made whose digits could not keep to the promised deviation.
        """
        return {name: op.tiles.choice for name, op in self._ops.items()}

    @property
    def repeated(self) -> Counter[str]:
        """MVMs that bound management repeated since deployment, by their task in the program; ``price_repeats``."""
        counts: Counter[str] = Counter()
        for name, op in self._ops.items():
            for piece, count in op.tiles.repeats.items():
                counts[self._mvm_names[name][piece]] += count
        return counts

    def __call__(self, *args: Any, time_s: float = 0.0, **kwargs: Any) -> Any:
        """Outputs, structured like the model's own, ``time_s`` seconds after programming.

        Inputs are those of the network, any number of samples along the batch dimension. Raises DataError on other
        inputs, and on a time that is negative, not finite or before the last recalibration.
        """
        self._require_time(time_s)
        count = self._graph.sample_count(*args, **kwargs)
        before = {name: op.tiles.mvms for name, op in self._ops.items()}
        conversions = sum(op.tiles.adc_conversions for op in self._ops.values())
        self._clock.time_s, self._clock.count = time_s, count
        with torch.no_grad():
            outputs = self._graph(*args, **kwargs)
        self._clock.first_sample += count
        self._check(before, conversions, count)
        return outputs

    def beside(self, visit: Visit, *args: Any, time_s: float = 0.0, **kwargs: Any) -> None:
        """Run the samples here and in floating point side by side; ``visit`` sees both values of every operation.

        It sees too what each operation of the chip makes of the float input, with the noise of the same samples; so
        MVMs are made twice, which ``repeated`` counts. Raises as a call does.
        """
        self._require_time(time_s)
        count = self._graph.sample_count(*args, **kwargs)
        self._clock.time_s, self._clock.count = time_s, count
        with torch.no_grad():
            twin = SideBySide(self._float_graph.module, self._graph.module, visit)
            twin.run(*self._graph.flatten(*args, **kwargs))
        self._clock.first_sample += count

    def run(self, *args: Any, time_s: float = 0.0, **kwargs: Any) -> RunResult:
        """Outputs together with the time, energy and counts of the program that made them."""
        before, repeated = sum(op.tiles.mvms for op in self._ops.values()), self.repeated
        first = self.samples
        outputs = self(*args, time_s=time_s, **kwargs)
        samples = self.samples - first
        timing = self._timing()
        mvms = sum(op.tiles.mvms for op in self._ops.values()) - before
        return RunResult(
            outputs=outputs,
            timing=timing,
            energy_j=samples * timing.energy_j,
            counts=Counts(samples=samples, mvms=mvms),
            repeats=price_repeats(self._program, self.repeated - repeated),
        )

    def recalibrate(self, time_s: float | None) -> None:
        """Read the tiles for drift compensation at ``time_s`` seconds after programming and keep those factors.

        None goes back to the default: the tiles are read at every time that is asked for. Raises DataError on a time
        that is negative or not finite.
        """
        if time_s is not None:
            _require_age(time_s, "recalibrated")
        self._clock.recalibrated_s = time_s

    def correct_columns(self, batches: Iterable[Any] | None, time_s: float = 0.0) -> None:
        """Fit an affine map of each output to the chip at ``time_s``, and keep it; None takes it back.

        batches: inputs, as for ``compile``'s calibration. The chip and the floating-point network run them once, and
        each operation's products are compared. Batch norms stay as they are. Raises CalibrationError on no batches or
        such that do not run.
        """
        if batches is None:
            for op in self._ops.values():
                op.scaling.gain = op.scaling.offset = None
                op.rescale(op.scaling)
            return
        recorded = {name: Recorded(op.scaling.module, op.batch_axis) for name, op in self._ops.items()}
        fits = {name: ColumnFit(op.scaling.copy(), recorded[name]) for name, op in self._ops.items()}
        self._correct(fits, batches, time_s, self._float_graph.with_modules(dict(recorded)))

    def recalibrate_norms(self, batches: Iterable[Any] | None, time_s: float = 0.0) -> None:
        """Measure mean and variance of every folded batch norm on the chip at ``time_s``; None takes them back.

        batches: inputs, of some hundred samples in all. A column correction stays and comes before. Raises
        CalibrationError on no batches, such that do not run, and networks whose analog operations have no batch norm.
        """
        if batches is None:
            for op in self._ops.values():
                op.scaling.norm = op.scaling.module.norm
                op.rescale(op.scaling)
            return
        norms = {name: op.scaling.module.norm for name, op in self._ops.items()}
        fits = {name: NormFit(self._ops[name].scaling.copy(), norm) for name, norm in norms.items() if norm is not None}
        if not fits:
            raise CalibrationError(
                "no analog operation of this network has a batch norm folded into it, so there are no statistics to "
                "measure: correct columns instead"
            )
        self._correct(fits, batches, time_s)

    def _correct(
        self, fits: Mapping[str, Fit], batches: Iterable[Any], time_s: float, beside: Graph | None = None
    ) -> None:
        """Run the batches with these fits, in ``beside`` and on the chip; where that fails, everything is as it was."""

        def run(*args: Any, **kwargs: Any) -> int:
            if beside is not None:
                run_graph(beside, *args, **kwargs)
            self(*args, time_s=time_s, **kwargs)
            return 1

        after = {name: self._ops[name].scaling for name in fits}
        try:
            for name, fit in fits.items():
                self._ops[name].fit(fit)
            if not run_batches(batches, run, batch_name="batch", place="on the chip"):
                raise CalibrationError("there are no batches to correct by: give at least one batch of inputs")
            after = {name: fit.scaling for name, fit in fits.items()}
        finally:
            for name, scaling in after.items():
                self._ops[name].rescale(scaling)

    def rewind(self) -> None:
        """Number samples from 0 again: the same inputs then give the same bytes."""
        self._clock.first_sample = 0

    def conductances(self, op: str, time_s: float) -> Tensor:
        """(groups, columns, rows) normalised weights of one operation as the devices hold them at ``time_s``."""
        return self._state_of(op, time_s).weights

    def compensation(self, op: str, time_s: float) -> Tensor:
        """(row blocks, groups, columns) drift-compensation factors of one operation at ``time_s``."""
        return self._state_of(op, time_s).alpha

    def programming(self) -> ProgrammingCost:
        """Pulses, time and energy of programming this chip, by write-verify.

        Raises AimcError where the chip has no ``nonidealities.device.write_verify``, whose figures price a pulse.
        """
        return programming_cost(self._write_verify, (op.tiles for op in self._ops.values()))

    def _state_of(self, op: str, time_s: float) -> MatrixState:
        if op not in self._ops:
            raise DataError(f"no analog operation is called {op!r}: there are {', '.join(self._ops) or 'none'}")
        self._require_time(time_s)
        return self._ops[op].tiles.state(time_s, self._clock.recalibrated_s)

    def _require_time(self, time_s: float) -> None:
        _require_age(time_s, "run")
        read_s = self._clock.recalibrated_s
        if read_s is not None and time_s < read_s:
            raise DataError(
                f"this chip was recalibrated at {print_time(read_s)}, so it cannot be run at {print_time(time_s)}: "
                "give a later time_s, or recalibrate(None) to read the tiles at every time that is asked for"
            )

    def _check(self, before: dict[str, int], conversions: int, samples: int) -> None:
        """The numerics and the program are one description: their MVMs and conversions agree."""
        for name, op in self._ops.items():
            done, planned = op.tiles.mvms - before[name], samples * self._events[name]
            if done != planned:
                raise InternalError(f"{name}: {done} MVMs were computed, the program has {planned}")
        converted = sum(op.tiles.adc_conversions for op in self._ops.values()) - conversions
        if converted != samples * self._conversions:
            raise InternalError(f"{converted} outputs were converted, the program has {samples * self._conversions}")


def _require_age(time_s: object, done: str) -> None:
    if not isinstance(time_s, Real) or not math.isfinite(time_s) or time_s < 0:
        raise DataError(
            f"a chip cannot be {done} at time_s={time_s!r}: give seconds after programming, a finite number, 0 or later"
        )


def _mvm_events(program: Program) -> dict[str, int]:
    """MVMs a sample of each operation."""
    events: dict[str, int] = {}
    for task in program.tasks:
        if task.mvms:
            events[task.op] = events.get(task.op, 0) + task.events * task.mvms
    return events
