"""Products with a weight, in the spellings that are not a linear layer's, rewritten as one.

``W x`` is ``(x^T W^T)^T``; a weight repeated for every sample is one weight; a stack of weights, one for each of
several parts of the activation, is a grouped convolution of one place; ``addmm`` with factors is a product, scaled and
added; matrices that an index chooses (experts) all compute, and the index chooses among their results. A product over
one element is an outer product: it stays digital.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from aimc_compiler.graph.arguments import arguments
from aimc_compiler.graph.extract import Constants
from aimc_compiler.graph.ir import BESIDE, EXPERT, op_name
from aimc_compiler.graph.split import Writer

_ATEN = torch.ops.aten


def rewrite_products(graph: fx.Graph, constants: Constants) -> None:
    """Rewrite every product of an activation and a weight that is not one of an activation and a matrix already."""
    for node in list(graph.nodes):
        if node.op == "call_function" and (rewrite := _REWRITERS.get(op_name(node))):
            rewrite(Writer(graph, node), constants)


def _product(write: Writer, constants: Constants) -> None:
    values = arguments(write.node)
    left, right = values["self"], next(values[name] for name in ("other", "mat2", "vec") if name in values)
    result = _with_weight(write, constants, left, right) or _routed(write, constants, left, right)
    if result is not None:
        write.finish(result)


def _added_product(write: Writer, constants: Constants) -> None:
    """beta * offset + alpha * left right, with one call each."""
    values = arguments(write.node)
    kind = "mat" if "mat1" in values else "batch"
    left, right = values[f"{kind}1"], values[f"{kind}2"]
    plain = values["alpha"] == 1 and values["beta"] == 1
    offset = constants.find(values["self"])
    weight = constants.find(right)
    if plain and weight is not None and weight[0].dim() == 2 and offset is not None and _is_bias(offset[0], weight[0]):
        return
    if weight is not None and weight[0].dim() == 2 and constants.find(left) is None:
        result: fx.Node | None = write.call(_ATEN.matmul.default, left, right)
    else:
        result = _with_weight(write, constants, left, right)
    if result is None:
        return
    if values["alpha"] != 1:
        result = write.call(_ATEN.mul.Tensor, result, values["alpha"])
    if values["beta"] != 0:
        scaled = values["self"]
        if values["beta"] != 1:
            scaled = write.call(_ATEN.mul.Tensor, scaled, values["beta"])
        result = write.call(_ATEN.add.Tensor, result, scaled)
    write.finish(result)


def _is_bias(offset: Tensor, weight: Tensor) -> bool:
    """Whether an offset is one value an output, as a linear layer's."""
    return offset.shape[-1:] == weight.shape[-1:] and offset.numel() == weight.shape[-1]


def _with_weight(write: Writer, constants: Constants, left: fx.Node, right: fx.Node) -> fx.Node | None:
    """``left right`` in the normal spelling, None where it has that already or neither side alone is a weight."""
    first, second = _weight(write, constants, left), _weight(write, constants, right)
    if (first is None) == (second is None):
        return None
    if second is not None:
        return _right_weight(write, left, second, spelled=second is right)
    assert first is not None
    vector, weight = write.shape(right), write.shape(first)
    if len(weight) == 1:
        # A row times matrices: the matrices' columns are what meets the weight.
        return _right_weight(write, _turned(write, right), first, spelled=False) if len(vector) > 1 else None
    if len(vector) == 1:
        return _right_weight(write, right, _turned(write, first), spelled=False)
    product = _right_weight(write, _turned(write, right), _turned(write, first), spelled=False)
    return None if product is None else _turned(write, product)


def _right_weight(write: Writer, x: fx.Node, weight: fx.Node, *, spelled: bool) -> fx.Node | None:
    """``x weight``. spelled: the node says so already."""
    rank, shape = len(write.shape(weight)), write.shape(weight)
    if shape[-2 if rank > 1 else 0] == 1:
        return None
    if rank == 1:
        column = write.call(_ATEN.unsqueeze.default, weight, -1)
        return write.call(_ATEN.squeeze.dim, write.call(_ATEN.matmul.default, x, column), -1)
    if rank == 2:
        return None if spelled and op_name(write.node) != "bmm" else write.call(_ATEN.matmul.default, x, weight)
    return _grouped(write, x, weight) if rank == 3 else None


