"""Finding the matrix operations: products of an activation with a weight that is known before the network runs."""

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from aimc_compiler.graph.arguments import arguments, spread
from aimc_compiler.graph.ir import EXPERT, attribute_name, constant_name, constant_path, op_name
from aimc_compiler.graph.matrix import MatrixKind, MatrixModule
from aimc_compiler.graph.origin import Origin, read_origin
from aimc_compiler.graph.transposed import Overlap, products_weight

_LAYER = re.compile(r"^(Parametrized)?(NonDynamicallyQuantizable)?(Lazy)?(Linear|Conv[123]d|ConvTranspose[123]d)$")
_TRANSPOSITIONS = frozenset(["t", "numpy_T", "mT", "transpose", "permute", "swapaxes"])
_KINDS: dict[int, MatrixKind] = {1: "conv1d", 2: "conv2d", 3: "conv3d"}
_RESHAPINGS = frozenset(
    ["reshape", "view", "flatten", "unflatten", "permute", "transpose", "squeeze", "unsqueeze", "select"]
)
_RENAMINGS = frozenset(["detach", "alias", "contiguous", "clone", "lift_fresh_copy"])


class Constants:
    """Values of nodes that depend on parameters and buffers alone, each with the path that identifies it."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.known: dict[fx.Node, tuple[Tensor, str] | None] = {}

    def find(self, node: Any) -> tuple[Tensor, str] | None:
        """(value, identity) of a constant node, None for anything else."""
        if not isinstance(node, fx.Node):
            return None
        if node not in self.known:
            self.known[node] = self._evaluate(node)
        return self.known[node]

    def _evaluate(self, node: fx.Node) -> tuple[Tensor, str] | None:
        if node.op == "get_attr":
            value = getattr(self.root, str(node.target))
            return (value, constant_path(str(node.target))) if isinstance(value, Tensor) else None
        if node.target is operator.getitem:
            return self._part(node)
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.all_input_nodes:
            return None
        value = self._call(node)
        return (value, self._identity(node, value)) if isinstance(value, Tensor) else None

    def _part(self, node: fx.Node) -> tuple[Tensor, str] | None:
        """One of several results of an operation on constants: a part of a packed weight."""
        source, index = node.args
        if not isinstance(source, fx.Node) or not isinstance(source.target, torch._ops.OpOverload):
            return None
        values = self._call(source) if source.all_input_nodes else None
        if not isinstance(values, tuple | list) or not isinstance(index, int):
            return None
        packed = self.find(source.all_input_nodes[0])
        assert packed is not None
        return values[index], f"{packed[1]}|{op_name(source)}{source.args[1:]}[{index}]"

    def _call(self, node: fx.Node) -> Any:
        """What an operation gives whose operands are all constants; None where one is not."""
        assert isinstance(node.target, torch._ops.OpOverload)
        found = {source: self.find(source) for source in node.all_input_nodes}
        if any(value is None for value in found.values()) or torch.Tag.nondeterministic_seeded in node.target.tags:
            return None

        def value_of(source: fx.Node) -> Any:
            known = found[source]
            return known[0] if known is not None else None

        args, kwargs = fx.map_arg(node.args, value_of), fx.map_arg(node.kwargs, value_of)
        with torch.no_grad():
            return node.target(*args, **kwargs)

    def _identity(self, node: fx.Node, value: Tensor) -> str:
        """The parameter's own path where the value is it or its transpose, else one that names the computation.

        The same rearrangement of one parameter has the same path wherever it is made.
        """
        source = self.find(node.all_input_nodes[0])
        if source is not None and len(node.all_input_nodes) == 1:
            if op_name(node) in _RENAMINGS:
                return source[1]
            if op_name(node) in _TRANSPOSITIONS and value.dim() == source[0].dim() == 2:
                # A square weight has its transpose's shape, and permute may leave all where it is: strides tell.
                return transposed(source[1]) if _layout(value) == _layout(source[0].t()) else source[1]
            if op_name(node) in _RESHAPINGS:
                return f"{source[1]}|{op_name(node)}{node.args[1:]}"
        return f"{read_origin(node).path or '.'}:{node.name}"


def _layout(value: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(value.shape), value.stride()


def transposed(identity: str) -> str:
    return identity.removesuffix(".T") if identity.endswith(".T") else f"{identity}.T"


class Extraction:
    """Replaces matrix operations by calls of ``MatrixModule``, one pass over the graph."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        self.root = root
        self.graph = graph
        self.constants = Constants(root)
        self.weights: dict[str, nn.Parameter] = {}
        self.uses: dict[str, int] = {}

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if node.op == "call_function" and (recognise := _RECOGNISERS.get(op_name(node))):
                recognise(self, node)

    def replace(self, node: fx.Node, module: MatrixModule, x: fx.Node) -> None:
        """Put a call of ``module`` on ``x`` in the place of ``node``."""
        self.put(node, self.insert(node, module, x))

    def put(self, node: fx.Node, other: fx.Node) -> None:
        """Let ``other``, which gives what ``node`` does, take its place."""
        other.meta = dict(node.meta)
        other.meta["origin"] = read_origin(node)
        node.replace_all_uses_with(other)
        self.graph.erase_node(node)

    def insert(self, node: fx.Node, module: MatrixModule, x: fx.Node) -> fx.Node:
        """A call of ``module`` on ``x``, before ``node``, from whose layer it comes."""
        name = self.name(node, module.parameter)
        self.root.add_module(attribute_name(name), module)
        with self.graph.inserting_before(node):
            call = self.graph.create_node("call_module", attribute_name(name), (x,))
        call.meta["origin"] = read_origin(node)
        return call

    def name(self, node: fx.Node, parameter: str) -> str:
        """A new name for a matrix operation that ``node`` makes with this weight."""
        own = _name(read_origin(node), parameter)
        return self.unique(f"{own}.{node.meta[EXPERT]}" if EXPERT in node.meta else own)

    def constant(self, node: fx.Node, path: str, value: Tensor) -> fx.Node:
        """A constant of our own, before ``node``; one of a path, which says what it is."""
        name = constant_name(path)
        if not hasattr(self.root, name):
            self.root.register_buffer(name, value)
        with self.graph.inserting_before(node):
            held = self.graph.get_attr(name)
        held.meta["origin"] = read_origin(node)
        return held

    def weight(self, value: Tensor, identity: str) -> nn.Parameter:
        """One Parameter a matrix, however many operations use it."""
        if identity not in self.weights:
            held = value.detach().contiguous()
            # A weight of one row is its own transpose in memory; artifacts keep each weight once.
            if any(held.data_ptr() == other.data_ptr() for other in self.weights.values()):
                held = held.clone()
            self.weights[identity] = nn.Parameter(held, requires_grad=False)
        return self.weights[identity]

    def bias(self, node: Any, outputs: int) -> tuple[bool, Tensor | None]:
        """(usable, value) of a bias argument: None, or a constant of one value an output."""
        if node is None:
            return True, None
        found = self.constants.find(node)
        if found is None or found[0].numel() != outputs:
            return False, None
        return True, found[0].detach().reshape(-1)

    def unique(self, name: str) -> str:
        """The name, with "@2" and so on from its second use on."""
        self.uses[name] = self.uses.get(name, 0) + 1
        return name if self.uses[name] == 1 else f"{name}@{self.uses[name]}"


