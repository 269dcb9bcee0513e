"""Input ranges: one scalar per row block, from the activations that the block sees in the float network; then, where
the chip calibrates them, the bounds of its output converters (``outputs.py``).

The range r of a row block scales its inputs to the DAC's bound: x is clipped to [-r, r] and divided by r (Rasch et
al., Nat. Commun. 14, 5282 (2023), Methods, "AIMC MVM"). All column blocks of a row block receive one multicast vector
and so share its range.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aimc_compiler.analog import RangeObserver
from aimc_compiler.calibration.method import RangeMethod
from aimc_compiler.calibration.outputs import OUTPUT_METHOD, ObservedOutputs, OutputObserver
from aimc_compiler.chip import ChipSpec
from aimc_compiler.chip.spec import Tile
from aimc_compiler.errors import CalibrationError, CalibrationWarning
from aimc_compiler.executor import (
    CompiledEntry,
    InputRanges,
    OutputBounds,
    RangeRow,
    contraction_of,
    matrix_on_tiles,
    run_batches,
)
from aimc_compiler.graph import MatrixModule
from aimc_compiler.mapping import Piece
from aimc_compiler.workload import MatrixOp


def calibrate_ranges(
    entries: Sequence[CompiledEntry],
    chip: ChipSpec,
    data: Mapping[str, Iterable[Any]],
    method: RangeMethod,
    output_method: RangeMethod | None = None,
) -> InputRanges:
    """Run the float Graphs of ``entries`` over their data and choose each row block's range; once more for output
    bounds.

    data: batches of inputs by entry, each a tensor, a tuple of positional inputs or a dict of keyword inputs. What
    several entries have in common sees the inputs of all of them, every input vector counting once; an entry without
    data is one whose analog operations others cover. output_method: how output bounds are chosen where
    ``adc.out_bound`` is calibrated (default: ``outputs.OUTPUT_METHOD``). Raises CalibrationError on no data, on inputs
    that the network does not take, on values that are not finite, on operations that no data reaches, and on an
    output_method for a chip with fixed bounds. Warns where inputs of either sign meet output converters without sign.
    """
    given = [entry for entry in entries if entry.name in data]
    ops = _covered(entries, given)
    bounded = [name for name, op in ops.items() if chip.tile_types[op.tile_type].adc.out_bound == "calibrated"]
    if output_method is not None and not bounded:
        raise CalibrationError(
            f"{output_method} for output ranges sets nothing: no tile that this program uses on {chip.name} has "
            "adc.out_bound: calibrated. Leave it out, or set that (tile.adc.out_bound=calibrated)"
        )
    batches = dict(data)
    if bounded:  # run twice
        batches = {name: list(each) if isinstance(each, Iterator) else each for name, each in data.items()}
    observers: dict[str, BlockObservers] = {}
    observed: list[ObservedMatrix] = []
    samples = 0
    for entry in given:
        observing = _observing(entry, observers)
        samples += _run(entry, dict(observing), batches[entry.name], several=len(entries) > 1)
        observed += observing.values()
    _warn_of_signs(observed, {name: chip.tile_types[op.tile_type] for name, op in ops.items()})
    levels = {name: chip.tile_types[op.tile_type].dac.steps for name, op in ops.items()}
    rows = tuple(row for name in ops for row in range_rows(name, observers[name], method, levels[name]))
    ranges = InputRanges(method=str(method), samples=samples, rows=rows)
    if not bounded:
        return ranges
    watching: dict[str, OutputObserver] = {}
    again = 0
    for entry in given:
        modules = _watching(entry, chip, ranges, watching)
        again += _run(entry, modules, batches[entry.name], several=len(entries) > 1)
    if again != samples:
        raise CalibrationError(
            f"the calibration data gave {samples} samples when it was run for input ranges and {again} when it was run "
            "again for output bounds: give a list of batches"
        )
    chosen = output_method or RangeMethod.parse(OUTPUT_METHOD)
    bounds = tuple(row for name in bounded for row in watching[name].bound_rows(name, chosen))
    return replace(ranges, outputs=OutputBounds(method=str(chosen), rows=bounds))


def _warn_of_signs(observing: Sequence["ObservedMatrix"], tiles: dict[str, Tile]) -> None:
    """Warn where converters without sign read sums that may be below zero: those of inputs of either sign."""
    cut = [seen for seen in observing if seen.below and not _takes_signs(tiles[seen.op])]
    if not cut:
        return
    seen = max(cut, key=lambda each: each.below / each.inputs)
    others = len({each.op for each in cut}) - 1
    more = f", and so are some of {others:,} more operations" if others else ""
    warnings.warn(
        f"{100 * seen.below / seen.inputs:.2g} % of the inputs of {seen.op!r} are below 0 (the least is "
        f"{seen.least:.3g}){more}, but the output converters of their tiles have no sign (adc.signed: false), so that "
        "sums below 0 read as 0. Give inputs bit by bit in two's complement (dac.input_mode: bit_serial, dac.bit_code: "
        "twos_complement), set adc.signed: true, or keep such operations digital by a rule",
        CalibrationWarning,
        stacklevel=3,
    )


def _takes_signs(tile: Tile) -> bool:
    """Whether inputs may have either sign: in two's complement no plane is negative, and signs are put in digitally."""
    return tile.adc.signed or (tile.dac.planes > 0 and tile.dac.bit_code == "twos_complement")


