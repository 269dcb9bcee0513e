"""Input ranges: one scalar per row block, from the activations that the block sees in the float network.

The range r of a row block scales its inputs to the DAC's bound: x is clipped to [-r, r] and divided by r (Rasch et
al., Nat. Commun. 14, 5282 (2023), Methods, "AIMC MVM"). All column blocks of a row block receive one multicast vector
and so share its range.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aimc_compiler.analog import RangeObserver
from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import CalibrationError
from aimc_compiler.executor import InputRanges, RangeRow, contraction_of, run_batches
from aimc_compiler.graph import Graph, MatrixModule
from aimc_compiler.mapping import Mapping, Piece
from aimc_compiler.records import record
from aimc_compiler.workload import Workload


@record
class RangeMethod:
    """How a range is chosen: a percentile of |x|, k standard deviations of x about zero, the least mean square of what
    rounding and clipping at the input converter lose, or the largest |x|."""

    kind: Literal["percentile", "k-sigma", "mse", "max"]
    value: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind in ("mse", "max") else f"{self.kind}:{self.value:g}"

    @classmethod
    def parse(cls, text: str) -> "RangeMethod":
        """From "percentile:99.9", "k-sigma:4", "mse" or "max". Raises CalibrationError."""
        kind, _, number = text.partition(":")
        if kind == "max" and not number:
            return cls(kind="max")
        if kind == "mse" and not number:
            return cls(kind="mse")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if kind == "percentile" and 0 < value <= 100:
            return cls(kind="percentile", value=value)
        if kind == "k-sigma" and 0 < value < float("inf"):
            return cls(kind="k-sigma", value=value)
        raise CalibrationError(
            f"{text!r} is no way to set input ranges: write percentile:P (0 < P <= 100), k-sigma:K (K > 0), mse or max"
        )

    def choose(self, observer: RangeObserver, dac_levels: int | None) -> float:
        """The range from what was observed. dac_levels: steps of the input converter over twice the range, or None."""
        if self.kind == "mse":
            return observer.least_squares(dac_levels)
        if self.kind == "percentile":
            return observer.percentile(self.value)
        return observer.k_sigma(self.value) if self.kind == "k-sigma" else observer.maximum()


def calibrate_ranges(
    graph: Graph,
    workload: Workload,
    mapping: Mapping,
    chip: ChipSpec,
    batches: Iterable[Any],
    method: RangeMethod,
) -> InputRanges:
    """Run the float Graph over ``batches`` and choose each row block's range.

    batches: inputs, each a tensor, a tuple of positional inputs or a dict of keyword inputs.
    Raises CalibrationError on no data, on inputs that the network does not take, and on values that are not finite.
    """
    modules = graph.matrix_modules()
    observing = {
        op.name: ObservedMatrix(op.name, modules[op.name], mapping.pieces_of(op.matrix)) for op in workload.analog_ops
    }
    observed = graph.with_modules(dict(observing))

    def run(*args: Any, **kwargs: Any) -> int:
        with torch.no_grad():
            observed(*args, **kwargs)
        return graph.sample_count(*args, **kwargs)

    samples = run_batches(batches, run, batch_name="calibration batch", place="through the network")
    if not samples:
        raise CalibrationError("the calibration data is empty: give at least one batch of inputs")
    levels = {op.name: chip.tile_types[op.tile_type].dac.steps for op in workload.analog_ops}
    rows = tuple(row for op, module in observing.items() for row in module.rows(method, levels[op]))
    return InputRanges(method=str(method), samples=samples, rows=rows)


class ObservedMatrix(nn.Module):
    """A matrix operation in floating point that records the inputs of each of its row blocks."""

    def __init__(self, op: str, module: MatrixModule, pieces: tuple[Piece, ...]) -> None:
        super().__init__()
        self.op, self.module, self.contraction = op, module, contraction_of(module)
        extents = {(piece.group, piece.row_block): (piece.first_row, piece.rows) for piece in pieces}
        self.extents = dict(sorted(extents.items()))
        self.observers = {block: RangeObserver() for block in self.extents}

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output."""
        if not bool(torch.isfinite(x).all()):
            raise CalibrationError(f"an input of {self.op!r} is not finite during calibration: check the data")
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
