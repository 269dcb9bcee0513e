"""Input ranges, one a row block, as data: chosen by ``calibration``, saved with the program, bound by the device."""

import torch
from torch import Tensor

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
class InputRanges:
    """The ranges of every analog operation and where they came from. samples: how many calibrated them."""

    method: str
    samples: int
    rows: tuple[RangeRow, ...]

    def of(self, op: str) -> Tensor:
        """(groups, row blocks) for one operation. Raises CalibrationError where it has none."""
        mine = [row for row in self.rows if row.op == op]
        if not mine:
            raise CalibrationError(f"operation {op!r} has no input range: calibrate again")
        ranges = torch.zeros(max(row.group for row in mine) + 1, max(row.row_block for row in mine) + 1)
        for row in mine:
            ranges[row.group, row.row_block] = row.range
        return ranges
