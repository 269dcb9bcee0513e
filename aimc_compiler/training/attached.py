"""A matrix in training on a manufactured chip: what the compiled network computes, in the network's own place."""

from torch import Tensor

from aimc_compiler.analog import MatrixOnTiles
from aimc_compiler.executor.on_tiles import Clock


class Attached:
    """A matrix on a manufactured chip that stands in for the one in training. It counts the MVMs of each sample."""

    def __init__(self, tiles: MatrixOnTiles, ranges: Tensor | None, clock: Clock) -> None:
        self.tiles, self.ranges, self.clock = tiles, ranges, clock
        self._sample, self._calls = -1, 0

    def forward(self, x: Tensor) -> Tensor:
        """The products, without bias. x: (batch, ...), whose entries make up the samples of this call of the network
        evenly, or are samples."""
        if self._sample != self.clock.first_sample:
            self._sample, self._calls = self.clock.first_sample, 0
        count = self.clock.count if x.shape[0] % self.clock.count == 0 else x.shape[0]
        y = self.tiles.forward(
            x,
            self.ranges,
            self.clock.time_s,
            recalibrated_s=self.clock.recalibrated_s,
            first_sample=self.clock.first_sample,
            first_call=self._calls,
            samples=count,
        )
        self._calls += y.numel() // (self.tiles.outputs * max(1, count))
        return y.to(x.dtype)
