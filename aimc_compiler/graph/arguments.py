"""The arguments of an ATen call by name."""

from typing import Any

import torch
from torch import fx

from aimc_compiler.graph.values import value_of


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an ATen call by their names in its schema, defaults filled in; nodes stay nodes."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    values = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    values |= dict(zip((argument.name for argument in schema), node.args, strict=False))
    return values | dict(node.kwargs)


def number(argument: Any) -> Any:
    """An argument with recorded numbers in place of the nodes that compute them."""

    def recorded(node: fx.Node) -> Any:
        return value_of(node)

    return fx.map_arg(argument, recorded)


def spread(value: Any, count: int) -> tuple[int, ...]:
    """One int a spatial dimension, from an int, one int, or as many as there are."""
    values = [value] if isinstance(value, int) else list(number(value))
    return tuple(values * count if len(values) == 1 else values)
