"""What each node of a graph returns for one sample: shapes and types of tensors, recorded while the graph runs."""

from typing import Any

import torch
from torch import Tensor, fx

from aimc_compiler.records import record


@record
class TensorValue:
    """A tensor of this shape and type (torch's name of it, as in "float32")."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return int(getattr(torch, self.dtype).itemsize)


#: A node's value: a tensor, several (an operation with several results), or a number that sizes are computed from.
Value = TensorValue | tuple[TensorValue, ...] | int | float | bool | None


class ValueRecorder(fx.Interpreter):
    """Runs a graph on one sample and notes every node's value in ``node.meta["value"]``."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["value"] = describe(result)
        return result


def describe(result: Any) -> Value:
    """The value of a node's result."""
    if isinstance(result, Tensor):
        return TensorValue(shape=tuple(result.shape), dtype=str(result.dtype).removeprefix("torch."))
    if isinstance(result, tuple | list) and result and all(isinstance(item, Tensor) for item in result):
        return tuple(
            TensorValue(shape=tuple(item.shape), dtype=str(item.dtype).removeprefix("torch.")) for item in result
        )
    return result if isinstance(result, int | float | bool) else None


def value_of(node: fx.Node) -> Value:
    """What was recorded for a node; None for outputs and for values that are neither tensor nor number."""
    value: Value = node.meta.get("value")
    return value


def tensor_of(node: fx.Node) -> TensorValue | None:
    """The tensor that a node returns, None where it returns no single tensor."""
    value = value_of(node)
    return value if isinstance(value, TensorValue) else None
