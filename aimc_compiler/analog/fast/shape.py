"""How the windows of a convolution are cut into strips, and lie in memory: output positions, row by row."""

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.records import record

Ints = npt.NDArray[np.int64]

_STRIP_BYTES = 5 << 19
_LEAST_POSITIONS = 256


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

    def _outputs(self, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (self.size[axis] + 2 * self.padding[axis] - reach) // self.stride[axis] + 1


@record
class Strip:
    """Some output rows of some entries: of one entry, or all rows.

    positions: outputs of an entry; shifted: shape of one plane of a channel's codes (kernel width, vertical stride,
    cells); line: room for the codes of its rows; numbers: the geometry as the compiled kernels take
    it (kernel, stride, dilation, left padding, first row of the input, positions, output width, first output row).
    """

    first_entry: int
    entries: int
    positions: int
    shifted: tuple[int, int, int]
    line: int
    numbers: Ints


@lru_cache(maxsize=256)
def strips(entries: int, shape: WindowShape, threads: int, position_bytes: int) -> tuple[Strip, ...]:
    """All output rows of all entries, in strips that fit the cache, and at least one a thread if that pays.

    position_bytes: of codes and sums of one output position.
    """
    height, width = shape.output
    share = max(-(-entries * height * width // threads), _LEAST_POSITIONS)
    size = min(max(_STRIP_BYTES // position_bytes, 1), share)
    together = max(1, size // (height * width))
    parts = 1 if together > 1 else min(height, max(1, round(height * width / size)))
    cuts = [height * k // parts for k in range(parts + 1)]
    return tuple(
        _strip(shape, entry, min(together, entries - entry), first, last - first)
        for entry in range(0, entries, together)
        for first, last in pairwise(cuts)
    )


def _strip(shape: WindowShape, first_entry: int, entries: int, first: int, rows: int) -> Strip:
    """rows: of the output, from ``first`` on."""
    width = shape.output[1]
    reach = (rows - 1) * shape.stride[0] + (shape.kernel[0] - 1) * shape.dilation[0] + 1
    top = first * shape.stride[0] - shape.padding[0]
    fields = (*shape.kernel, *shape.stride, *shape.dilation, shape.padding[1], top, rows * width, width, first)
    cells = -(-reach // shape.stride[0]) * width
    return Strip(
        first_entry=first_entry,
        entries=entries,
        positions=rows * width,
        shifted=(shape.kernel[1], shape.stride[0], cells),
        line=reach * shape.size[1],
        numbers=np.array(fields, np.int64),
    )
