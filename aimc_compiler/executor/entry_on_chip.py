"""One entry of a network on a programmed chip: its graph with matrix operations on tiles, its samples, its counts."""

from collections import Counter
from typing import Any

from aimc_compiler.errors import InternalError
from aimc_compiler.executor.entry import CompiledEntry
from aimc_compiler.executor.exempt import Exempt, exempt_modules
from aimc_compiler.executor.on_tiles import Clock, OnTiles, Programmed, batch_axis, entries_together, on_tiles_type
from aimc_compiler.executor.planned import planned_work
from aimc_compiler.program import mvm_names

#: Samples of each entry are numbered from a multiple of this on, so that no two entries draw the same noise.
SAMPLES_PER_ENTRY = 1 << 40


class EntryOnChip:
    """The entry number ``number`` of a chip. programmed: of each of its analog operations, by name.

    ``repeated`` counts the MVMs that bound management repeated in this entry, by their task in its program.
    """

    def __init__(self, entry: CompiledEntry, number: int, programmed: dict[str, Programmed], clock: Clock) -> None:
        self.entry, self._clock, self._origin = entry, clock, number * SAMPLES_PER_ENTRY
        self.samples = 0
        self.repeated: Counter[str] = Counter()
        self.planned = planned_work(entry.workload, entry.mapping, entry.program, entry.chip)
        graph, nodes = entry.graph, entry.graph.matrix_nodes()
        calls: dict[str, int] = {}
        self.ops: dict[str, OnTiles] = {}
        self._mvm_names: dict[str, dict[Any, str]] = {}
        for op in entry.workload.analog_ops:
            axis = batch_axis(graph, op.name, nodes[op.name])
            made = on_tiles_type(graph, nodes[op.name])
            call, inner = calls.get(op.matrix, 0), entries_together(nodes[op.name])
            self.ops[op.name] = made(programmed[op.name], clock, call, axis, inner)
            self._mvm_names[op.name] = mvm_names(op.name, entry.mapping.pieces_of(op.matrix))
            calls[op.matrix] = calls.get(op.matrix, 0) + op.computed_windows
        self.exempt({})

    def exempt(self, exempt: Exempt) -> None:
        """From now on these operations, or these outputs of them, are those of the floating-point network."""
        graph = self.entry.graph
        self.graph = graph.with_modules(exempt_modules(graph, self.ops, exempt))
        self._whole = not exempt

    @property
    def mvms(self) -> int:
        """MVMs that the tiles of this entry's operations have made so far, through whichever entry."""
        return sum(op.tiles.mvms for op in self.ops.values())

    def begin(self, time_s: float, count: int) -> "Run":
        """Set the clock for ``count`` samples at ``time_s``."""
        self._clock.time_s, self._clock.count = time_s, count
        self._clock.first_sample = self._origin + self.samples
        return Run(self, count)

    def done(self, run: "Run", *, counted: bool) -> None:
        """After a run: number its samples, book what was repeated, and compare its counts with those of the program,
        where ``counted`` and nothing is exempt. Raises InternalError where they differ."""
        self.samples += run.count
        for name, op in self.ops.items():
            for piece, count in (op.tiles.repeats - run.repeats[name]).items():
                self.repeated[self._mvm_names[name][piece]] += count
        if counted and self._whole:
            self._check(run)

    def _check(self, run: "Run") -> None:
        """The numerics and the program are one description: their MVMs and conversions agree."""
        for name, op in self.ops.items():
            done, planned = op.tiles.mvms - run.mvms[name], run.count * self.planned.mvms[name]
            if done != planned:
                raise InternalError(f"{name}: {done} MVMs were computed, the program has {planned}")
        converted = sum(op.tiles.adc_conversions for op in self.ops.values()) - run.conversions
        if converted != run.count * self.planned.conversions:
            planned = run.count * self.planned.conversions
            raise InternalError(f"{converted} outputs were converted, the program has {planned}")


class Run:
    """What the tiles had counted when a run of ``count`` samples began."""

    def __init__(self, chip: EntryOnChip, count: int) -> None:
        self.count = count
        self.mvms = {name: op.tiles.mvms for name, op in chip.ops.items()}
        self.repeats = {name: op.tiles.repeats.copy() for name, op in chip.ops.items()}
        self.conversions = sum(op.tiles.adc_conversions for op in chip.ops.values())
