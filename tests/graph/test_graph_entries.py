"""Capturing several calls of one network: methods, names, and what is held once."""

import pytest
import torch
from entry_networks import EncoderDecoder, Parts, encoder_decoder, integers, numbers
from torch import nn

from aimc_compiler import Entry, load_chip
from aimc_compiler.errors import BatchError, CaptureError
from aimc_compiler.graph import (
    capture,
    capture_entries,
    graphs_from_parts,
    graphs_to_parts,
    lower,
    lower_entries,
    partition,
)


def test_a_method_is_captured_under_the_names_of_its_arguments() -> None:
    network, tokens, states = EncoderDecoder().eval(), integers(1, 3, below=10), numbers(1, 4, 12)
    graph = capture(network, (tokens, states), method="decode")
    inputs = [node.name for node in graph.module.graph.find_nodes(op="placeholder")]
    assert inputs == ["tokens", "states"]
    assert list(graph.matrix_modules()) == ["mix", "cross", "head"]
    two = integers(2, 3, below=10, seed=4), numbers(2, 4, 12, seed=5)
    with torch.no_grad():
        assert torch.allclose(graph(*two)["logits"], network.decode(*two)["logits"], atol=1e-6)
    origins = {node.meta["origin"].path for node in graph.nodes if node.op == "call_module"}
    assert origins == {"mix", "cross", "head"}


def test_hooks_of_a_network_run_where_it_is_called_as_a_module() -> None:
    network = nn.Linear(3, 3).eval()
    network.register_forward_hook(lambda module, args, output: output + 1)
    x = numbers(2, 3)
    assert torch.allclose(capture(network, (x[:1],))(x), network(x))


def test_an_error_names_its_entry() -> None:
    class Mixing(EncoderDecoder):
        def mean(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(0)

    entries = {"encode": Entry(inputs=(numbers(1, 4, 8),), method="encode")}
    entries["mean"] = Entry(inputs=(numbers(1, 4, 8),), method="mean")
    with pytest.raises(BatchError, match=r"entry 'mean': output \[0\] mixes the samples of a batch"):
        capture_entries(Mixing().eval(), entries)
    with pytest.raises(CaptureError, match=r"^EncoderDecoder: the network is in training mode"):
        capture_entries(EncoderDecoder(), {"encode": entries["encode"]})


def test_weights_and_constants_are_held_once() -> None:
    network, entries = encoder_decoder()
    entries["again"] = entries["decode"]
    graphs = capture_entries(network, entries)
    decode, again = graphs["decode"], graphs["again"]
    for name, module in decode.matrix_modules().items():
        assert again.matrix_modules()[name].weight is module.weight
    for node in decode.module.graph.find_nodes(op="get_attr"):
        assert getattr(again.module, str(node.target)) is getattr(decode.module, str(node.target))


def test_renamed_operations_survive_saving() -> None:
    network, x = Parts().eval(), numbers(2, 3, 6)
    graphs = capture_entries(network, {name: Entry(inputs=(x[:1],), method=name) for name in ("last", "all")})
    assert [name for name in graphs["all"].matrix_modules() if name.startswith("packed")] == ["packed@2", "packed"]
    again = graphs_from_parts(*graphs_to_parts(graphs))
    with torch.no_grad():
        for name, graph in again.items():
            assert list(graph.matrix_modules()) == list(graphs[name].matrix_modules())
            assert torch.allclose(graph(x), getattr(network, name)(x), atol=1e-6)


class Cell(nn.Module):
    """Steps of a recurrent cell; the first multiplies a state of zeros, which is no operation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], 4)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state

    def go_on(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return self.cell(x, state)


def test_matrices_are_called_after_their_first_operation() -> None:
    network = Cell().eval()
    begin, go_on = Entry(inputs=(numbers(1, 3, 3),)), Entry(inputs=(numbers(1, 3), numbers(1, 4)), method="go_on")
    chip = load_chip("ideal")

    def matrices(**entries: Entry) -> list[list[str]]:
        graphs = tuple(capture_entries(network, entries).values())
        return [[m.name for m in each.matrices] for each in lower_entries(graphs, partition(graphs, (), chip))]

    alone = capture(network, begin.inputs)
    assert matrices(begin=begin) == [[m.name for m in lower(alone, partition(alone, (), chip)).matrices]]
    first, second = matrices(begin=begin, go_on=go_on)
    assert set(first) == set(second)
    assert len(first) == 2
