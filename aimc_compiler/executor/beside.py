"""The chip and the float network side by side: one walk over the graph that holds both values of every node."""

from collections.abc import Callable
from typing import Any

from torch import fx
from torch.fx.node import map_aggregate

#: (node, value of the float network, value on the chip, the chip's operation given the float input or None where it is
#: the float network's own operation).
Visit = Callable[[fx.Node, Any, Any, Any], None]


class Both:
    """A node's two values, where they may differ."""

    __slots__ = ("chip", "plain")

    def __init__(self, plain: Any, chip: Any) -> None:
        self.plain, self.chip = plain, chip


class SideBySide(fx.Interpreter):
    """Runs two modules of one graph together; a value that nobody reads any more is let go.

    What no operation of the chip has touched is computed once.
    """

    def __init__(self, plain: fx.GraphModule, chip: fx.GraphModule, visit: Visit) -> None:
        super().__init__(plain)
        self.extra_traceback = False  # errors are the user's: they keep their own words
        self._on_chip, self._visit = chip, visit

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return None
        if n.op not in ("call_function", "call_module"):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        apart = any(isinstance(self.env[source], Both) for source in n.all_input_nodes)
        plain_args, plain_kwargs = _side("plain", args), _side("plain", kwargs)
        if n.op == "call_function":
            assert callable(n.target)
            first = second = n.target
        else:
            first = self.fetch_attr(str(n.target))
            second = self._on_chip.get_submodule(str(n.target))
        plain = first(*plain_args, **plain_kwargs)
        own = None if first is second else second(*plain_args, **plain_kwargs)
        chip = plain if own is None else own
        if apart:
            chip = second(*_side("chip", args), **_side("chip", kwargs))
        self._visit(n, plain, chip, own)
        return plain if chip is plain else Both(plain, chip)


def _side(name: str, tree: Any) -> Any:
    """Arguments with one value of each pair."""
    return map_aggregate(tree, lambda leaf: getattr(leaf, name) if isinstance(leaf, Both) else leaf)