def _grouped(write: Writer, x: fx.Node, weight: fx.Node) -> fx.Node | None:
    """x: (..., groups, vectors, inputs); weight: (groups, inputs, outputs). One convolution of one place, in groups."""
    groups, inputs, outputs = write.shape(weight)
    shape = write.shape(x)
    if len(shape) not in (3, 4) or shape[-3] != groups:
        return None
    kernel = write.call(_ATEN.transpose.int, weight, 1, 2)
    kernel = write.call(_ATEN.reshape.default, kernel, [groups * outputs, inputs, 1])
    # (samples, groups, inputs, vectors); without samples in front the vectors are taken one by one.
    turned = [0, 1, 3, 2] if len(shape) == 4 else [1, 0, 2]
    parts = write.call(_ATEN.permute.default, x, turned)
    vectors = write.length(x, 2) if len(shape) == 4 else 1
    side_by_side = write.call(_ATEN.reshape.default, parts, [-1, groups * inputs, vectors])
    one = [1]
    product = write.call(_ATEN.conv1d.default, side_by_side, kernel, None, one, [0], one, groups)
    sizes = [-1, groups, outputs, vectors] if len(shape) == 4 else [-1, groups, outputs]
    apart = write.call(_ATEN.reshape.default, product, sizes)
    return write.call(_ATEN.permute.default, apart, turned)


def _routed(write: Writer, constants: Constants, left: fx.Node, right: fx.Node) -> fx.Node | None:
    """Each vector with the matrix of a stack that an index chooses for it, as experts are.

    A matrix stands still, so every vector meets each matrix of the stack, and the index chooses among the results.
    """
    for chosen, x, side in ((left, right, 2), (right, left, 1)):
        found = _chosen(constants, chosen)
        shape = found and write.shape(x)
        if not found or not shape or len(shape) != 3 or shape[side] != 1:
            continue
        weight, index = found
        experts, first, last = write.shape(weight)
        outputs = first if side == 2 else last
        vectors = write.call(_ATEN.squeeze.dim, x, side)
        made = [_expert(write, vectors, weight, expert, turned=side == 1) for expert in range(experts)]
        every = write.call(_ATEN.cat.default, made, 1)
        every.meta[BESIDE] = True
        apart = write.call(_ATEN.reshape.default, every, [-1, experts, outputs])
        counted = write.call(_ATEN.remainder.Scalar, index, experts)  # an index may count from the end
        spread = write.call(_ATEN.reshape.default, counted, [-1, 1, 1])
        spread = write.call(_ATEN.expand.default, spread, [-1, 1, outputs])
        result = write.call(_ATEN.gather.default, apart, 1, spread)
        return result if side == 1 else _turned(write, result)
    return None


def _expert(write: Writer, vectors: fx.Node, stack: fx.Node, expert: int, *, turned: bool) -> fx.Node:
    """All vectors with one matrix of a stack, (outputs, inputs) or turned."""
    weight = write.call(_ATEN.select.int, stack, 0, expert)
    rows = write.call(_ATEN.transpose.int, weight, 0, 1) if turned else weight
    made = write.call(_ATEN.linear.default, vectors, rows)
    made.meta[EXPERT] = expert
    return made


def _chosen(constants: Constants, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """(stack of weights, index) of an operation that picks matrices along the first dimension."""
    if node.op != "call_function" or op_name(node) not in ("index", "index_select"):
        return None
    stack, picked = node.args[0], node.args[-1]
    if op_name(node) == "index":
        assert isinstance(picked, list | tuple)
        picked = picked[0] if len(picked) == 1 else None
    elif node.args[1] != 0:
        return None
    found = constants.find(stack)
    if found is None or found[0].dim() != 3 or not isinstance(stack, fx.Node) or not isinstance(picked, fx.Node):
        return None
    value = picked.meta.get("val")
    whole = isinstance(value, Tensor) and value.dim() == 1 and value.dtype is torch.int64
    return (stack, picked) if whole and found[0].is_floating_point() else None


def _turned(write: Writer, operand: fx.Node) -> fx.Node:
    return write.call(_ATEN.transpose.int, operand, -2, -1)


def _weight(write: Writer, constants: Constants, operand: Any) -> fx.Node | None:
    """The node of the weight that an operand is, without dimensions of one in front, or repeats for each sample."""
    node = operand
    while isinstance(node, fx.Node) and constants.find(node) is None:
        if node.op != "call_function" or not _repeats(write, node, constants.find(node.args[0])):
            return None
        node = node.args[0]
    found = constants.find(node)
    if found is None or not found[0].is_floating_point():
        return None
    value: Tensor = found[0]
    while value.dim() > 2 and value.shape[0] == 1:
        value, node = value[0], write.call(_ATEN.squeeze.dim, node, 0)
    assert isinstance(node, fx.Node)
    return node


def _repeats(write: Writer, node: fx.Node, found: tuple[Tensor, str] | None) -> bool:
    """Whether a node is a weight of one or two dimensions spread over dimensions in front."""
    if op_name(node) not in ("expand", "repeat") or found is None:
        return False
    value, spread = found[0], write.shape(node)
    matrix = [size for size in value.shape[:-2] if size != 1] == []
    return matrix and value.dim() >= 2 and tuple(spread[-2:]) == tuple(value.shape[-2:])


_REWRITERS: dict[str, Callable[[Writer, Constants], None]] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), _product),
    **dict.fromkeys(("addmm", "baddbmm"), _added_product),
}
