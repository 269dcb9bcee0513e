"""Input ranges and output bounds as data: chosen by ``calibration``, saved with the program, bound by the device."""

import torch
from torch import Tensor

from aimc_compiler.analog.piece_bounds import PieceBounds
from aimc_compiler.errors import CalibrationError
from aimc_compiler.records import record


@record
class RangeRow:
    """One row block's range. clipped: share of the calibration inputs beyond it; largest: the largest |x| seen."""

    op: str
    group: int
    row_block: int
    range: float
    largest: float
    clipped: float
    note: str = ""


@record
class BoundRow:
    """The output bound of a slice of a piece, in normalised w times x. clipped: share of its outputs of the calibration
    data beyond it (or below 0, of a converter without sign), of the conversion of which it is largest; largest: the
    largest of all."""

    op: str
    group: int
    row_block: int
    column_block: int
    slice: int
    bound: float
    largest: float
    clipped: float
    note: str = ""


@record
class OutputBounds:
    """The output bounds of every operation on tiles where they are calibrated, and how they were chosen."""

    method: str
    rows: tuple[BoundRow, ...]

    def of(self, op: str) -> PieceBounds:
        """Of one operation; empty where it has none."""
        mine = (row for row in self.rows if row.op == op)
        return PieceBounds(values={(row.group, row.row_block, row.column_block, row.slice): row.bound for row in mine})


@record
class InputRanges:
    """The ranges of every analog operation and where they came from. samples: how many calibrated them.

    outputs: output bounds, found by the same samples; None where the chip has fixed ones.
    """

    method: str
    samples: int
    rows: tuple[RangeRow, ...]
    outputs: OutputBounds | None = None

    def of(self, op: str) -> Tensor:
        """(groups, row blocks) for one operation. Raises CalibrationError where it has none."""
        mine = [row for row in self.rows if row.op == op]
        if not mine:
            raise CalibrationError(f"operation {op!r} has no input range: calibrate again")
        ranges = torch.zeros(max(row.group for row in mine) + 1, max(row.row_block for row in mine) + 1)
        for row in mine:
            ranges[row.group, row.row_block] = row.range
        return ranges
