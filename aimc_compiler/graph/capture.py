"""Capturing a network: torch.export, the normal form, folded batch norms, and the check of the batch rule."""

import inspect
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import BatchError, CaptureError
from aimc_compiler.graph.batch import (
    BatchDim,
    Samples,
    batch_dims,
    check_samples,
    check_single,
    first_difference,
    make_samples,
    output_dims,
    tolerance,
)
from aimc_compiler.graph.check_ops import check_operations
from aimc_compiler.graph.export import (
    FlatNetwork,
    capture_error,
    export,
    first_line,
    functionalised,
    graph_module,
    quiet,
)
from aimc_compiler.graph.fold import fold_batch_norms
from aimc_compiler.graph.ir import BatchRule, Graph, make_module
from aimc_compiler.graph.normalise import Stuck, drop_dead, name_inputs, normalise
from aimc_compiler.graph.values import BatchRecorder, TurnRecorder, ValueRecorder, tensor_of
from aimc_compiler.records import record


def capture(
    model: nn.Module,
    example_inputs: Sequence[Any],
    example_kwargs: Mapping[str, Any] | None = None,
    batch_dim: BatchDim = 0,
    *,
    method: str = "forward",
    allow_unpriced: bool = False,
) -> Graph:
    """The network as a Graph in normal form; the network itself is not changed and its weights are copied.

    model: in evaluation mode. example_inputs, example_kwargs: one call's inputs; their values are used. batch_dim:
    the batch dimension of all inputs, or one entry for each flat input (None: it has none), or None: the whole
    example is one sample. method: the network's method that is called. allow_unpriced: operations without a cost class
    are recorded in ``graph.unpriced`` instead of raising.

    Raises CaptureError (training mode, torch.export fails, the network changes its inputs or buffers, or has no such
    method), BatchError (the samples of a batch influence each other) and UnsupportedOpError (operations without a place
    on a chip).

    Example:
        >>> graph = capture(nn.Sequential(nn.Linear(4, 2), nn.ReLU()).eval(), (torch.zeros(1, 4),))
        >>> graph(torch.ones(8, 4)).shape
        torch.Size([8, 2])
    """
    traced = trace(model, example_inputs, example_kwargs, batch_dim, method)
    unpriced = check_operations(traced.nodes, allow_unpriced=allow_unpriced)
    module = make_module(traced.root, traced.nodes)
    outputs = check_values(traced, module)
    return traced.graph(module, outputs, unpriced)


@record
class Traced:
    """A network in normal form, before what it computes is checked. samples: two of them, None where the whole example
    is one; reason: why, in words; leaves: the flat inputs of the example; expected: what the network itself gives for
    both samples, or for the example; single: what the graph gives for the first, None if it has changed since."""

    name: str
    network: FlatNetwork
    root: nn.Module
    nodes: fx.Graph
    leaves: tuple[Any, ...]
    samples: Samples | None
    reason: str
    expected: tuple[Any, ...]
    single: tuple[Any, ...] | None

    def graph(self, module: fx.GraphModule, outputs: tuple[int | None, ...], unpriced: tuple[str, ...] = ()) -> Graph:
        """The Graph of ``module``; outputs: the batch dimension of each flat output."""
        inputs = self.samples.dims if self.samples else (None,) * len(self.leaves)
        batch = BatchRule(inputs=inputs, outputs=outputs, dynamic=self.samples is not None, reason=self.reason)
        return Graph(
            name=self.name,
            module=module,
            in_spec=self.network.in_spec,
            out_spec=self.network.out_specs[0],
            batch=batch,
            unpriced=unpriced,
        )


