"""A matrix in training on a manufactured chip: what the compiled network computes, in the network's own place."""

from torch import Tensor

from aimc_compiler.analog import MatrixOnTiles
from aimc_compiler.executor.on_tiles import Clock


class Calls:
    """MVMs of a matrix that a sample has had so far, by all operations that use it."""

    def __init__(self) -> None:
        self.count = 0
        self._sample = -1

    def before(self, clock: Clock) -> int:
        """How many there were; 0 with the next samples."""
        if self._sample != clock.first_sample:
            self._sample, self.count = clock.first_sample, 0
        return self.count


class Attached:
    """A matrix on a manufactured chip that stands in for the one in training. axis: the dimension of its inputs where
    samples are looked for first: they lie where there are as many entries."""

    def __init__(self, tiles: MatrixOnTiles, ranges: Tensor | None, clock: Clock, calls: "Calls", axis: int) -> None:
        self.tiles, self.ranges, self.clock, self.calls, self.axis = tiles, ranges, clock, calls, axis

    def forward(self, x: Tensor) -> Tensor:
        """The products, without bias. x: (batch, ...), whose entries make up the samples of this call of the network
        evenly, or are samples; or linear inputs with samples along another dimension."""
        axis = self._axis_of(x) if self.tiles.contraction.kind == "linear" else 0
        return self._forward(x.movedim(axis, 0)).movedim(0, axis) if axis else self._forward(x)

    def _axis_of(self, x: Tensor) -> int:
        """Where samples lie, as far as sizes tell."""
        count = self.clock.count
        if 0 <= self.axis < x.dim() - 1 and x.shape[self.axis] == count:
            return self.axis
        if x.shape[0] % count == 0:
            return 0
        return next((axis for axis in range(1, x.dim() - 1) if x.shape[axis] == count), 0)

    def _forward(self, x: Tensor) -> Tensor:
        count = self.clock.count if x.shape[0] % self.clock.count == 0 else x.shape[0]
        y = self.tiles.forward(
            x,
            self.ranges,
            self.clock.time_s,
            recalibrated_s=self.clock.recalibrated_s,
            first_sample=self.clock.first_sample,
            first_call=self.calls.before(self.clock),
            samples=count,
        )
        self.calls.count += y.numel() // (self.tiles.outputs * max(1, count))
        return y.to(x.dtype)
