"""The virtual chip: one manufactured die, programmed once, aged by the time that is asked for, read by running.

Two devices of one seed and index are the same chip. One chip asked twice at one time differs by the noise of its
MVMs alone: samples are numbered from deployment on, and their noise follows their number.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog import MatrixState
from aimc_compiler.analog.fast import Choice, Precision
from aimc_compiler.analog.piece_bounds import NO_BOUNDS
from aimc_compiler.analog.tile_readings import TileReadings
from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import CalibrationError, DataError
from aimc_compiler.executor.batches import run_batches
from aimc_compiler.executor.beside import SideBySide, Visit
from aimc_compiler.executor.correction import ColumnFit, Fit, NormFit, Recorded
from aimc_compiler.executor.entry import CompiledEntry, find_entry
from aimc_compiler.executor.entry_on_chip import EntryOnChip
from aimc_compiler.executor.exempt import Exempt
from aimc_compiler.executor.level import run_graph
from aimc_compiler.executor.on_tiles import Clock, OnTiles, Programmed, matrix_on_tiles
from aimc_compiler.executor.programming import ProgrammingCost, programming_cost
from aimc_compiler.executor.ranges import InputRanges
from aimc_compiler.executor.repeats import Repeats, price_repeats
from aimc_compiler.graph import Graph, MatrixModule
from aimc_compiler.program import Timing
from aimc_compiler.records import record
from aimc_compiler.units import print_time
from aimc_compiler.workload import MatrixOp


@record
class Counts:
    """What a run did: samples, and the MVMs of all pieces that its values took.

    timed_mvms: MVMs that time and energy are of; fewer where experts of a mixture are timed by an assumed routing.
    """

    samples: int
    mvms: int
    timed_mvms: int


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
    its state at the last time, so one thread calls it at a time: deploy one for each. Several entries run on the same
    tiles: ``device(x, entry="step")``; each numbers its own samples.
    """

    def __init__(
        self,
        *,
        entries: Sequence[CompiledEntry],
        chip: ChipSpec,
        ranges: InputRanges | None,
        seed: int,
        chip_index: int = 0,
        torch_device: torch.device | str = "cpu",
        precision: Precision = "auto",
    ) -> None:
        self.seed, self.chip_index = seed, chip_index
        self._clock = Clock()
        self._write_verify = chip.nonidealities.device.write_verify
        program = _Programmer(entries, chip, ranges, seed, chip_index, torch_device, precision)
        self._entries = {
            entry.name: EntryOnChip(entry, number, program.operations(entry), self._clock)
            for number, entry in enumerate(entries)
        }
        #: Of several entries that have one, the first.
        self._ops: dict[str, OnTiles] = {}
        for each in self._entries.values():
            self._ops |= {name: op for name, op in each.ops.items() if name not in self._ops}

    @property
    def samples(self) -> int:
        """Samples run since deployment, of all entries."""
        return sum(each.samples for each in self._entries.values())

    @property
    def precision(self) -> dict[str, Choice]:
        """How each analog operation is computed, and why one is not in ``fast``.

        It can change to ``exact`` when a state is made whose digits could not keep to the promised deviation.
        """
        return {name: op.tiles.choice for name, op in self._ops.items()}

    def precision_in(self, entry: str | None = None) -> dict[str, Choice]:
        """The same of the operations of one entry."""
        return {name: op.tiles.choice for name, op in self._entry(entry).ops.items()}

    @property
    def repeated(self) -> Counter[str]:
        """As ``repeated_in`` the first entry."""
        return self.repeated_in()

    def repeated_in(self, entry: str | None = None) -> Counter[str]:
        """MVMs that bound management repeated since deployment in an entry, by their task in its program;
        ``price_repeats``."""
        return self._entry(entry).repeated.copy()

    def __call__(self, *args: Any, time_s: float = 0.0, entry: str | None = None, **kwargs: Any) -> Any:
        """Outputs, structured like the model's own, ``time_s`` seconds after programming.

        Inputs are those of the network, any number of samples along the batch dimension; entry: which way into it
        (default: the first). Raises DataError on other inputs, on an unknown entry, and on a time that is negative, not
        finite or before the last recalibration.
        """
        self._require_time(time_s)
        chip = self._entry(entry)
        run = chip.begin(time_s, chip.graph.sample_count(*args, **kwargs))
        with torch.no_grad():
            outputs = chip.graph(*args, **kwargs)
        chip.done(run, counted=True)
        return outputs

    def beside(self, visit: Visit, *args: Any, time_s: float = 0.0, entry: str | None = None, **kwargs: Any) -> None:
        """Run the samples here and in floating point side by side; ``visit`` sees both values of every operation.

        It sees too what each operation of the chip makes of the float input, with the noise of the same samples; so
        MVMs are made twice, which ``repeated`` counts. Raises as a call does.
        """
        self._require_time(time_s)
        chip = self._entry(entry)
        run = chip.begin(time_s, chip.graph.sample_count(*args, **kwargs))
        with torch.no_grad():
            twin = SideBySide(chip.entry.graph.module, chip.graph.module, visit)
            twin.run(*chip.graph.flatten(*args, **kwargs))
        chip.done(run, counted=False)

    def run(self, *args: Any, time_s: float = 0.0, entry: str | None = None, **kwargs: Any) -> RunResult:
        """Outputs together with the time, energy and counts of the program that made them."""
        chip = self._entry(entry)
        first, before, repeated = chip.samples, chip.mvms, chip.repeated.copy()
        outputs = self(*args, time_s=time_s, entry=entry, **kwargs)
        samples = chip.samples - first
        timing = chip.entry.timing
        return RunResult(
            outputs=outputs,
            timing=timing,
            energy_j=samples * timing.energy_j,
            counts=Counts(samples=samples, mvms=chip.mvms - before, timed_mvms=samples * chip.planned.timed),
            repeats=price_repeats(chip.entry.program, chip.repeated - repeated),
        )

    def recalibrate(self, time_s: float | None) -> None:
        """Read the tiles for drift compensation at ``time_s`` seconds after programming and keep those factors.

        None goes back to the default: the tiles are read at every time that is asked for. Raises DataError on a time
        that is negative or not finite.
        """
        if time_s is not None:
            _require_age(time_s, "recalibrated")
        self._clock.recalibrated_s = time_s

    def correct_columns(self, batches: Iterable[Any] | None, time_s: float = 0.0, *, entry: str | None = None) -> None:
        """Fit an affine map of each output to the chip at ``time_s``, and keep it; None takes it back.

        batches: inputs, as for ``compile``'s calibration. The chip and the floating-point network run them once, and
        each operation's products are compared. Batch norms stay as they are. entry: whose inputs they are, and whose
        operations are corrected, in the other entries too where they share them (default: the first; None takes back
        those of all). Raises CalibrationError on no batches or such that do not run.
        """
        if batches is None:
            for op in self._taken_back(entry):
                op.scaling.gain = op.scaling.offset = None
                op.rescale(op.scaling)
            return
        chip = self._entry(entry)
        recorded = {name: Recorded(op.scaling.module, op.batch_axis) for name, op in chip.ops.items()}
        fits = {name: ColumnFit(op.scaling.copy(), recorded[name]) for name, op in chip.ops.items()}
        self._correct(chip, fits, batches, time_s, chip.entry.graph.with_modules(dict(recorded)))

    def recalibrate_norms(
        self, batches: Iterable[Any] | None, time_s: float = 0.0, *, entry: str | None = None
    ) -> None:
        """Measure mean and variance of every folded batch norm on the chip at ``time_s``; None takes them back.

        batches: inputs, of some hundred samples in all; entry: as for ``correct_columns``. A column correction stays
        and comes before. Raises CalibrationError on no batches, such that do not run, and networks whose analog
        operations have no batch norm.
        """
        if batches is None:
            for op in self._taken_back(entry):
                op.scaling.norm = op.scaling.module.norm
                op.rescale(op.scaling)
            return
        chip = self._entry(entry)
        norms = {name: op.scaling.module.norm for name, op in chip.ops.items()}
        fits = {name: NormFit(chip.ops[name].scaling.copy(), norm) for name, norm in norms.items() if norm is not None}
        if not fits:
            raise CalibrationError(
                "no analog operation of this network has a batch norm folded into it, so there are no statistics to "
                "measure: correct columns instead"
            )
        self._correct(chip, fits, batches, time_s)

    def _correct(
        self,
        chip: EntryOnChip,
        fits: Mapping[str, Fit],
        batches: Iterable[Any],
        time_s: float,
        beside: Graph | None = None,
    ) -> None:
        """Run the batches with these fits, in ``beside`` and on the chip; where that fails, everything is as it was."""

        def run(*args: Any, **kwargs: Any) -> int:
            if beside is not None:
                run_graph(beside, *args, **kwargs)
            self(*args, time_s=time_s, entry=chip.entry.name, **kwargs)
            return 1

        after = {name: chip.ops[name].scaling for name in fits}
        try:
            for name, fit in fits.items():
                chip.ops[name].fit(fit)
            if not run_batches(batches, run, batch_name="batch", place="on the chip"):
                raise CalibrationError("there are no batches to correct by: give at least one batch of inputs")
            after = {name: fit.scaling for name, fit in fits.items()}
        finally:
            for name, scaling in after.items():
                chip.ops[name].rescale(scaling)

    def _taken_back(self, entry: str | None) -> Iterator[OnTiles]:
        """The operations of an entry, of all for None."""
        chosen = self._entries.values() if entry is None else (self._entry(entry),)
        return (op for chip in chosen for op in chip.ops.values())

    def exempt(self, operations: Exempt | None) -> None:
        """Compute these operations in floating point instead of on their tiles, in all entries, until told otherwise.

        operations: by name, the outputs that are exempt or None for all of them; None takes everything back. The noise
        of all else stays the same. Raises DataError on operations and outputs that there are not.
        """
        wanted = {} if operations is None else dict(operations)
        for name in wanted:
            self._require_op(name)
        for chip in self._entries.values():
            chip.exempt({name: outputs for name, outputs in wanted.items() if name in chip.ops})

    def rewind(self) -> None:
        """Number samples from 0 again, in all entries: the same inputs then give the same bytes."""
        for chip in self._entries.values():
            chip.samples = 0

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
        self._require_op(op)
        self._require_time(time_s)
        return self._ops[op].tiles.state(time_s, self._clock.recalibrated_s)

    def _require_op(self, op: str) -> None:
        if op not in self._ops:
            raise DataError(f"no analog operation is called {op!r}: there are {', '.join(self._ops) or 'none'}")

    def _require_time(self, time_s: float) -> None:
        _require_age(time_s, "run")
        read_s = self._clock.recalibrated_s
        if read_s is not None and time_s < read_s:
            raise DataError(
                f"this chip was recalibrated at {print_time(read_s)}, so it cannot be run at {print_time(time_s)}: "
                "give a later time_s, or recalibrate(None) to read the tiles at every time that is asked for"
            )

    def _entry(self, name: str | None) -> EntryOnChip:
        return self._entries[find_entry(tuple(self._entries), name)]


