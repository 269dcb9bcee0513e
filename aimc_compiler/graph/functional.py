"""Rewriting operations in place as operations that return a new tensor.

``relu_(x)`` becomes ``relu(x)``, and what reads ``x`` afterwards reads the result instead. That is right only where
nothing else sees the memory of ``x``: no view of it, and no tensor it is a view of, is read afterwards, and it is
neither an input nor a parameter.
"""

import operator
from typing import Any

import torch
from torch import fx

from aimc_compiler.graph.ir import op_name

#: Operations that may return their input or a view of it though their schema does not say so.
_MAY_ALIAS = frozenset(
    [
        *("reshape", "flatten", "unflatten", "contiguous", "to", "type_as", "chunk", "split", "split_with_sizes"),
        *("tensor_split", "unbind", "movedim", "swapaxes", "expand_as", "view_as", "reshape_as", "narrow", "dropout"),
        *("feature_dropout", "squeeze", "t", "numpy_T", "mT"),
    ]
)


def replace_in_place(graph: fx.Graph) -> list[fx.Node]:
    """Rewrite every operation in place; returns those that cannot be, because their memory is seen elsewhere."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    stuck = []
    for node in list(graph.nodes):
        if not _in_place(node):
            continue
        functional = _functional(node.target)
        operand = node.args[0]
        if functional is None or _seen_elsewhere(node, operand, order):
            stuck.append(node)
            continue
        node.target = functional
        node._rename(op_name(node))
        operand.replace_all_uses_with(node, lambda user, node=node: user is not node and order[user] > order[node])
    return stuck


def _in_place(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _functional(target: Any) -> Any:
    name = target._schema.name.partition("::")[2]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    return getattr(packet, target._overloadname, None) if packet is not None else None


def _seen_elsewhere(node: fx.Node, operand: fx.Node, order: dict[fx.Node, int]) -> bool:
    family = _aliases(operand, order[node], order)
    if any(member.op in ("placeholder", "get_attr") for member in family):
        return True
    return any(order[user] > order[node] for member in family if member is not operand for user in member.users)


def _aliases(operand: fx.Node, before: int, order: dict[fx.Node, int]) -> list[fx.Node]:
    """Nodes that may share memory with ``operand`` when the node at position ``before`` runs, itself included."""
    family, frontier = [operand], [operand]
    while frontier:
        member = frontier.pop()
        related = [*_sources(member), *(user for user in member.users if member in _sources(user))]
        for node in related:
            if order[node] < before and node not in family:
                family.append(node)
                frontier.append(node)
    return family


def _sources(node: fx.Node) -> list[fx.Node]:
    """Nodes whose memory the result of ``node`` may be."""
    if node.op != "call_function":
        return []
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return []
    if node.target is operator.getitem:
        # Results of an operation that makes new tensors (topk) share nothing.
        return [source] if _sources(source) else []
    return [source] if _returns_alias(node.target) or op_name(node) in _MAY_ALIAS else []


def _returns_alias(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)
