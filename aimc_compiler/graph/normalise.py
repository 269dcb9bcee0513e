"""The normal form: matrix operations as modules, everything else functional, nothing that does nothing.

From the module that torch.export returns this makes a flat one of our own, with a copy of parameters and buffers, so
that training the network further does not change what was compiled.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn

from aimc_compiler.errors import CaptureError
from aimc_compiler.graph.arguments import arguments
from aimc_compiler.graph.cells import split_cells
from aimc_compiler.graph.extract import Extraction
from aimc_compiler.graph.functional import replace_in_place
from aimc_compiler.graph.ir import constant_name, op_name
from aimc_compiler.graph.origin import network_path, read_origin
from aimc_compiler.graph.products import rewrite_products
from aimc_compiler.graph.recurrent import GATES
from aimc_compiler.graph.recurrent_layers import extract_recurrent
from aimc_compiler.graph.split import split_compounds
from aimc_compiler.records import record

_CHECKS = frozenset(
    [
        "_assert_tensor_metadata",
        "_assert_scalar",
        "_assert_async",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    ]
)
_RENAMINGS = frozenset(["contiguous", "clone", "detach", "alias", "lift_fresh_copy", "lift_fresh"])
_DROPOUTS = frozenset(["dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"])


@record
class Stuck:
    """Operations in place that cannot be rewritten, as "aten.add_.Tensor at ..."."""

    operations: tuple[str, ...]


def normalise(exported: fx.GraphModule) -> tuple[nn.Module, fx.Graph] | Stuck:
    """(members, graph) of the normal form; Stuck where the graph must be made functional by torch first.

    Raises CaptureError for operations in training mode.
    """
    root, graph = _flatten(exported)
    _drop_checks(graph)
    _refuse_training(graph)
    stuck = replace_in_place(graph)
    if stuck:
        return Stuck(operations=tuple(f"{node.target} at {read_origin(node)}" for node in stuck))
    _drop_identities(graph)
    _unify(graph)
    split_compounds(graph)
    split_cells(graph)
    extraction = Extraction(root, graph)
    rewrite_products(graph, extraction.constants)
    extraction.run()
    extract_recurrent(extraction)
    drop_dead(graph)
    return root, graph


def name_inputs(graph: fx.Graph, names: tuple[str, ...]) -> None:
    """Call the inputs what the network calls them."""
    for node, name in zip(graph.find_nodes(op="placeholder"), names, strict=True):
        node._rename(name)
        node.target = node.name


def drop_dead(graph: fx.Graph) -> None:
    """Drop what nothing reads; inputs stay."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _flatten(exported: fx.GraphModule) -> tuple[nn.Module, fx.Graph]:
    """Members under flat names, copied, and a graph of flat inputs and outputs that reads them."""
    root, graph = nn.Module(), fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    copies: dict[int, str] = {}
    graph.output(graph.graph_copy(exported.graph, copied))
    for old, new in copied.items():
        new.meta = {"origin": read_origin(old), "val": old.meta.get("val")}
        if new.op == "placeholder":
            new.args = ()
        if new.op == "get_attr":
            new.target = _copy_member(exported, root, str(old.target), copies)
            new._rename(network_path(str(old.target)))
    return root, graph


def _copy_member(exported: fx.GraphModule, root: nn.Module, path: str, copies: dict[int, str]) -> str:
    """Copy a parameter or buffer, once however many names it has; returns its flat name."""
    owner, _, leaf = path.rpartition(".")
    value = getattr(exported.get_submodule(owner), leaf)
    if not isinstance(value, Tensor):
        raise CaptureError(
            f"{network_path(path)} is no tensor but a {type(value).__name__}: torch.export kept a part of the network "
            "as a nested graph (torch.cond, autocast and the like), which is not built; compute it outside of forward"
        )
    name = copies.setdefault(id(value), constant_name(network_path(path)))
    if not hasattr(root, name):
        root.register_buffer(name, value.detach().clone())
    return name


def _drop_checks(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and op_name(node) in _CHECKS and not node.users:
            graph.erase_node(node)
    for node in graph.find_nodes(op="get_attr"):
        if not node.users:
            graph.erase_node(node)


def _refuse_training(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and _training(node):
            raise CaptureError(
                f"{node.target} at {read_origin(node)} is in training mode: its outputs are random or depend on the "
                "other samples; call model.eval() before compiling"
            )


def _training(node: fx.Node) -> bool:
    name = op_name(node)
    if name in _DROPOUTS:
        return bool(node.args[2]) if len(node.args) > 2 else True
    if name in GATES:
        values = arguments(node)
        return bool(values["train"]) and values["dropout"] > 0
    # Without running statistics a batch norm uses the batch's in evaluation mode too: the batch check reports that.
    return name == "batch_norm" and bool(node.args[5]) and node.args[3] is not None


def _drop_identities(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.op == "call_function" and _identity(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _identity(node: fx.Node) -> bool:
    name = op_name(node)
    if name in _RENAMINGS or name in _DROPOUTS:
        return True
    if name not in ("to", "_to_copy", "type_as"):
        return False
    source, value = node.args[0], node.meta.get("val")
    before = source.meta.get("val") if isinstance(source, fx.Node) else None
    return (
        isinstance(before, Tensor)
        and isinstance(value, Tensor)
        and before.dtype == value.dtype
        and before.device == value.device
    )


def _unify(graph: fx.Graph) -> None:
    """One spelling for what torch spells in several ways."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            # Dropping contiguous() may leave strides that a view cannot take.
            node.target = torch.ops.aten.reshape.default
        if op_name(node) == "_native_batch_norm_legit_no_training":
            _plain_batch_norm(graph, node)
    drop_dead(graph)


def _plain_batch_norm(graph: fx.Graph, node: fx.Node) -> None:
    x, gamma, beta, mean, var, momentum, eps = node.args
    arguments: tuple[Any, ...] = (x, gamma, beta, mean, var, False, momentum, eps, False)
    for result in list(node.users):
        if result.args[1] == 0:
            with graph.inserting_before(result):
                norm = graph.call_function(torch.ops.aten.batch_norm.default, arguments)
            norm.meta = dict(node.meta)
            result.replace_all_uses_with(norm)
