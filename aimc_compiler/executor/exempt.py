"""Operations, or some of their outputs, taken from the tiles of a chip: floating point in their place.

What is exempt has none of the chip's effects; everything else, and its noise, stays as it was, because every draw is
keyed by what it is for. So the difference between two runs is what the exempt part costs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from aimc_compiler.errors import DataError
from aimc_compiler.executor.on_tiles import OnTiles
from aimc_compiler.graph import Graph, MatrixModule
from aimc_compiler.graph.recurrent import Stepped

#: Of each operation by name: which of its outputs are exempt, None for all of them.
Exempt = Mapping[str, Sequence[int] | None]


class PartlyExempt(nn.Module):
    """An operation on tiles, some of whose outputs come from the floating-point one."""

    def __init__(self, on_tiles: OnTiles, module: MatrixModule, outputs: Sequence[int]) -> None:
        super().__init__()
        self.on_tiles, self.module = on_tiles, module
        self.outputs = torch.tensor(sorted(outputs), dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output."""
        return self._exchanged(self.on_tiles(x), x)

    def _exchanged(self, y: Tensor, x: Tensor) -> Tensor:
        axis = y.dim() - 1 - self.module.spatial
        index = self.outputs.to(y.device)
        return y.index_copy(axis, index, self.module(x).index_select(axis, index).to(y))


class PartlyExemptSteps(PartlyExempt, Stepped):
    """The same of a matrix of a recurrent layer."""

    def at_step(self, x: Tensor, step: int) -> Tensor:
        """The output of one step. x: (batch, inputs); step: from 0."""
        assert isinstance(self.on_tiles, Stepped)
        return self._exchanged(self.on_tiles.at_step(x, step), x)


def exempt_modules(graph: Graph, on_chip: Mapping[str, OnTiles], exempt: Exempt) -> dict[str, nn.Module]:
    """What stands in the place of each operation of ``on_chip``. graph: in floating point.

    Raises DataError where an operation has no such output.
    """
    plain, found = graph.matrix_modules(), dict[str, nn.Module](on_chip)
    for name in on_chip:
        if name not in exempt:
            continue
        outputs = exempt[name]
        if outputs is None:
            found[name] = plain[name]
        elif len(outputs):
            found[name] = _partly(name, on_chip[name], plain[name], outputs)
    return found


def _partly(name: str, on_tiles: OnTiles, module: MatrixModule, outputs: Sequence[int]) -> PartlyExempt:
    count = int(module.weight.shape[0])
    wrong = [index for index in outputs if not 0 <= index < count]
    if wrong or len(set(outputs)) < len(outputs):
        fault = f"no output {wrong[0]}" if wrong else "been given one output twice"
        raise DataError(f"operation {name!r} has {fault}: name each output once, from 0 to {count - 1}")
    kind = PartlyExemptSteps if isinstance(on_tiles, Stepped) else PartlyExempt
    return kind(on_tiles, module, outputs)