def _name(origin: Origin, parameter: str) -> str:
    """The module path of a layer; of a functional call, the enclosing path and the parameter's own name."""
    if origin.path and _LAYER.match(origin.module):
        return origin.path
    own = parameter.partition("|")[0].removesuffix(".T").removesuffix(".weight")
    if not origin.path or parameter.startswith(f"{origin.path}."):
        return own
    return f"{origin.path}.{own.rpartition('.')[2]}"


def _linear(extraction: Extraction, node: fx.Node) -> None:
    values = arguments(node)
    _product(extraction, node, values["input"], values["weight"], values.get("bias"), transpose=False)


def _matmul(extraction: Extraction, node: fx.Node) -> None:
    values = arguments(node)
    left, right = values["self"], values.get("other", values.get("mat2"))
    found = extraction.constants.find(right)
    if found is not None and found[0].shape[0] == 1:
        return  # an outer product sums nothing: it stays digital
    _product(extraction, node, left, right, None, transpose=True)


def _addmm(extraction: Extraction, node: fx.Node) -> None:
    values = arguments(node)
    plain = values["alpha"] == 1 and values["beta"] == 1
    # An offset for each vector instead of each output may have as many values.
    if plain and _last_size(extraction, values["self"]) == _last_size(extraction, values["mat2"]):
        _product(extraction, node, values["mat1"], values["mat2"], values["self"], transpose=True)


