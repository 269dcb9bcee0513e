"""The Graph: a captured network in normal form.

Its nodes are inputs, constants, *matrix operations* (calls of a ``MatrixModule``), *loops* of recurrent layers (calls
of a ``RecurrentModule``, which holds matrix operations too) and *digital operations* (calls of ATen functions, none of
them in place). It runs: ``graph(x)`` gives what the network gives.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import DataError, InternalError
from aimc_compiler.graph.matrix import MatrixModule
from aimc_compiler.graph.origin import Origin
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.graph.values import TensorValue, Value, value_of
from aimc_compiler.records import record

#: Notes on nodes: which of a stack of matrices an operation multiplies, where an index chooses among their results; and
#: that a node only puts these side by side, for the choice, which moves nothing.
EXPERT, BESIDE = "expert", "beside"


@record
class BatchRule:
    """How a batch is made of samples.

    inputs, outputs: the batch dimension of each flat input and output (None: it has none). dynamic: any number of
    samples; otherwise the whole example is one sample and inputs must have its shape. reason: why, in words.
    """

    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    dynamic: bool
    reason: str


class Graph:
    """A network in normal form. Not to be changed once made: ``with_modules`` gives another one.

    name: class of the network; module: flat inputs to a flat tuple of outputs; in_spec, out_spec: how the network's
    arguments and results nest; batch: what a sample is; unpriced: operations without a cost class that the caller
    allowed, in words.
    """

    def __init__(
        self,
        *,
        name: str,
        module: fx.GraphModule,
        in_spec: pytree.TreeSpec,
        out_spec: pytree.TreeSpec,
        batch: BatchRule,
        unpriced: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.module = module
        self.in_spec = in_spec
        self.out_spec = out_spec
        self.batch = batch
        self.unpriced = unpriced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's outputs, nested like its own. Raises DataError for inputs unlike the example's."""
        return self.unflatten(self.module(*self.flatten(*args, **kwargs)))

    def flatten(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The flat inputs of a call."""
        names = self.keyword_names
        if set(kwargs) == set(names):
            kwargs = {name: kwargs[name] for name in names}
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if spec != self.in_spec:
            expected = ", ".join(node.name for node in self.module.graph.find_nodes(op="placeholder"))
            raise DataError(
                f"{self.name}: called with {len(args)} positional inputs and keywords {sorted(kwargs)}, but captured "
                f"with {self.positional_count} and {sorted(names)}: give the inputs as in the example, nested alike "
                f"({expected})"
            )
        for node, leaf in zip(self.module.graph.find_nodes(op="placeholder"), leaves, strict=True):
            fault = _input_fault(value_of(node), leaf)
            if fault:
                raise DataError(f"{self.name}: input {node.name} {fault}")
        return tuple(leaves)

    def unflatten(self, outputs: Any) -> Any:
        """Outputs nested like the network's, from the flat ones."""
        return pytree.tree_unflatten(list(outputs), self.out_spec)

    @property
    def positional_count(self) -> int:
        """Number of positional arguments of the network."""
        return int(self.in_spec.child(0).num_children)

    @property
    def keyword_names(self) -> tuple[str, ...]:
        """Keyword arguments of the network, in the order of the example."""
        return tuple(self.in_spec.child(1).context or ())

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """All nodes in execution order."""
        return tuple(self.module.graph.nodes)

    def called(self, node: fx.Node) -> nn.Module:
        """The module that a node calls."""
        return self.module.get_submodule(str(node.target))

    @property
    def has_values(self) -> bool:
        """Whether its weights are there: on the meta device they are shapes alone."""
        return not any(tensor.is_meta for tensor in chain(self.module.parameters(), self.module.buffers()))

    def matrix_nodes(self) -> dict[str, fx.Node]:
        """Nodes of the matrix operations by name, in execution order; those of a loop have its node."""
        return {name: node for node in self.nodes if node.op == "call_module" for name in self.held(node)}

    def held(self, node: fx.Node) -> dict[str, nn.Module]:
        """The matrix operations of a call by name: itself, or those of a loop."""
        module = self.called(node)
        return module.parts if isinstance(module, RecurrentModule) else {matrix_name(node): module}

    def matrix_modules(self) -> dict[str, MatrixModule]:
        """Matrix operations by name, in execution order. Raises InternalError where ``with_modules`` replaced one."""
        modules = {}
        for name, node in self.matrix_nodes().items():
            module = self.held(node)[name]
            if not isinstance(module, MatrixModule):
                raise InternalError(f"{self.name}: {name!r} was replaced by a {type(module).__name__}")
            modules[name] = module
        return modules

    def sample_count(self, *args: Any, **kwargs: Any) -> int:
        """Samples in the inputs of a call: the size of their batch dimension, or 1 where the example is the sample."""
        if not self.batch.dynamic:
            return 1
        pairs = zip(self.flatten(*args, **kwargs), self.batch.inputs, strict=True)
        return next(int(leaf.shape[dim]) for leaf, dim in pairs if dim is not None)

    def with_modules(self, modules: Mapping[str, nn.Module]) -> "Graph":
        """The same graph with other modules for the named matrix operations. The rest is shared, not copied."""
        known = self.matrix_nodes()
        unknown = [name for name in modules if name not in known]
        if unknown:
            raise InternalError(f"{self.name} has no matrix operations {unknown}; there are {list(known)}")
        twin = nn.Module()
        for node in self.module.graph.find_nodes(op="call_module"):
            module = self.called(node)
            if isinstance(module, RecurrentModule):
                twin.add_module(str(node.target), module.with_parts(modules))
            else:
                twin.add_module(str(node.target), modules.get(matrix_name(node), module))
        for node in self.module.graph.find_nodes(op="get_attr"):
            twin.register_buffer(str(node.target), getattr(self.module, str(node.target)))
        return Graph(
            name=self.name,
            module=make_module(twin, self.module.graph),
            in_spec=self.in_spec,
            out_spec=self.out_spec,
            batch=self.batch,
            unpriced=self.unpriced,
        )

    def __str__(self) -> str:
        rule = self.batch.reason
        return "\n".join([f"graph {self.name}  # {rule}", *(f"  {line}" for line in _lines(self))])


def _input_fault(value: Value, leaf: Any) -> str:
    """Why an input is not one that the network was captured for; "" where it is."""
    if not isinstance(value, TensorValue):
        if isinstance(leaf, Tensor) or leaf != value:
            return f"was {value!r} when captured, which is built into the graph, and is {leaf!r} now: capture again"
        return ""
    if not isinstance(leaf, Tensor):
        return f"was a tensor when captured and is a {type(leaf).__name__} now: give a tensor"
    dtype = str(leaf.dtype).removeprefix("torch.")
    if not _same_kind(value.dtype, leaf.dtype):
        return f"is {dtype}, but the network was captured with {value.dtype}: give x.to(torch.{value.dtype})"
    found = tuple(leaf.shape)
    free = tuple(size if axis != value.batch else -1 for axis, size in enumerate(found))
    expected = tuple(size if axis != value.batch else -1 for axis, size in enumerate(value.shape))
    if free == expected:
        return ""
    sizes = ", ".join("any" if size < 0 else str(size) for size in expected)
    return f"has shape {found}, but the network was captured for ({sizes}): capture again, or reshape the input"


def _same_kind(captured: str, given: torch.dtype) -> bool:
    """Whether torch takes the one where it took the other: the same type, or both whole numbers."""
    expected: torch.dtype = getattr(torch, captured)
    whole = all(not (kind.is_floating_point or kind.is_complex or kind is torch.bool) for kind in (expected, given))
    return whole or expected is given


def make_module(root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A GraphModule with its own copy of the graph, node annotations included, and root's members."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    for old, new in zip(graph.nodes, copy.nodes, strict=True):
        new.meta = dict(old.meta)
    return fx.GraphModule(root, copy)


def matrix_name(node: fx.Node) -> str:
    """The name of a matrix operation: its module path, with "@2" and so on from the second use of a path on."""
    return attribute_path(str(node.target))


def attribute_name(path: str) -> str:
    """The attribute of the flat module that stands for a dotted path (attributes cannot hold dots)."""
    return path.replace(".", "/")


def attribute_path(name: str) -> str:
    return name.replace("/", ".")


def constant_name(path: str) -> str:
    """The attribute of a parameter or buffer that digital operations read."""
    return f"constant/{attribute_name(path)}"


def constant_path(name: str) -> str:
    return attribute_path(name.removeprefix("constant/"))


def op_name(node: fx.Node) -> str:
    """ "relu" of ``aten.relu.default``, "getitem" of ``operator.getitem``."""
    target = node.target
    schema = getattr(target, "_schema", None)
    return schema.name.partition("::")[2] if schema is not None else str(getattr(target, "__name__", target))


def _lines(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        origin = node.meta.get("origin", Origin())
        note = f"  # {origin.path or '.'} {origin.source}".rstrip() if node.op.startswith("call") else ""
        yield f"{_statement(graph, node)}{note}"


def _statement(graph: Graph, node: fx.Node) -> str:
    if node.op == "output":
        return f"return {_text(node.args[0])}"
    head = f"%{node.name}: {_value_text(node)} ="
    if node.op == "placeholder":
        return f"{head} input"
    if node.op == "get_attr":
        return f"{head} constant {constant_path(str(node.target))!r}"
    arguments = ", ".join([*map(_text, node.args), *(f"{key}={_text(value)}" for key, value in node.kwargs.items())])
    if node.op == "call_module":
        module = graph.called(node)
        if isinstance(module, RecurrentModule):
            return f"{head} {module.mode} {matrix_name(node)!r} ({arguments}) with {', '.join(map(repr, module.parts))}"
        kind = module.kind if isinstance(module, MatrixModule) else type(module).__name__
        return f"{head} {kind} {matrix_name(node)!r} ({arguments})"
    return f"{head} {op_name(node)}({arguments})"


def _text(argument: Any) -> str:
    if isinstance(argument, fx.Node):
        return f"%{argument.name}"
    if isinstance(argument, list | tuple):
        return f"[{', '.join(map(_text, argument))}]"
    return repr(argument)


def _value_text(node: fx.Node) -> str:
    value = value_of(node)
    if isinstance(value, TensorValue):
        return f"{value.dtype}{list(value.shape)}"
    return f"{len(value)} tensors" if isinstance(value, tuple) else f"number {value}"
