"""Layouts and accesses: how a tensor is cut into windows, and which of them an operation needs.

A layout is the dimension that holds a window's elements: every other dimension counts windows, in raster order. It is
dimension 1 of an image batch, the last of a sequence of vectors; None means one window of all elements.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from aimc_compiler.graph.values import TensorValue, value_of
from aimc_compiler.workload.ir import Access

Layout = int | None
SAME = Access(kind="same")
ALL = Access(kind="all")


def sizes(value: TensorValue, layout: Layout) -> tuple[int, int]:
    """(windows, width) of a tensor."""
    total = prod(value.shape)
    if layout is None or not value.shape:
        return 1, total
    return total // value.shape[layout] if value.shape[layout] else 0, value.shape[layout]


def window_shape(value: TensorValue, layout: int) -> tuple[int, ...]:
    """Sizes of the dimensions that count windows."""
    return value.shape[:layout] + value.shape[layout + 1 :]


def carried_layouts(node: fx.Node, source: fx.Node, layout: Layout) -> tuple[Layout, ...]:
    """Layouts of a rearrangement's result in which window k holds only elements of the source's window k.

    Found by rearranging the numbers of the windows instead of the elements. Empty where no layout does; a source of
    one window is kept by any layout of one window.
    """
    value, result = value_of(source), value_of(node)
    if not isinstance(value, TensorValue) or not isinstance(result, TensorValue):
        return ()
    windows, _ = sizes(value, layout)
    if windows == 1:
        return (*(axis for axis in range(len(result.shape)) if sizes(result, axis)[0] == 1), None)
    assert layout is not None
    key = (_written(node, source), value.shape, layout)
    if key not in _carried:
        numbers = torch.arange(windows, device="cpu").reshape(window_shape(value, layout))
        numbers = numbers.unsqueeze(layout).expand(value.shape)
        moved = apply_rearrangement(node, source, numbers)
        if len(_carried) >= _CARRIED_LIMIT:
            _carried.clear()
        _carried[key] = tuple(axis for axis in range(moved.dim()) if _raster(moved, axis, windows))
    return _carried[key]


#: What was found, by the call: the layers of a deep network make the same ones, of millions of elements each.
_carried: dict[tuple[str, tuple[int, ...], int], tuple[Layout, ...]] = {}
_CARRIED_LIMIT = 1024


def _written(node: fx.Node, source: fx.Node) -> str:
    """All that ``apply_rearrangement`` reads of a node, with a name for the source."""

    def text(argument: fx.Node) -> str:
        if argument is source:
            return "source"
        if _between(argument, source):
            return _written(argument, source)
        return repr(value_of(argument))

    return f"{node.target}{fx.map_arg(node.args, text)}{fx.map_arg(node.kwargs, text)}"


def _raster(numbers: Tensor, axis: int, windows: int) -> bool:
    if numbers.shape[axis] == 0:
        return False
    first = numbers.narrow(axis, 0, 1)
    return (
        first.numel() == windows
        and torch.equal(first.flatten(), torch.arange(windows, device="cpu"))
        and bool((numbers == first).all())
    )


def apply_rearrangement(node: fx.Node, source: fx.Node, stand_in: Tensor) -> Tensor:
    """The result of ``node`` with ``stand_in`` for ``source`` and the recorded sizes for numbers."""

    def value(argument: fx.Node) -> Any:
        if argument is source:
            return stand_in
        if _between(argument, source):
            return _call(argument, value)
        return value_of(argument)

    result = _call(node, value)
    assert isinstance(result, Tensor)
    return result


def _call(node: fx.Node, value: Any) -> Any:
    assert callable(node.target)
    return node.target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))


def _between(node: fx.Node, source: fx.Node) -> bool:
    """Whether a node hands on something made of the source."""
    return node.op == "call_function" and source in node.all_input_nodes and not _number(node)


def _number(node: fx.Node) -> bool:
    return isinstance(value_of(node), int | float | bool)


def sliding(
    value: TensorValue,
    result: TensorValue,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Access:
    """A kernel that slides over the last dimensions of ``value``."""
    spatial = len(kernel)
    return Access(
        kind="sliding",
        input_size=value.shape[-spatial:],
        output_size=result.shape[-spatial:],
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


def stretched(value: TensorValue, result: TensorValue, stride: tuple[int, ...], padding: tuple[int, ...]) -> Access:
    """Blocks that lie ``stride`` apart over the last dimensions of ``result``, one for each place of ``value``."""
    spatial = len(stride)
    return Access(
        kind="stretched",
        input_size=value.shape[-spatial:],
        output_size=result.shape[-spatial:],
        stride=stride,
        padding=padding,
    )


def broadcast_access(value: TensorValue, layout: Layout, result: TensorValue, result_layout: Layout) -> Access:
    """Access of an operation element by element on one of its inputs: "same" where the windows correspond."""
    if sizes(value, layout)[0] == 1:
        return SAME if sizes(result, result_layout)[0] == 1 else ALL
    if layout is None or result_layout is None or len(value.shape) - layout != len(result.shape) - result_layout:
        return ALL
    ours, theirs = window_shape(value, layout), window_shape(result, result_layout)
    aligned = (1,) * (len(theirs) - len(ours)) + ours
    return SAME if aligned == theirs else ALL
