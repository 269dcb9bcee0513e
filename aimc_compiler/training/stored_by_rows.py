"""Linear layers whose weight is stored (inputs, outputs), as GPT-2's: the ``Conv1D`` of transformers and of our zoo.

Nobody has to have transformers: a class is known by its name and its module.
"""

from typing import Any

from torch import Tensor, nn

from aimc_compiler.analog import Contraction
from aimc_compiler.training.layers import OneMatrix

_KINDS = {("transformers.pytorch_utils", "Conv1D"), ("aimc_compiler.zoo.gpt2", "Conv1D")}


class _StoredByRows(OneMatrix):
    """``x W + b`` on tiles."""

    parameter = "weight.T"
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.analog(x, self.blocks("weight"), self.bias)
        return y

    def blocks(self, name: str) -> Tensor:
        weight: Tensor = getattr(self, name)
        return weight.T[None]

    def replace(self, name: str, blocks: Tensor) -> None:
        weight: Tensor = getattr(self, name)
        weight.data.copy_(blocks[0].T)

    def _shape(self) -> tuple[int, int, int]:
        return 1, self.weight.shape[1], self.weight.shape[0]

    def _contraction(self) -> Contraction:
        return Contraction(kind="linear")


def layer_by_rows(kind: type[nn.Module]) -> Any:
    """What stands for such a layer in training; None where ``kind`` is another."""
    return _StoredByRows if (kind.__module__, kind.__name__) in _KINDS else None
