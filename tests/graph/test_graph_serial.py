"""Saving and making again: the same graph, byte for byte, and nothing that is not on the list."""

import copy
import json
from typing import Any

import pytest
import torch
from networks import NETWORKS
from safetensors.torch import load, save
from torch import nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import ArtifactError
from aimc_compiler.graph import capture, graph_from_parts, graph_to_parts


def stored(parts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> tuple[bytes, bytes]:
    return json.dumps(parts, allow_nan=False).encode(), save(tensors)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_round_trip(name: str) -> None:
    model, args, kwargs = NETWORKS[name]()
    graph = capture(model, args, kwargs)
    nodes, tensors = stored(*graph_to_parts(graph))
    again = graph_from_parts(json.loads(nodes), load(tensors))
    assert stored(*graph_to_parts(again)) == (nodes, tensors)
    assert str(again) == str(graph)
    assert again.batch == graph.batch
    ours, spec = pytree.tree_flatten(again(*args, **kwargs))
    theirs, expected = pytree.tree_flatten(graph(*args, **kwargs))
    assert spec == expected
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_tied_weights_stay_one() -> None:
    parts, tensors = graph_to_parts(capture(*NETWORKS["tied"]()))
    assert sum(name.startswith("weight/") for name in tensors) == 3
    modules = graph_from_parts(parts, tensors).matrix_modules()
    assert modules["first"].weight is modules["second"].weight


def test_a_folded_norm_comes_back() -> None:
    parts, tensors = graph_to_parts(capture(*NETWORKS["mlp"]()))
    module = graph_from_parts(parts, tensors).matrix_modules()["0"]
    assert module.norm is not None
    assert module.bias is not None
    before = module.bias.clone()
    module.fold_norm(module.norm)
    assert torch.equal(module.bias, before)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("target", "os.system"), "calls 'os.system', which is no operation this version knows"),
        (("target", "aten.relu.__class__"), "calls 'aten.relu.__class__', which is no operation"),
        (("target", "aten.__init__.default"), "calls 'aten.__init__.default', which is no operation"),
        (("target", "aten.relu_.default"), "calls 'aten.relu_.default', which changes its input"),
        (("target", "operator.attrgetter"), "calls 'operator.attrgetter', which is no operation"),
        (("op", "call_method"), "a node of kind 'call_method'"),
        (("args", [{"node": "nothing"}]), "the saved graph is damaged (KeyError"),
        (("args", [{"eval": "1"}]), "the saved graph is damaged (KeyError"),
        (("args", [{"dtype": "Tensor"}]), "names the dtype 'Tensor'"),
    ],
)
def test_manipulated_graphs_are_refused(change: tuple[str, Any], text: str) -> None:
    parts, tensors = graph_to_parts(capture(*NETWORKS["mlp"]()))
    parts = copy.deepcopy(parts)
    node = next(entry for entry in parts["nodes"] if entry["target"] == "aten.relu.default")
    node[change[0]] = change[1]
    with pytest.raises(ArtifactError) as caught:
        graph_from_parts(parts, tensors)
    assert text in str(caught.value)


def test_missing_tensors_and_kinds_are_refused() -> None:
    parts, tensors = graph_to_parts(capture(*NETWORKS["mlp"]()))
    with pytest.raises(ArtifactError, match="the saved graph is damaged"):
        graph_from_parts(parts, {})
    parts["modules"]["0"]["kind"] = "lstm"
    with pytest.raises(ArtifactError, match="a matrix operation of kind 'lstm'"):
        graph_from_parts(parts, tensors)


def test_weights_without_values_keep_their_shapes() -> None:
    with torch.device("meta"):
        graph = capture(nn.Linear(3, 2).eval(), (torch.empty(1, 3),))
    parts, tensors = graph_to_parts(graph)
    assert tensors == {}
    again = graph_from_parts(json.loads(json.dumps(parts)), tensors)
    assert not again.has_values
    (one,), (other,) = (each.matrix_modules().values() for each in (graph, again))
    assert (other.weight.shape, other.weight.dtype) == (one.weight.shape, one.weight.dtype)
    next(iter(parts["shapes"].values()))["dtype"] = "nn"
    with pytest.raises(ArtifactError, match="names the dtype 'nn'"):
        graph_from_parts(parts, tensors)
