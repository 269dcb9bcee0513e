"""What each node of a graph returns for one sample: shapes and types of tensors, recorded while the graph runs."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from aimc_compiler.records import record


@record
class TensorValue:
    """A tensor of one sample: its shape, and its type by torch's name, as in "float32".

    batch: the dimension that grows with the number of samples; None where there is none, or the example is the sample.
    inner: where that dimension holds several entries of each sample, and samples take turns in it, as after time and
    batch were joined with time first: how many entries of a sample stand together; None where all do.
    """

    shape: tuple[int, ...]
    dtype: str
    batch: int | None = None
    inner: int | None = None

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return int(getattr(torch, self.dtype).itemsize)


#: A node's value: a tensor, several (an operation with several results), or a number or text, as inputs and sizes are.
Value = TensorValue | tuple[TensorValue, ...] | int | float | bool | str | None


class ValueRecorder(fx.Interpreter):
    """Runs a graph on one sample and notes every node's value in ``node.meta["value"]``."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["value"] = describe(result)
        return result


class BatchRecorder(fx.Interpreter):
    """Runs a graph on two samples and notes, on each tensor recorded for one, the dimension that grew.

    joined: what the inputs of modules were whose dimension holds several entries of a sample, for ``TurnRecorder``.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.joined: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        value = n.meta["value"] = _with_batch(value_of(n), describe(result))
        feeds = any(user.op == "call_module" for user in n.users) and isinstance(result, Tensor) and not result.is_meta
        if feeds and isinstance(value, TensorValue) and value.batch is not None and value.shape[value.batch] > 1:
            self.joined[n.name] = result
        return result


class TurnRecorder(fx.Interpreter):
    """Runs a graph on the first of two samples and notes in which order entries of both were joined. joined: of a
    ``BatchRecorder`` of the same graph."""

    def __init__(self, module: fx.GraphModule, joined: dict[str, Tensor]) -> None:
        super().__init__(module)
        self._joined = joined

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        both, value = self._joined.get(n.name), value_of(n)
        if both is not None and isinstance(value, TensorValue) and value.batch is not None:
            n.meta["value"] = replace(value, inner=_entries_together(result, both, value.batch))
        return result


def _entries_together(one: Tensor, both: Tensor, axis: int) -> int | None:
    """How many entries of a sample stand together along ``axis`` of ``both``; None for all, or where values do not
    tell."""
    count = one.shape[axis]
    for inner in range(count, 0, -1):
        if count % inner:
            continue
        first = torch.unflatten(both, axis, (count // inner, 2, inner)).select(axis + 1, 0).flatten(axis, axis + 1)
        if torch.allclose(first.to(torch.float64), one.to(torch.float64), rtol=1e-3, atol=1e-4, equal_nan=True):
            return None if inner == count else inner
    return None


def _with_batch(single: Value, double: Value) -> Value:
    if isinstance(single, tuple) and isinstance(double, tuple):
        pairs = zip(single, double, strict=True)
        return tuple(_grown(one, two) for one, two in pairs)
    if isinstance(single, TensorValue) and isinstance(double, TensorValue):
        return _grown(single, double)
    return single


def _grown(one: TensorValue, two: TensorValue) -> TensorValue:
    if len(one.shape) != len(two.shape):
        return one
    axes = [axis for axis, sizes in enumerate(zip(one.shape, two.shape, strict=True)) if sizes[0] != sizes[1]]
    return replace(one, batch=axes[0] if len(axes) == 1 else None)


def describe(result: Any) -> Value:
    """The value of a node's result."""
    if isinstance(result, Tensor):
        return TensorValue(shape=tuple(result.shape), dtype=str(result.dtype).removeprefix("torch."))
    if isinstance(result, tuple | list) and result and all(isinstance(item, Tensor) for item in result):
        return tuple(
            TensorValue(shape=tuple(item.shape), dtype=str(item.dtype).removeprefix("torch.")) for item in result
        )
    return result if isinstance(result, int | float | bool | str) else None


def value_of(node: fx.Node) -> Value:
    """What was recorded for a node; None for outputs and for values that are neither tensor nor number."""
    value: Value = node.meta.get("value")
    return value


def tensor_of(node: fx.Node) -> TensorValue | None:
    """The tensor that a node returns, None where it returns no single tensor."""
    value = value_of(node)
    return value if isinstance(value, TensorValue) else None
