"""Several entries of one network: calls of other shapes or methods, captured one by one, with what they share made one.

A matrix is its parameter: entries that multiply by one parameter multiply by one matrix. An operation is its module
path, its matrix and the number of its use there: the third use of ``head`` in one entry is that of every other, under
one name, so that what belongs to an operation (rules, input ranges, corrections) is the same in all of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from aimc_compiler.errors import AimcError
from aimc_compiler.graph.batch import BatchDim
from aimc_compiler.graph.capture import capture
from aimc_compiler.graph.ir import Graph, attribute_name, make_module, matrix_name
from aimc_compiler.graph.lower import lower
from aimc_compiler.graph.matrix_cost import rule_path
from aimc_compiler.graph.partition import Partition
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.records import record
from aimc_compiler.workload.ir import MatrixKey, Workload


@record
class Entry:
    """One way to call a network: an example of the call.

    inputs, kwargs: its positional and keyword inputs, of the shapes that are compiled for; batch_dim: as of
    ``compile``; method: the network's method that is called.

    Example:
        >>> Entry(inputs=(tokens,), method="encode")  # doctest: +SKIP
    """

    inputs: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    batch_dim: BatchDim = 0
    method: str = "forward"


def capture_entries(model: nn.Module, entries: Mapping[str, Entry]) -> dict[str, Graph]:
    """The Graph of every entry, in order; weights and constants that entries share are held once.

    Raises what ``capture`` raises, with the name of the entry where there are several.
    """
    graphs: dict[str, Graph] = {}
    shared = _Shared()
    for name, entry in entries.items():
        graph = _captured(model, name, entry, several=len(entries) > 1)
        graphs[name] = shared.unify(graph, name)
    return graphs


def lower_entries(graphs: Sequence[Graph], partition: Partition) -> list[Workload]:
    """The Workload of every entry; a matrix is called after its first use in the first entry that has it."""
    names: dict[MatrixKey, str] = {}
    workloads = []
    for graph in graphs:
        workload = lower(graph, partition, names)
        workloads.append(workload)
        for matrix in workload.matrices:
            names.setdefault(matrix.key, matrix.name)
    return workloads


def _captured(model: nn.Module, name: str, entry: Entry, *, several: bool) -> Graph:
    def run() -> Graph:
        return capture(model, entry.inputs, entry.kwargs, entry.batch_dim, method=entry.method)

    if not several:
        return run()
    try:
        graph = run()
    except AimcError as error:
        raise type(error)(f"entry {name!r}: {error}") from error
    graph.name = f"{graph.name}:{name}"
    return graph


class _Shared:
    """What the entries so far hold: weights by parameter, constants and operations by name."""

    def __init__(self) -> None:
        self.weights: dict[str, nn.Parameter] = {}
        self.constants: dict[str, Tensor] = {}
        self.uses: dict[tuple[str, MatrixKey, int], str] = {}
        self.taken: set[str] = set()

    def unify(self, graph: Graph, entry: str) -> Graph:
        """The graph with the weights, the constants and the names of those before it."""
        self._share_weights(graph, entry)
        for node in graph.module.graph.find_nodes(op="get_attr"):
            name = str(node.target)
            value = getattr(graph.module, name)
            known = self.constants.setdefault(name, value)
            if known is not value and same_values(known, value):
                setattr(graph.module, name, known)
        names = self._names(graph)
        return graph if all(old == new for old, new in names.items()) else _renamed(graph, names)

    def _share_weights(self, graph: Graph, entry: str) -> None:
        found: dict[str, str] = {}
        for module in graph.matrix_modules().values():
            parameter = module.parameter
            if parameter not in found:
                found[parameter] = self._identity(parameter, module.weight, entry)
            module.parameter = found[parameter]
            module.weight = self.weights.setdefault(module.parameter, module.weight)

    def _identity(self, parameter: str, weight: nn.Parameter, entry: str) -> str:
        """The parameter of a weight over all entries.

        What is computed from parameters is named after a node of the graph, which another entry may number otherwise:
        there the values decide.
        """
        known = self.weights.get(parameter)
        if known is not None and same_values(known, weight):
            return parameter
        path, computed, _ = parameter.rpartition(":")
        for other, held in self.weights.items():
            if computed and other.rpartition(":")[0] == path and not held.is_meta and same_values(held, weight):
                return other
        return parameter if known is None else f"{parameter}@{entry}"

    def _names(self, graph: Graph) -> dict[str, str]:
        """The name of every matrix operation over all entries, by the one that it has."""
        counts: Counter[tuple[str, MatrixKey]] = Counter()
        names: dict[str, str] = {}
        for name, module in graph.matrix_modules().items():
            path, key = rule_path(name), module.key
            counts[path, key] += 1
            use = (path, key, counts[path, key])
            if use not in self.uses:
                self.uses[use] = self._free(name, path)
                self.taken.add(self.uses[use])
            names[name] = self.uses[use]
        return names

    def _free(self, name: str, path: str) -> str:
        number = 1
        while name in self.taken:
            number += 1
            name = f"{path}@{number}"
        return name


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are alike in form and, unless they have no values, in every number."""
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    memory = [(each.data_ptr(), each.stride()) for each in (one, other)]
    return one.is_meta or memory[0] == memory[1] or torch.equal(one, other)


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The same graph with its matrix operations under other names."""
    nodes = fx.Graph()
    nodes.output(nodes.graph_copy(graph.module.graph, {}))
    root = nn.Module()
    for old, node in zip(graph.nodes, nodes.nodes, strict=True):
        node.meta = dict(old.meta)
        if node.op == "get_attr":
            root.register_buffer(str(node.target), getattr(graph.module, str(node.target)))
        elif node.op == "call_module":
            module = graph.called(old)
            if isinstance(module, RecurrentModule):
                module.names = {role: names[name] for role, name in module.names.items()}
            else:
                node.target = attribute_name(names[matrix_name(old)])
            root.add_module(str(node.target), module)
    return Graph(
        name=graph.name,
        module=make_module(root, nodes),
        in_spec=graph.in_spec,
        out_spec=graph.out_spec,
        batch=graph.batch,
        unpriced=graph.unpriced,
    )