class _Programmer:
    """Programs the operations of a chip; entries that share one get the same."""

    def __init__(
        self,
        entries: Sequence[CompiledEntry],
        chip: ChipSpec,
        ranges: InputRanges | None,
        seed: int,
        chip_index: int,
        torch_device: torch.device | str,
        precision: Precision,
    ) -> None:
        self._chip, self._ranges, self._seed, self._chip_index = chip, ranges, seed, chip_index
        self._torch_device, self._precision = torch_device, precision
        self._readings = TileReadings(entries[0].mapping.pieces)
        self._made: dict[tuple[str, str], Programmed] = {}

    def operations(self, entry: CompiledEntry) -> dict[str, Programmed]:
        """The analog operations of an entry by name."""
        modules, found = entry.graph.matrix_modules(), {}
        for op in entry.workload.analog_ops:
            known = self._made.get((op.name, op.matrix))
            shared = known is not None and known.serves(modules[op.name])
            found[op.name] = known if known is not None and shared else self._program(entry, op, modules[op.name])
            self._made.setdefault((op.name, op.matrix), found[op.name])
        return found

    def _program(self, entry: CompiledEntry, op: MatrixOp, module: MatrixModule) -> Programmed:
        ranges = self._ranges
        bounds = NO_BOUNDS if ranges is None or ranges.outputs is None else ranges.outputs.of(op.name)
        tiles = matrix_on_tiles(
            op,
            module,
            entry.mapping,
            self._chip,
            seed=self._seed,
            chip_index=self._chip_index,
            precision=self._precision,
            bounds=bounds,
            readings=self._readings,
        ).to(self._torch_device)
        return Programmed(tiles, None if ranges is None else ranges.of(op.name), module)


def _require_age(time_s: object, done: str) -> None:
    if not isinstance(time_s, Real) or not math.isfinite(time_s) or time_s < 0:
        raise DataError(
            f"a chip cannot be {done} at time_s={time_s!r}: give seconds after programming, a finite number, 0 or later"
        )
