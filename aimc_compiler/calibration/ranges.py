"""Input ranges: one scalar per row block, from the activations that the block sees in the float network; then, where
the chip calibrates them, the bounds of its output converters (``outputs.py``).

The range r of a row block scales its inputs to the DAC's bound: x is clipped to [-r, r] and divided by r (Rasch et
al., Nat. Commun. 14, 5282 (2023), Methods, "AIMC MVM"). All column blocks of a row block receive one multicast vector
and so share its range.
"""

import warnings
from collections.abc import Iterable, Iterator
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
    InputRanges,
    OutputBounds,
    RangeRow,
    contraction_of,
    matrix_on_tiles,
    run_batches,
)
from aimc_compiler.graph import Graph, MatrixModule
from aimc_compiler.mapping import Mapping, Piece
from aimc_compiler.workload import Workload


def calibrate_ranges(
    graph: Graph,
    workload: Workload,
    mapping: Mapping,
    chip: ChipSpec,
    batches: Iterable[Any],
    method: RangeMethod,
    output_method: RangeMethod | None = None,
) -> InputRanges:
    """Run the float Graph over ``batches`` and choose each row block's range; once more for output bounds.

    batches: inputs, each a tensor, a tuple of positional inputs or a dict of keyword inputs; output_method: how output
    bounds are chosen where ``adc.out_bound`` is calibrated (default: ``outputs.OUTPUT_METHOD``). Raises
    CalibrationError on no data, on inputs that the network does not take, on values that are not finite, and on an
    output_method for a chip with fixed bounds. Warns where inputs of either sign meet output converters without sign.
    """
    bounded = [op for op in workload.analog_ops if chip.tile_types[op.tile_type].adc.out_bound == "calibrated"]
    if output_method is not None and not bounded:
        raise CalibrationError(
            f"{output_method} for output ranges sets nothing: no tile that this program uses on {chip.name} has "
            "adc.out_bound: calibrated. Leave it out, or set that (tile.adc.out_bound=calibrated)"
        )
    if bounded and isinstance(batches, Iterator):
        batches = list(batches)  # run twice
    modules = graph.matrix_modules()
    observing = {
        op.name: ObservedMatrix(op.name, modules[op.name], mapping.pieces_of(op.matrix)) for op in workload.analog_ops
    }
    samples = _run(graph, dict(observing), batches)
    _warn_of_signs(observing, {op.name: chip.tile_types[op.tile_type] for op in workload.analog_ops})
    levels = {op.name: chip.tile_types[op.tile_type].dac.steps for op in workload.analog_ops}
    rows = tuple(row for op, module in observing.items() for row in module.rows(method, levels[op]))
    ranges = InputRanges(method=str(method), samples=samples, rows=rows)
    if not bounded:
        return ranges
    watching = {}
    for op in bounded:
        matrix = matrix_on_tiles(op, modules[op.name], mapping, chip)
        observer = OutputObserver(matrix, chip.tile_types[op.tile_type].adc)
        watching[op.name] = ObservedOutputs(modules[op.name], observer, ranges.of(op.name))
    chosen = output_method or RangeMethod.parse(OUTPUT_METHOD)
    return replace(ranges, outputs=_bounds(graph, watching, batches, chosen, samples))


def _warn_of_signs(observing: dict[str, "ObservedMatrix"], tiles: dict[str, Tile]) -> None:
    """Warn where converters without sign read sums that may be below zero: those of inputs of either sign."""
    cut = {name: seen for name, seen in observing.items() if seen.below and not _takes_signs(tiles[name])}
    if not cut:
        return
    name, seen = max(cut.items(), key=lambda item: item[1].below / item[1].inputs)
    more = f", and so are some of {len(cut) - 1:,} more operations" if len(cut) > 1 else ""
    warnings.warn(
        f"{100 * seen.below / seen.inputs:.2g} % of the inputs of {name!r} are below 0 (the least is {seen.least:.3g})"
        f"{more}, but the output converters of their tiles have no sign (adc.signed: false), so that sums below 0 read "
        "as 0. Give inputs bit by bit in two's complement (dac.input_mode: bit_serial, dac.bit_code: twos_complement), "
        "set adc.signed: true, or keep such operations digital by a rule",
        CalibrationWarning,
        stacklevel=3,
    )


def _takes_signs(tile: Tile) -> bool:
    """Whether inputs may have either sign: in two's complement no plane is negative, and signs are put in digitally."""
    return tile.adc.signed or (tile.dac.planes > 0 and tile.dac.bit_code == "twos_complement")


def _bounds(
    graph: Graph, watching: dict[str, ObservedOutputs], batches: Iterable[Any], method: RangeMethod, samples: int
) -> OutputBounds:
    """Run the data again, with its inputs over their ranges. samples: how many there were before."""
    again = _run(graph, dict(watching), batches)
    if again != samples:
        raise CalibrationError(
            f"the calibration data gave {samples} samples when it was run for input ranges and {again} when it was run "
            "again for output bounds: give a list of batches"
        )
    rows = tuple(row for op, module in watching.items() for row in module.observer.bound_rows(op, method))
    return OutputBounds(method=str(method), rows=rows)


def _run(graph: Graph, modules: dict[str, nn.Module], batches: Iterable[Any]) -> int:
    """Run the float Graph with these modules in place of its own; returns the number of samples."""
    observed = graph.with_modules(modules)

    def run(*args: Any, **kwargs: Any) -> int:
        with torch.no_grad():
            observed(*args, **kwargs)
        return graph.sample_count(*args, **kwargs)

    samples = run_batches(batches, run, batch_name="calibration batch", place="through the network")
    if not samples:
        raise CalibrationError("the calibration data is empty: give at least one batch of inputs")
    return samples


class ObservedMatrix(nn.Module):
    """A matrix operation in floating point that records the inputs of each of its row blocks."""

    def __init__(self, op: str, module: MatrixModule, pieces: tuple[Piece, ...]) -> None:
        super().__init__()
        self.op, self.module, self.contraction = op, module, contraction_of(module)
        extents = {(piece.group, piece.row_block): (piece.first_row, piece.rows) for piece in pieces}
        self.extents = dict(sorted(extents.items()))
        self.observers = {block: RangeObserver() for block in self.extents}
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

    def rows(self, method: RangeMethod, dac_levels: int | None) -> list[RangeRow]:
        """The chosen ranges; a block that saw only zeros gets range 1 and says so."""
        rows = []
        for (group, block), observer in self.observers.items():
            chosen = method.choose(observer, dac_levels)
            note = "" if chosen > 0 else f"{method} gave 0; the largest input is used, or 1 where every input was 0"
            chosen = chosen or observer.maximum() or 1.0
            rows.append(
                RangeRow(
                    op=self.op,
                    group=group,
                    row_block=block,
                    range=chosen,
                    largest=observer.maximum(),
                    clipped=observer.share_beyond(chosen),
                    note=note,
                )
            )
        return rows