def trace(
    model: nn.Module,
    example_inputs: Sequence[Any],
    example_kwargs: Mapping[str, Any] | None,
    batch_dim: BatchDim,
    method: str = "forward",
) -> Traced:
    """The first half of ``capture``: export, normal form, folding; the value of every node is recorded."""
    name = type(model).__name__
    _check_call(model, name, example_inputs)
    _check_method(model, name, method)
    call = (tuple(example_inputs), dict(example_kwargs or {}))
    leaves, in_spec = pytree.tree_flatten(call)
    network = FlatNetwork(model, in_spec, method)
    samples = None
    dims = None if batch_dim is None else batch_dims(leaves, _names(call), batch_dim)
    _check_elements(name, _names(call), leaves)
    if dims is not None:
        samples = make_samples(leaves, dims)
    program, samples, reason, expected = _export(network, name, tuple(leaves), samples)
    root, nodes = _normal_form(program, name)
    name_inputs(nodes, _input_names(model, call, method))
    recorded = _record(root, nodes, samples.first if samples else tuple(leaves))
    folded = fold_batch_norms(root, nodes)
    drop_dead(nodes)
    return Traced(
        name=name,
        network=network,
        root=root,
        nodes=nodes,
        leaves=tuple(leaves),
        samples=samples,
        reason=reason,
        expected=expected,
        single=None if folded else recorded,
    )


def _check_call(model: nn.Module, name: str, example_inputs: Sequence[Any]) -> None:
    if not isinstance(example_inputs, tuple | list):
        kind = type(example_inputs).__name__
        raise CaptureError(f"example_inputs is a {kind}: give a tuple of the network's positional inputs, as in (x,)")
    # A graph module has no modes of its own: its operations say whether they are in training mode (normal form).
    if isinstance(model, fx.GraphModule):
        return
    training = [path or "the network" for path, module in model.named_modules() if module.training and _acts(module)]
    if model.training or training:
        first = "the network" if model.training else f"its module {training[0]!r}"
        raise CaptureError(
            f"{name}: {first} is in training mode, where dropout and batch norm act differently: call model.eval() "
            "before compiling"
        )


def _check_method(model: nn.Module, name: str, method: str) -> None:
    if callable(getattr(model, method, None)):
        return
    # What torch's own module has is no way to call this network.
    own = [each for each in dir(type(model)) if not each.startswith("_") and not hasattr(nn.Module, each)]
    methods = ["forward", *(each for each in own if callable(getattr(type(model), each)))]
    close = get_close_matches(method, methods, n=1)
    hint = f"did you mean {close[0]!r}" if close else f"it has {', '.join(methods)}"
    raise CaptureError(f"{name} has no method {method!r}: {hint}")


def _check_elements(name: str, names: Sequence[str], leaves: Sequence[Any]) -> None:
    for place, leaf in zip(names, leaves, strict=True):
        if isinstance(leaf, Tensor) and not leaf.numel():
            raise CaptureError(
                f"{name}: input {place} of the example has shape {tuple(leaf.shape)}, which holds no elements, so "
                "there is nothing to plan for: give an example of the size that the network is to run at"
            )


def _acts(module: nn.Module) -> bool:
    """Whether a module of its own, not through its children, computes."""
    return not any(True for _ in module.children()) and type(module) is not nn.Module


def _export(
    network: FlatNetwork, name: str, leaves: tuple[Any, ...], samples: Samples | None
) -> tuple[Any, Samples | None, str, tuple[Any, ...]]:
    """(program, samples or None where the whole example is one, reason, the network's own outputs)."""
    reason = "the whole example is one sample: batch_dim=None"
    if samples is not None:
        try:
            with quiet(), torch.no_grad():
                # A network exported for one batch size refuses others only when it runs.
                expected = network(*samples.both)
            program = export(network, samples.both, samples.dims)
            return program, samples, f"any number of samples along dimensions {_dims_text(samples.dims)}", expected
        except (Warning, CaptureError):
            # Ours, or the caller has turned warnings into errors: no answer to whether the batch can vary.
            raise
        except Exception as error:
            # torch.export raises errors of many types; a fault of the network itself appears again below.
            reason = f"the whole example is one sample: its batch cannot vary ({first_line(error)})"
    try:
        program = export(network, leaves, None)
        with quiet(), torch.no_grad():
            return program, None, reason, network(*leaves)
    except (Warning, CaptureError):
        raise
    except Exception as error:
        raise capture_error(name, error) from error


