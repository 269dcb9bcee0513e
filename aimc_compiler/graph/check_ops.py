"""Checking that every operation has its place: matrix operations are mapped, all others have a cost class."""

import torch
from torch import fx

from aimc_compiler.chip.costs import COST_CLASSES
from aimc_compiler.errors import UnsupportedOpError
from aimc_compiler.graph.ir import op_name
from aimc_compiler.graph.ops import NOT_MAPPED, NOT_SPLIT, OP_COSTS
from aimc_compiler.graph.origin import read_origin
from aimc_compiler.graph.recurrent import GATES
from aimc_compiler.graph.values import TensorValue, value_of

_RUN_TIME_WEIGHT = frozenset(["linear", "conv1d", "conv2d", "conv3d"])


def check_operations(graph: fx.Graph, *, allow_unpriced: bool) -> tuple[str, ...]:
    """Operations without a cost class, in words, where the caller allows them.

    Raises UnsupportedOpError listing all operations that have no place.
    """
    faults = operation_faults(graph)
    unpriced = tuple(_line(node, fault) for node, (fault, priceless) in faults.items() if priceless)
    unplaced = [_line(node, fault) for node, (fault, priceless) in faults.items() if not priceless]
    if unplaced or (unpriced and not allow_unpriced):
        raise UnsupportedOpError("\n".join([*unplaced, *([] if allow_unpriced else unpriced)]))
    return unpriced


def operation_faults(graph: fx.Graph) -> dict[fx.Node, tuple[str, bool]]:
    """(why, whether its price alone is missing) of every operation that has no place, in execution order."""
    faults = {}
    for node in run_time_operations(graph):
        name = op_name(node)
        if _is_empty(node):
            faults[node] = (_EMPTY, False)
        elif node.op == "call_function" and _counts_by_values(node):
            faults[node] = (_COUNTED, False)
        elif node.op == "call_function" and name not in OP_COSTS and name != "getitem":
            fault = _fault(name)
            faults[node] = (fault or _UNPRICED, fault is None)
    return faults


def run_time_operations(graph: fx.Graph) -> tuple[fx.Node, ...]:
    """Operations that compute tensors from the inputs, in execution order; the others are constants and sizes."""
    depends = input_dependent(graph)
    calls = (node for node in graph.nodes if node.op in ("call_function", "call_module"))
    return tuple(node for node in calls if node in depends and _makes_tensors(node))


def _line(node: fx.Node, fault: str) -> str:
    return f"{node.target} at {read_origin(node)}: {fault}"


_UNPRICED = (
    f"has no cost class ({', '.join(COST_CLASSES)}): write it with operations that have one, add it to the table in "
    "aimc_compiler/graph/ops.py, or allow it unpriced (allow_unpriced=True)"
)


#: How many elements it finds depends on values, so no program of fixed size can follow it.
_COUNTED = (
    "how many elements it gives depends on the values of its input, and a chip's program is the same for all inputs: "
    "write it with a mask that keeps all elements, as torch.where(mask, x, 0); of a mixture of experts, let every "
    "expert multiply all tokens and weigh its outputs by zero where the router did not choose it"
)


#: A tensor of size zero has no windows to pass on, and a matrix without rows or columns no cells.
_EMPTY = (
    "gives a tensor without elements, of which a chip has nothing to compute: leave it out (an empty slice, a layer of "
    "width 0)"
)


def _is_empty(node: fx.Node) -> bool:
    value = value_of(node)
    return isinstance(value, TensorValue) and 0 in value.shape


def _counts_by_values(node: fx.Node) -> bool:
    """Whether the shape of a result depends on values: nonzero, where of a condition alone, an index that is a mask."""
    name = op_name(node)
    if name == "where":
        return len(node.args) == 1
    if name == "one_hot":
        return len(node.args) < 2 or bool(node.args[1] == -1)
    if name == "index":
        return any(_is_mask(index) for index in node.all_input_nodes[1:])
    return bool(torch.Tag.dynamic_output_shape in getattr(node.target, "tags", ()))


def _is_mask(index: fx.Node) -> bool:
    value = value_of(index)
    return isinstance(value, TensorValue) and value.dtype in ("bool", "uint8")


def _fault(name: str) -> str | None:
    """Why an operation cannot be placed at all; None where only its price is missing."""
    if name in NOT_MAPPED:
        return "mapping of this kind of matrix operation is not built yet; linear layers and convolutions are"
    if name in GATES:
        return (
            "its weights are computed from the input, or its sequence is a constant or packed: give it weights of its "
            "own, and sequences of one length that depend on an input"
        )
    if name in NOT_SPLIT:
        return "is several priced operations in one that the compiler does not take apart; write the products out"
    if name in _RUN_TIME_WEIGHT:
        return (
            "its weight or bias is computed from the input, so it cannot be programmed: write it as a product of "
            "activations (torch.matmul)"
        )
    return None


def input_dependent(graph: fx.Graph) -> frozenset[fx.Node]:
    """Nodes that depend on an input's values; the rest are constants and sizes, which cost nothing at run time."""
    depends: set[fx.Node] = set()
    for node in graph.nodes:
        reads = any(source in depends and _makes_tensors(source) for source in node.all_input_nodes)
        if node.op == "placeholder" or reads:
            depends.add(node)
    return frozenset(depends)


def _makes_tensors(node: fx.Node) -> bool:
    return isinstance(value_of(node), TensorValue | tuple)
