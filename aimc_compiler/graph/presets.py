"""Rules by name: which matrices published studies keep digital.

Rasch et al., Nat. Commun. 14, 5282 (2023), map convolutional networks for ImageNet either whole or with the first
convolution and the last linear layer digital, and of transformers the linear layers, with embeddings digital.
A preset is written out for a network as rules on its own module paths, so there is still one mechanism.
"""

from collections.abc import Callable, Sequence
from glob import escape
from typing import Any

from aimc_compiler.errors import RuleError
from aimc_compiler.graph.ir import Graph, constant_path, op_name
from aimc_compiler.graph.matrix_cost import MatrixCost, joint_costs

Pair = tuple[str, dict[str, Any]]
#: Of every entry of a network, in order: most networks have one.
Graphs = Sequence[Graph]


def preset_rules(name: str, graphs: Graphs) -> list[Pair]:
    """The rules of a preset for this network, narrower ones first. Raises RuleError where the network is not of its
    kind; ``name`` must be one of ``PRESETS``.

    >>> preset_rules("first-last-digital", [graph])[1]  # doctest: +SKIP
    ('head', {'analog': False, 'reason': 'the last linear layer'})
    """
    return PRESETS[name](graphs)


def _all_analog(graphs: Graphs) -> list[Pair]:
    return [("*", {"analog": True, "reason": "every matrix"})]


def _first_last_digital(graphs: Graphs) -> list[Pair]:
    costs = list(joint_costs(graphs).values())
    convolutions = [cost for cost in costs if cost.kind != "linear"]
    linear = [cost for cost in costs if cost.kind == "linear"]
    if not convolutions or not linear:
        lacking = "convolution" if not convolutions else "linear layer"
        raise RuleError(
            f"preset 'first-last-digital' keeps the first convolution and the last linear layer digital, but "
            f"{_network(graphs)} has no {lacking}: write rules on module paths, as in {{'head': {{'analog': False}}}}"
        )
    return [
        *_digital(costs, convolutions[0], "the first convolution"),
        *_digital(costs, linear[-1], "the last linear layer"),
        *_rest(costs, [convolutions[0], linear[-1]], "between the first convolution and the last linear layer"),
    ]


def _transformer(graphs: Graphs) -> list[Pair]:
    costs = list(joint_costs(graphs).values())
    embeddings = _embedding_weights(graphs)
    convolutions = [cost for cost in costs if cost.kind != "linear"]
    tied = [cost for cost in costs if cost.kind == "linear" and _source(cost) in embeddings]
    if len(convolutions) + len(tied) == len(costs):
        raise RuleError(
            f"preset 'transformer' puts linear layers on tiles, but {_network(graphs)} has none with a weight of its "
            "own: write rules on module paths, or leave rules out for every matrix on tiles"
        )
    return [
        *(pair for cost in convolutions for pair in _digital(costs, cost, "a convolution, as of patch embeddings")),
        *(pair for cost in tied for pair in _digital(costs, cost, "shares the weight of an embedding")),
        *_rest(costs, [*convolutions, *tied], "a linear layer"),
    ]


def _network(graphs: Graphs) -> str:
    """The class of the network, without the entry."""
    return graphs[0].name.partition(":")[0]


def _digital(costs: list[MatrixCost], kept: MatrixCost, reason: str) -> list[Pair]:
    """Rules for all uses of the matrix of ``kept``."""
    paths = dict.fromkeys(cost.path for cost in costs if cost.matrix.parameter == kept.matrix.parameter)
    return [(escape(path), {"analog": False, "reason": reason}) for path in paths]


def _rest(costs: list[MatrixCost], kept: list[MatrixCost], reason: str) -> list[Pair]:
    """A rule for what is not kept digital, where there is any."""
    digital = {cost.matrix.parameter for cost in kept}
    return [("*", {"analog": True, "reason": reason})] if any(c.matrix.parameter not in digital for c in costs) else []


def _embedding_weights(graphs: Graphs) -> frozenset[str]:
    """Paths of the weights that embeddings look up."""
    nodes = (node for graph in graphs for node in graph.nodes)
    lookups = [node for node in nodes if node.op == "call_function" and op_name(node) == "embedding"]
    sources = [source for node in lookups for source in node.all_input_nodes if source.op == "get_attr"]
    return frozenset(constant_path(str(source.target)) for source in sources)


def _source(cost: MatrixCost) -> str:
    """The parameter that a weight is, or is the transpose of."""
    return cost.matrix.parameter.removesuffix(".T")


#: name -> rules for a network.
PRESETS: dict[str, Callable[[Graphs], list[Pair]]] = {
    "all-analog": _all_analog,
    "first-last-digital": _first_last_digital,
    "transformer": _transformer,
}
