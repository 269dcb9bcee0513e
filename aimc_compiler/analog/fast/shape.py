"""How the windows of a convolution lie in memory: split by stride, one after the other over the padded width.

With codes of a channel padded and split into ``stride`` phases a dimension, the inputs that one place of the kernel
meets at all output positions lie one after the other. The padded width of a phase is the ``pitch``; the positions
between an output row's end and the next row's begin mean nothing.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.records import record

Ints = npt.NDArray[np.int64]

_POSITIONS_A_STRIP = 1024


@record
class WindowShape:
    """Two dimensions each: height and width; one-dimensional operations have height 1."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, contraction: Contraction, size: tuple[int, ...]) -> "WindowShape":
        """size: of the input, one int a spatial dimension."""
        flat = 2 - len(size)

        def two(values: tuple[int, ...], missing: int) -> tuple[int, int]:
            height, width = (*(missing for _ in range(flat)), *values)
            return height, width

        return cls(
            kernel=two(contraction.kernel, 1),
            stride=two(contraction.stride, 1),
            padding=two(contraction.padding, 0),
            dilation=two(contraction.dilation, 1),
            size=two(size, 1),
        )

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the output."""
        return self._outputs(0), self._outputs(1)

    @property
    def pitch(self) -> int:
        """Positions from an output row to the next."""
        return -(-(self.size[1] + 2 * self.padding[1]) // self.stride[1])

    def positions(self, rows: int) -> int:
        """From the first output of the first of ``rows`` output rows to the last one of the last."""
        return (rows - 1) * self.pitch + self.output[1]

    def cells(self, rows: int) -> tuple[int, int]:
        """Phases, and cells of each, that hold one channel's codes for some output rows."""
        height = (rows - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1
        return self.stride[0] * self.stride[1], -(-height // self.stride[0]) * self.pitch

    def _outputs(self, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (self.size[axis] + 2 * self.padding[axis] - reach) // self.stride[axis] + 1


@record
class Strip:
    """Some output rows of some entries: of one entry, or all rows.

    numbers: its geometry as the compiled kernels take it (kernel, stride, dilation, left padding, first row of the
    input, pitch, positions, first row and rows of the output).
    """

    first_entry: int
    entries: int
    positions: int
    cells: tuple[int, int]
    numbers: Ints


def strips(entries: int, shape: WindowShape, threads: int) -> list[Strip]:
    """All output rows of all entries, in strips whose sums fit the cache, and at least one a thread if that pays."""
    height = shape.output[0]
    whole = shape.positions(height)
    size = min(_POSITIONS_A_STRIP, max(-(-entries * whole // threads), _POSITIONS_A_STRIP // 4))
    together = max(1, size // whole)
    parts = 1 if together > 1 else min(height, max(1, round(whole / size)))
    cuts = [height * k // parts for k in range(parts + 1)]
    made = []
    for first, last in pairwise(cuts):
        rows = last - first
        top = first * shape.stride[0] - shape.padding[0]
        fields = (*shape.kernel, *shape.stride, *shape.dilation, shape.padding[1], top, shape.pitch)
        numbers = np.array((*fields, shape.positions(rows), first, rows), np.int64)
        made.append((shape.positions(rows), shape.cells(rows), numbers))
    return [
        Strip(
            first_entry=entry,
            entries=min(together, entries - entry),
            positions=positions,
            cells=cells,
            numbers=numbers,
        )
        for entry in range(0, entries, together)
        for positions, cells, numbers in made
    ]
