"""Channels that can be scaled: made by one layer, and read through nothing but positively homogeneous functions.

f(c x) = c f(x) for every c > 0 of each channel holds for ReLU, pooling and what only moves values; then layers before
and behind can share a factor (Nagel et al., arXiv:1906.04721 (2019), section 4.1).
"""

from collections import Counter
from math import prod
from typing import Any

from torch import fx, nn

from aimc_compiler.graph.ir import op_name
from aimc_compiler.graph.origin import network_path, read_origin
from aimc_compiler.records import record

#: Dimensions behind the channels, of each product with a weight.
MATRICES = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}
_NORMS = ("batch_norm", "layer_norm")
_ELEMENTWISE = frozenset(
    [
        "relu",
        "leaky_relu",
        "rrelu",
        "abs",
        "neg",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "dropout",
        "feature_dropout",
    ]
)
_POOLS = {
    f"{adaptive}{kind}_pool{size}d": size
    for adaptive in ("", "adaptive_")
    for kind in ("max", "avg")
    for size in (1, 2, 3)
}
_RESHAPES = ("flatten", "view", "reshape", "_unsafe_view")


@record
class Layout:
    """Where the channels of a value are. dim: which dimension; repeat: entries of it that belong to one channel."""

    dim: int
    repeat: int = 1


@record
class Reader:
    """A product that reads the channels. weight: path of its parameter; groups: of the convolution."""

    node: Any
    weight: str
    groups: int
    layout: Layout


@record
class Source:
    """A layer that makes channels. scaled: paths of the parameters that are divided along their first dimension."""

    node: Any
    path: str
    scaled: tuple[str, ...]
    readers: tuple[Reader, ...]


