"""The Workload as a networkx graph, for path, cut and placement algorithms."""

from typing import TYPE_CHECKING, Any

from aimc_compiler.workload.ir import Workload

if TYPE_CHECKING:
    import networkx


def to_networkx(workload: Workload) -> "networkx.DiGraph[Any]":
    """A directed graph of operations ("input" nodes stand for the network's inputs).

    Node attribute ``op``: the MatrixOp or DigitalOp (None for inputs). Edge attributes: ``tensor`` and its ``bytes``,
    and ``feedback=True`` where the reader does not stand behind the maker: without those edges there is no cycle.
    """
    import networkx

    graph: networkx.DiGraph[Any] = networkx.DiGraph(name=workload.name)
    shapes = {tensor.name: tensor for tensor in workload.tensors}
    producer = {name: f"input {name}" for name in workload.inputs}
    for name in producer.values():
        graph.add_node(name, op=None)
    for op in workload.ops:
        graph.add_node(op.name, op=op)
        producer[op.output] = op.name
    made = set(workload.inputs)
    for op in workload.ops:
        for name in op.inputs:
            feedback = {} if name in made else {"feedback": True}
            graph.add_edge(producer[name], op.name, tensor=name, bytes=shapes[name].bytes, **feedback)
        made.add(op.output)
    return graph
