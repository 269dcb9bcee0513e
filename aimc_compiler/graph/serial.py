"""Saving a Graph as JSON and tensors, and making it again. No pickle: only known operations and types come back."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import ArtifactError
from aimc_compiler.graph.ir import BatchRule, Graph, attribute_name, make_module, matrix_name
from aimc_compiler.graph.matrix import KINDS, MatrixModule, NormStatistics
from aimc_compiler.graph.origin import Origin
from aimc_compiler.graph.recurrent import GATES, RecurrentModule
from aimc_compiler.graph.values import TensorValue, Value, value_of

_ATEN = re.compile(r"^aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)$")
#: Functions on sizes, and the choice of one of several results.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"operator.{function.__name__}": function
        for function in (
            *(operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv),
            *(operator.mod, operator.neg, operator.pow, operator.eq, operator.ne, operator.lt, operator.le),
            *(operator.gt, operator.ge, operator.and_, operator.or_),
        )
    },
    **{
        f"torch.{function.__name__}": function
        for function in (torch.sym_max, torch.sym_min, torch.sym_int, torch.sym_float, torch.sym_not, torch.sym_ite)
    },
    **{f"math.{function.__name__}": function for function in (math.floor, math.ceil, math.trunc)},
}
_NAMED_TYPES = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


def graph_to_parts(graph: Graph) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what JSON holds, tensors by name). Raises ArtifactError for what cannot be saved.

    Tensors on the meta device have no values: JSON holds their shapes.
    """
    tensors: dict[str, Tensor] = {}
    for node in graph.module.graph.find_nodes(op="get_attr"):
        tensors[str(node.target)] = getattr(graph.module, str(node.target))
    modules = {name: _module_to_json(name, module, tensors) for name, module in graph.matrix_modules().items()}
    shared = _take_shared(tensors)
    shapes = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in tensors.items()
        if tensor.is_meta
    }
    parts = {
        "name": graph.name,
        "in_spec": _spec_to_json(graph.in_spec),
        "out_spec": _spec_to_json(graph.out_spec),
        "batch": _record_to_json(graph.batch),
        "unpriced": list(graph.unpriced),
        "modules": modules,
        "loops": {matrix_name(node): _loop_to_json(loop) for node, loop in _loops(graph)},
        "shared": shared,
        "nodes": [_node_to_json(node) for node in graph.nodes],
        "shapes": shapes,
    }
    return parts, {name: tensor for name, tensor in tensors.items() if name not in shapes}