def _covered(entries: Sequence[CompiledEntry], given: Sequence[CompiledEntry]) -> dict[str, MatrixOp]:
    """Every analog operation by name, entry after entry. Raises CalibrationError where no data reaches one."""
    seen = {op.name for entry in given for op in entry.workload.analog_ops}
    ops: dict[str, MatrixOp] = {}
    for entry in entries:
        for op in entry.workload.analog_ops:
            if op.name not in seen:
                raise CalibrationError(
                    f"{op.name!r} of entry {entry.name!r} sees none of the calibration data, which is for "
                    f"{', '.join(repr(each.name) for each in given) or 'no entry'}: give batches for "
                    f"{entry.name!r} as well"
                )
            ops.setdefault(op.name, op)
    return ops


def _observing(entry: CompiledEntry, observers: dict[str, "BlockObservers"]) -> dict[str, "ObservedMatrix"]:
    """The analog operations of an entry, each with the observers of its row blocks, which other entries may share."""
    modules = entry.graph.matrix_modules()
    observing: dict[str, ObservedMatrix] = {}
    for op in entry.workload.analog_ops:
        observed = ObservedMatrix(op.name, modules[op.name], entry.mapping.pieces_of(op.matrix), observers.get(op.name))
        observers[op.name], observing[op.name] = observed.observers, observed
    return observing


def _watching(
    entry: CompiledEntry, chip: ChipSpec, ranges: InputRanges, watching: dict[str, OutputObserver]
) -> dict[str, nn.Module]:
    """The same for output converters; the observers go to ``watching``."""
    modules = entry.graph.matrix_modules()
    found: dict[str, nn.Module] = {}
    for op in entry.workload.analog_ops:
        adc = chip.tile_types[op.tile_type].adc
        if adc.out_bound == "calibrated":
            matrix = matrix_on_tiles(op, modules[op.name], entry.mapping, chip)
            observer = OutputObserver(matrix, adc, watching.get(op.name))
            watching.setdefault(op.name, observer)
            found[op.name] = ObservedOutputs(modules[op.name], observer, ranges.of(op.name))
    return found


def _run(entry: CompiledEntry, modules: dict[str, nn.Module], batches: Iterable[Any], *, several: bool) -> int:
    """Run the float Graph with these modules in place of its own; returns the number of samples."""
    observed = entry.graph.with_modules(modules)

    def run(*args: Any, **kwargs: Any) -> int:
        with torch.no_grad():
            observed(*args, **kwargs)
        return entry.graph.sample_count(*args, **kwargs)

    which = f" of entry {entry.name!r}" if several else ""
    samples = run_batches(batches, run, batch_name=f"calibration batch{which}", place="through the network")
    if not samples:
        raise CalibrationError(f"the calibration data{which} is empty: give at least one batch of inputs")
    return samples


#: Observers of the inputs of row blocks, by group and row block.
BlockObservers = dict[tuple[int, int], RangeObserver]


class ObservedMatrix(nn.Module):
    """A matrix operation in floating point that records the inputs of each of its row blocks.

    observers: those that have seen the inputs of another entry; None: new ones.
    """

    def __init__(
        self, op: str, module: MatrixModule, pieces: tuple[Piece, ...], observers: BlockObservers | None = None
    ) -> None:
        super().__init__()
        self.op, self.module, self.contraction = op, module, contraction_of(module)
        extents = {(piece.group, piece.row_block): (piece.first_row, piece.rows) for piece in pieces}
        self.extents = dict(sorted(extents.items()))
        self.observers = observers or {block: RangeObserver() for block in self.extents}
        #: All inputs seen, those below zero, and the least.
        self.inputs, self.below, self.least = 0, 0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output."""
        if not bool(torch.isfinite(x).all()):
            raise CalibrationError(f"an input of {self.op!r} is not finite during calibration: check the data")
        self.inputs += x.numel()
        self.below += int((x < 0).sum())
        self.least = min(self.least, float(x.min())) if x.numel() else self.least
        seen = x[None] if x.dim() == self.contraction.sample_axes else x
        for (group, block), (first_row, rows) in self.extents.items():
            touched = self.contraction.inputs_of(seen, self.module.groups, first_row, rows)
            self.observers[group, block].update(touched if self.module.kind == "linear" else touched[:, group])
        y: Tensor = self.module(x)
        return y


def range_rows(op: str, observers: BlockObservers, method: RangeMethod, dac_levels: int | None) -> list[RangeRow]:
    """The chosen ranges of an operation; a block that saw only zeros gets range 1 and says so."""
    rows = []
    for (group, block), observer in observers.items():
        chosen = method.choose(observer, dac_levels)
        note = "" if chosen > 0 else f"{method} gave 0; the largest input is used, or 1 where every input was 0"
        chosen = chosen or observer.maximum() or 1.0
        rows.append(
            RangeRow(
                op=op,
                group=group,
                row_block=block,
                range=chosen,
                largest=observer.maximum(),
                clipped=observer.share_beyond(chosen),
                note=note,
            )
        )
    return rows