def _last_size(extraction: Extraction, node: fx.Node) -> int | None:
    found = extraction.constants.find(node)
    return found[0].shape[-1] if found is not None and found[0].dim() else None


def _product(extraction: Extraction, node: fx.Node, x: Any, weight: Any, bias: Any, *, transpose: bool) -> None:
    """``x @ weight`` (transpose) or ``x @ weight.T``, plus bias, where weight and bias are constants and x is not."""
    found = extraction.constants.find(weight)
    if found is None or found[0].dim() != 2 or extraction.constants.find(x) is not None:
        return
    value, identity = (found[0].t(), transposed(found[1])) if transpose else found
    usable, offset = extraction.bias(bias, value.shape[0])
    if usable and value.is_floating_point():
        weight_parameter = extraction.weight(value, identity)
        extraction.replace(node, MatrixModule("linear", identity, weight_parameter, offset), x)


def _convolution(extraction: Extraction, node: fx.Node) -> None:
    values = arguments(node)
    found = extraction.constants.find(values["weight"])
    if found is None:
        return
    usable, bias = extraction.bias(values["bias"], found[0].shape[0])
    if not usable:
        return
    spatial = found[0].dim() - 2
    kind = _KINDS[spatial]
    dilation = spread(values["dilation"], spatial)
    x, padding = _padded(extraction, node, values["padding"], tuple(found[0].shape[2:]), dilation)
    module = MatrixModule(
        kind,
        found[1],
        extraction.weight(*found),
        bias,
        spread(values["stride"], spatial),
        padding,
        dilation,
        values["groups"],
    )
    extraction.replace(node, module, x)


def _transposed_convolution(extraction: Extraction, node: fx.Node) -> None:
    values = arguments(node)
    found = extraction.constants.find(values["weight"])
    if found is None or extraction.constants.find(values["input"]) is not None:
        return
    overlap = Overlap.of(node, found[0])
    if not extraction.bias(values["bias"], overlap.outputs)[0]:
        return
    identity = transposed(found[1])
    weight = extraction.weight(products_weight(found[0], values["groups"]), identity)
    single = (1,) * len(overlap.kernel)
    module = MatrixModule(overlap.kind, identity, weight, None, single, (0,) * len(single), single, values["groups"])
    call = extraction.insert(node, module, values["input"])
    path = f"ones/{overlap.outputs}x{'x'.join(map(str, overlap.kernel))}/{found[0].dtype}"
    ones = extraction.constant(node, path.replace("torch.", ""), overlap.single_ones(found[0]))
    with extraction.graph.inserting_before(node):
        added = overlap.add(extraction.graph, call, ones, values["bias"])
    extraction.put(node, added)


def _padded(
    extraction: Extraction, node: fx.Node, padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[fx.Node, tuple[int, ...]]:
    """(input, symmetric padding). "same" pads one more at the end where the total is odd: that one becomes a node."""
    x = arguments(node)["input"]
    if padding == "valid":
        return x, (0,) * len(kernel)
    if padding != "same":
        return x, spread(padding, len(kernel))
    totals = [spread * (size - 1) for size, spread in zip(kernel, dilation, strict=True)]
    if any(total % 2 for total in totals):
        ends = [end for total in reversed(totals) for end in (0, total % 2)]
        with extraction.graph.inserting_before(node):
            x = extraction.graph.call_function(torch.ops.aten.constant_pad_nd.default, (x, ends))
        x.meta["origin"] = read_origin(node)
    return x, tuple(total // 2 for total in totals)


_RECOGNISERS: dict[str, Callable[[Extraction, fx.Node], None]] = {
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "conv_transpose1d": _transposed_convolution,
    "conv_transpose2d": _transposed_convolution,
    "conv_transpose3d": _transposed_convolution,
}