def _take_shared(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Take out tensors that are another one (a head that is tied to an embedding): their names, and the other's.

    A file of tensors refuses two names for one memory: what shares only part of another's is copied.
    """
    shared: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in list(tensors.items()):
        if tensor.is_meta:
            continue
        held = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and held in first:
            shared[name] = first[held]
            del tensors[name]
            continue
        first[held] = name
        storage = tensor.untyped_storage().data_ptr()
        if storage in storages:
            tensors[name] = tensor.clone()
        storages.add(storage)
    return shared


def graph_from_parts(parts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Graph:
    """The Graph again. Raises ArtifactError for anything that ``graph_to_parts`` does not write."""
    try:
        return _graph_from_parts(parts, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError) as error:
        raise ArtifactError(f"the saved graph is damaged ({type(error).__name__}: {error}): compile again") from error


def _graph_from_parts(parts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Graph:
    tensors = {**tensors, **{name: _without_values(entry) for name, entry in parts.get("shapes", {}).items()}}
    root, weights = nn.Module(), dict[str, nn.Parameter]()
    tensors = {**tensors, **{name: tensors[other] for name, other in parts.get("shared", {}).items()}}
    modules = {name: _module_from_json(entry, tensors, weights) for name, entry in parts["modules"].items()}
    loops = {name: _loop_from_json(entry, modules) for name, entry in parts.get("loops", {}).items()}
    held = {part for loop in loops.values() for part in loop.names.values()}
    for name, module in (modules | loops).items():
        if name not in held:
            root.add_module(attribute_name(name), module)
    nodes = fx.Graph()
    known: dict[str, fx.Node] = {}
    for entry in parts["nodes"]:
        if entry["op"] == "get_attr" and not hasattr(root, entry["target"]):
            root.register_buffer(entry["target"], tensors[entry["target"]])
        node = _node_from_json(nodes, entry, known)
        if node.name != entry["name"]:
            raise ArtifactError(f"the saved graph is damaged: two nodes are called {entry['name']!r}; compile again")
        known[entry["name"]] = node
    return Graph(
        name=parts["name"],
        module=make_module(root, nodes),
        in_spec=pytree.treespec_loads(parts["in_spec"]),
        out_spec=pytree.treespec_loads(parts["out_spec"]),
        batch=_batch_from_json(parts["batch"]),
        unpriced=tuple(parts["unpriced"]),
    )


def _without_values(entry: Mapping[str, Any]) -> Tensor:
    dtype = getattr(torch, entry["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise ArtifactError(f"the saved graph names the dtype {entry['dtype']!r}, which torch does not have")
    return torch.empty(entry["shape"], dtype=dtype, device="meta")


def _spec_to_json(spec: pytree.TreeSpec) -> str:
    try:
        return pytree.treespec_dumps(spec)
    except NotImplementedError as error:
        raise ArtifactError(
            f"inputs or outputs nest in a type that cannot be saved ({error}): return tuples, lists and dicts, or "
            "register the type with torch.export.register_dataclass"
        ) from error


def _batch_from_json(entry: Mapping[str, Any]) -> BatchRule:
    inputs, outputs = tuple(entry["inputs"]), tuple(entry["outputs"])
    return BatchRule(inputs=inputs, outputs=outputs, dynamic=entry["dynamic"], reason=entry["reason"])


def _record_to_json(value: Any) -> dict[str, Any]:
    """Fields of a record, tuples as lists."""
    items = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {name: list(item) if isinstance(item, tuple) else item for name, item in items}


def _module_to_json(name: str, module: MatrixModule, tensors: dict[str, Tensor]) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": module.kind, "parameter": module.parameter, "groups": module.groups}
    entry |= {key: list(getattr(module, key)) for key in ("stride", "padding", "dilation")}
    entry["weight"] = f"weight/{module.parameter}"
    tensors[entry["weight"]] = module.weight.detach()
    for key in ("factor", "bias", "own_bias"):
        entry[key] = _keep(tensors, f"{key}/{name}", getattr(module, key))
    if module.norm is not None:
        held = {key: _keep(tensors, f"norm.{key}/{name}", getattr(module.norm, key)) for key in _STATISTICS}
        entry["norm"] = held | {"eps": module.norm.eps}
    return entry


_STATISTICS = ("mean", "var", "gamma", "beta")


def _keep(tensors: dict[str, Tensor], name: str, value: Tensor | None) -> str | None:
    if value is None:
        return None
    # A copy: files of tensors refuse two names for one memory (own_bias may be the bias itself).
    tensors[name] = value.detach().clone()
    return name


def _module_from_json(
    entry: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: dict[str, nn.Parameter]
) -> MatrixModule:
    if entry["kind"] not in KINDS:
        raise ArtifactError(f"the saved graph has a matrix operation of kind {entry['kind']!r}; there are {KINDS}")
    key = entry["weight"]
    weight = weights.setdefault(key, nn.Parameter(tensors[key], requires_grad=False))
    shapes = {name: tuple(entry[name]) for name in ("stride", "padding", "dilation")}
    module = MatrixModule(entry["kind"], entry["parameter"], weight, None, groups=entry["groups"], **shapes)
    for name in ("factor", "bias", "own_bias"):
        setattr(module, name, None if entry[name] is None else tensors[entry[name]])
    norm = entry.get("norm")
    if norm is not None:
        mean, var, gamma, beta = (None if norm[name] is None else tensors[norm[name]] for name in _STATISTICS)
        assert mean is not None
        assert var is not None
        module.norm = NormStatistics(mean, var, gamma, beta, norm["eps"])
    return module


def _loops(graph: Graph) -> list[tuple[fx.Node, RecurrentModule]]:
    called = [(node, graph.called(node)) for node in graph.nodes if node.op == "call_module"]
    return [(node, module) for node, module in called if isinstance(module, RecurrentModule)]


def _loop_to_json(loop: RecurrentModule) -> dict[str, Any]:
    return {"mode": loop.mode, "names": loop.names, "time_axis": loop.time_axis}


def _loop_from_json(entry: Mapping[str, Any], modules: Mapping[str, MatrixModule]) -> RecurrentModule:
    if entry["mode"] not in GATES:
        raise ArtifactError(f"the saved graph has a recurrent layer of kind {entry['mode']!r}; there are {list(GATES)}")
    held = {role: modules[name] for role, name in entry["names"].items()}
    return RecurrentModule.of(entry["mode"], entry["names"], held, entry["time_axis"])


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    origin = node.meta.get("origin")
    return {
        "name": node.name,
        "op": node.op,
        "target": _target_to_json(node),
        "args": [_to_json(argument) for argument in node.args],
        "kwargs": {key: _to_json(argument) for key, argument in node.kwargs.items()},
        "value": _value_to_json(value_of(node)),
        "origin": None if origin is None else asdict(origin),
    }


def _target_to_json(node: fx.Node) -> str:
    if node.op == "call_module":
        return matrix_name(node)
    if node.op != "call_function":
        return str(node.target)
    if isinstance(node.target, torch._ops.OpOverload) and _ATEN.match(str(node.target)):
        return str(node.target)
    for name, function in _FUNCTIONS.items():
        if node.target is function:
            return name
    raise ArtifactError(f"{node.target} at {node.name} cannot be saved: only ATen operations can")


def _node_from_json(graph: fx.Graph, entry: Mapping[str, Any], known: dict[str, fx.Node]) -> fx.Node:
    args = tuple(_from_json(argument, known) for argument in entry["args"])
    kwargs = {str(key): _from_json(argument, known) for key, argument in entry["kwargs"].items()}
    op, target = entry["op"], entry["target"]
    if op not in ("placeholder", "get_attr", "call_module", "call_function", "output"):
        raise ArtifactError(f"the saved graph has a node of kind {op!r}, which this version does not write")
    if op == "call_function":
        target = _function(target)
    elif op == "call_module":
        target = attribute_name(target)
    node = graph.output(*args) if op == "output" else graph.create_node(op, target, args, kwargs, name=entry["name"])
    node.meta["value"] = _value_from_json(entry["value"])
    if entry["origin"] is not None:
        node.meta["origin"] = Origin(**entry["origin"])
    return node


def _function(name: str) -> Callable[..., Any]:
    """The operation of this name, out of ATen and a fixed list."""
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    match = _ATEN.match(name)
    overload = getattr(getattr(torch.ops.aten, match[1], None), match[2], None) if match else None
    if not isinstance(overload, torch._ops.OpOverload):
        raise ArtifactError(f"the saved graph calls {name!r}, which is no operation this version knows: compile again")
    if overload._schema.is_mutable:
        raise ArtifactError(f"the saved graph calls {name!r}, which changes its input: compile again")
    return overload


def _to_json(argument: Any) -> Any:
    if argument is None or isinstance(argument, bool | int | str):
        return argument
    if isinstance(argument, float):
        return argument if math.isfinite(argument) else {"float": str(argument)}
    if isinstance(argument, fx.Node):
        return {"node": argument.name}
    if isinstance(argument, list | tuple):
        return {type(argument).__name__ if type(argument) is tuple else "list": [_to_json(item) for item in argument]}
    if isinstance(argument, slice):
        return {"slice": [_to_json(item) for item in (argument.start, argument.stop, argument.step)]}
    if isinstance(argument, torch.device):
        return {"device": str(argument)}
    for name, kind in _NAMED_TYPES.items():
        if isinstance(argument, kind):
            return {name: str(argument).removeprefix("torch.")}
    raise ArtifactError(f"an argument of type {type(argument).__name__} cannot be saved")


def _from_json(entry: Any, known: dict[str, fx.Node]) -> Any:
    if entry is None or isinstance(entry, bool | int | str | float):
        return entry
    ((kind, value),) = entry.items()
    if kind in ("list", "tuple", "slice"):
        items = [_from_json(item, known) for item in value]
        return slice(*items) if kind == "slice" else tuple(items) if kind == "tuple" else items
    if kind in _NAMED_TYPES:
        found = getattr(torch, value, None)
        if not isinstance(found, _NAMED_TYPES[kind]):
            raise ArtifactError(f"the saved graph names the {kind} {value!r}, which torch does not have")
        return found
    plain: dict[str, Callable[[str], Any]] = {"node": known.__getitem__, "float": float, "device": torch.device}
    return plain[kind](value)


def _value_to_json(value: Value) -> Any:
    if isinstance(value, TensorValue):
        turns = {} if value.inner is None else {"inner": value.inner}
        return {"shape": list(value.shape), "dtype": value.dtype, "batch": value.batch, **turns}
    if isinstance(value, tuple):
        return [_value_to_json(item) for item in value]
    return _to_json(value)


def _tensor_from_json(entry: Mapping[str, Any]) -> TensorValue:
    return TensorValue(
        shape=tuple(entry["shape"]), dtype=entry["dtype"], batch=entry["batch"], inner=entry.get("inner")
    )


def _value_from_json(entry: Any) -> Value:
    if isinstance(entry, list):
        return tuple(_tensor_from_json(item) for item in entry)
    if isinstance(entry, dict) and "shape" in entry:
        return _tensor_from_json(entry)
    value: Value = _from_json(entry, {})
    return value