def _normal_form(program: Any, name: str) -> tuple[nn.Module, fx.Graph]:
    as_written = normalise(graph_module(program))
    if not isinstance(as_written, Stuck):
        return as_written
    with quiet():
        result = normalise(graph_module(functionalised(program)))
    if isinstance(result, Stuck):
        # What is still stuck are copies that torch made, without a line of the user's.
        listed = "\n".join(as_written.operations)
        raise CaptureError(
            f"{name} changes an input or one of its own buffers in forward; return the new value instead:\n{listed}"
        )
    return result


def _record(root: nn.Module, nodes: fx.Graph, leaves: tuple[Any, ...]) -> tuple[Any, ...]:
    """Note the value of every node for these inputs; the outputs."""
    with torch.no_grad():
        module = fx.GraphModule(root, nodes)
        try:
            # With the graph itself, not the module's copy: values are noted on the nodes we go on with.
            return tuple(ValueRecorder(module, graph=nodes).run(*leaves))
        except (RuntimeError, ValueError, IndexError) as error:
            raise BatchError(
                f"the network was captured for two samples and fails on one ({first_line(error)}): an operation may "
                "drop the batch dimension where it is 1, as squeeze() does; name the dimensions to squeeze"
            ) from error


def check_values(traced: Traced, module: fx.GraphModule) -> tuple[int | None, ...]:
    """Check the graph against the network, and the samples of a batch against each other; output batch dimensions."""
    network, name, samples, leaves = traced.network, traced.name, traced.samples, traced.leaves
    allowed = tolerance([value.dtype for value in map(tensor_of, module.graph.nodes) if value is not None])
    with quiet(), torch.no_grad():
        recorder = BatchRecorder(module)
        actual = recorder.run(*samples.both) if samples else module(*leaves)
        names = _names(pytree.tree_unflatten(list(traced.expected), network.out_specs[0]))
        _check_same(name, names, traced.expected, actual, allowed)
        if samples is None:
            return (None,) * len(traced.expected)
        if recorder.joined:
            first = TurnRecorder(module, recorder.joined).run(*samples.first)
        else:
            first = module(*samples.first) if traced.single is None else traced.single
        second = module(*samples.second)
        alone = network(*samples.first)
    dims = output_dims(first, actual, names)
    check_samples(first, second, actual, dims, names, allowed)
    check_single(alone, first, names, allowed)
    return dims


def _check_same(
    name: str, names: Sequence[str], expected: Sequence[Any], actual: Sequence[Any], allowed: float
) -> None:
    found = first_difference(expected, actual, names, allowed)
    if found is not None:
        raise CaptureError(
            f"{name}: output {found[0]} of the captured graph differs from the network's by {found[1]:.2g} of the "
            "largest value: does forward draw random numbers, or depend on something other than its inputs?"
        )


def _names(tree: Any) -> tuple[str, ...]:
    """A name for each leaf of nested inputs or outputs, as Python would index it: "[0]", "['mask']"."""
    return tuple(pytree.keystr(path) or "[0]" for path, _ in pytree.tree_flatten_with_path(tree)[0])


def _input_names(model: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]], method: str) -> tuple[str, ...]:
    """A name for each flat input: the argument's, followed by the keys inside it."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(getattr(model, method)).parameters.values()
    positional = [parameter.name for parameter in parameters if parameter.kind in kinds]
    names = []
    for path, _ in pytree.tree_flatten_with_path(call)[0]:
        keys = [str(getattr(key, "idx", getattr(key, "key", key))) for key in path]
        if keys[0] == "0":
            index = int(keys[1])
            keys[1] = positional[index] if index < len(positional) else f"input_{index}"
        names.append(re.sub(r"\W", "_", "_".join(keys[1:])))
    return tuple(names)


def _dims_text(dims: tuple[int | None, ...]) -> str:
    return ", ".join("none" if dim is None else str(dim) for dim in dims)