@record
class Refusal:
    """A layer whose channels cannot be scaled, and why. path: of its module."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path or 'the network'}: {self.reason}"


def find_sources(graph: fx.Graph, model: nn.Module) -> tuple[list[Source], list[Refusal]]:
    """Every layer whose channels can be scaled, and every other one. graph: exported from ``model``, values noted."""
    paths = _Parameters(graph, model)
    sources, refusals = [], []
    for node in graph.nodes:
        name = op_name(node) if node.op == "call_function" else ""
        if name not in MATRICES and name not in _NORMS:
            continue
        if [op_name(user) for user in node.users if user.op == "call_function"] == ["batch_norm"]:
            continue  # the norm behind it makes the channels
        path = read_origin(node).path
        found = _source(node, name, path, paths)
        if isinstance(found, str):
            refusals.append(Refusal(path=path, reason=found))
        else:
            sources.append(found)
    return sources, refusals


def _source(node: fx.Node, name: str, path: str, paths: "_Parameters") -> Source | str:
    """The layer as a source, or why it is none."""
    if name == "layer_norm" and len(node.args[1]) != 1:  # type: ignore[arg-type]
        return "it normalises more than one dimension"
    first = 2 if name == "layer_norm" else 1
    given = [argument for argument in node.args[first : first + 2] if argument is not None]
    if name in _NORMS and len(given) < 2:
        return "the norm has no scale and bias of its own"
    scaled = [paths.own(argument) for argument in given]
    if None in scaled:
        return "a parameter of it is computed from others, or used in several places"
    dims = len(shape_of(node))
    dim = 1 if name == "batch_norm" else dims - 1 - MATRICES.get(name, 0)
    readers = _readers(node, Layout(dim=dim), paths)
    if isinstance(readers, str):
        return readers
    if len({id(reader.node) for reader in readers}) < len(readers):
        return "one layer reads them twice"
    return Source(node=node, path=path, scaled=tuple(filter(None, scaled)), readers=tuple(readers))


def _readers(node: fx.Node, layout: Layout, paths: "_Parameters") -> list[Reader] | str:
    """Every product that reads the channels of a value, or why they cannot be scaled."""
    found: list[Reader] = []
    for user in node.users:
        step = _step(node, user, layout, paths)
        if isinstance(step, str):
            return step
        below = [step] if isinstance(step, Reader) else _readers(user, step, paths)
        if isinstance(below, str):
            return below
        found += below
    return found or "nothing reads its channels"


def _step(node: fx.Node, user: fx.Node, layout: Layout, paths: "_Parameters") -> Layout | Reader | str:
    """Where the channels are behind ``user``, the product that it is, or why neither."""
    if user.op == "output":
        return "its channels are outputs of the network"
    name = op_name(user)
    plain = name.removesuffix("_")
    where = f"{name} at {read_origin(user)}"
    if user.args[0] is not node or (name not in MATRICES and len(user.all_input_nodes) > 1):
        return f"its channels meet others in {where}"
    if name != plain and len(node.users) > 1:
        return f"its channels are changed in place in {where}"
    if name in MATRICES:
        return _reader(node, user, name, layout, paths, where)
    moved = _moved(node, user, plain, layout)
    return moved or f"its channels go through {where}, which is not positively homogeneous in each of them"


def _reader(node: fx.Node, user: fx.Node, name: str, layout: Layout, paths: "_Parameters", where: str) -> Reader | str:
    if layout.dim != len(shape_of(node)) - 1 - MATRICES[name]:
        return f"its channels are not what {where} sums over"
    weight = paths.own(user.args[1])
    if weight is None:
        return f"the weight of {where} is computed from others, or used in several places"
    groups = user.args[6] if len(user.args) > 6 else 1
    assert isinstance(groups, int)
    return Reader(node=user, weight=weight, groups=groups, layout=layout)


def _moved(node: fx.Node, user: fx.Node, name: str, layout: Layout) -> Layout | None:
    """The channels behind a homogeneous function of each; None where it is none."""
    before = shape_of(node)
    if name in _ELEMENTWISE:
        return layout
    if name in _POOLS:
        return layout if layout.dim < len(before) - _POOLS[name] else None
    after = shape_of(user)
    if name in _RESHAPES:
        return _reshaped(before, after, layout)
    if name == "mean" and len(user.args) > 1 and isinstance(user.args[1], list | tuple):
        dims = {int(dim) % len(before) for dim in user.args[1]}  # type: ignore[arg-type]
        kept = len(after) == len(before)
        lost = 0 if kept else sum(dim < layout.dim for dim in dims)
        return None if layout.dim in dims else Layout(dim=layout.dim - lost, repeat=layout.repeat)
    return None


def _reshaped(before: tuple[int, ...], after: tuple[int, ...], layout: Layout) -> Layout | None:
    """Behind a reshape that leaves the dimensions before the channels, or those behind them and the channels."""
    dim = layout.dim
    if before[:dim] == after[:dim] and len(after) == dim + 1:
        return Layout(dim=dim, repeat=layout.repeat * prod(before[dim + 1 :]))
    if before[dim:] == after[len(after) - len(before) + dim :]:
        return Layout(dim=dim + len(after) - len(before), repeat=layout.repeat)
    return None


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Of the value that the export noted."""
    return tuple(int(size) for size in node.meta["val"].shape)


class _Parameters:
    """Which parameter of the network an argument is."""

    def __init__(self, graph: fx.Graph, model: nn.Module) -> None:
        self._of = dict(model.named_parameters(remove_duplicate=False))
        nodes = [node for node in graph.nodes if node.op == "get_attr"]
        places = [(id(self._of.get(network_path(str(node.target)))), len(node.users)) for node in nodes]
        self._uses: Counter[int] = Counter()
        for parameter, users in places:
            self._uses[parameter] += users

    def own(self, argument: Any) -> str | None:
        """The path of a parameter that is used here alone; None where it is none."""
        if not isinstance(argument, fx.Node) or argument.op != "get_attr":
            return None
        path = network_path(str(argument.target))
        known = path in self._of and self._uses[id(self._of[path])] == 1
        return path if known else None
