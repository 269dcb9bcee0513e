"""Recurrent layers in the Graph and the Workload: names, forms, loops, and what is refused."""

import json
from typing import Any

import pytest
import torch
from recurrent_networks import RECURRENT, Directions
from torch import Tensor, nn

from aimc_compiler import load_chip
from aimc_compiler.errors import ArtifactError, CaptureError, UnsupportedOpError
from aimc_compiler.graph import Graph, capture, graph_from_parts, graph_to_parts, lower, partition
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.workload import DigitalOp, MatrixOp, Workload, verify_workload


def graph_of(name: str) -> Graph:
    return capture(*RECURRENT[name]())


def lowered(graph: Graph, rules: Any = ()) -> Workload:
    workload = lower(graph, partition(graph, rules, load_chip("ideal")))
    verify_workload(workload)
    return workload


def loops(graph: Graph) -> dict[str, RecurrentModule]:
    called = {str(node.target): graph.called(node) for node in graph.nodes if node.op == "call_module"}
    return {name: module for name, module in called.items() if isinstance(module, RecurrentModule)}


class Inside(nn.Module):
    """The outputs of all steps alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *x: Tensor) -> Tensor:
        return self.inner(*x)[0]


KINDS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (nn.LSTM, {}),
    (nn.LSTM, {"proj_size": 2, "bias": False}),
    (nn.GRU, {"bias": False}),
    (nn.RNN, {"nonlinearity": "tanh"}),
    (nn.RNN, {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_every_kind_equals_torch(
    kind: type[nn.Module], options: dict[str, Any], batch_first: bool, bidirectional: bool
) -> None:
    torch.manual_seed(0)
    model = kind(3, 4, 2, batch_first=batch_first, bidirectional=bidirectional, **options).double().eval()
    axis = 0 if batch_first else 1
    x = torch.randn(4, 4, 3, dtype=torch.float64)
    graph = capture(model, (x,), batch_dim=axis)
    assert graph.batch.inputs == (axis,)
    for count in (1, 3):
        given = x.narrow(axis, 0, count)
        for ours, theirs in zip(_leaves(graph(given)), _leaves(model(given)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def _leaves(outputs: Any) -> list[Tensor]:
    return torch.utils._pytree.tree_leaves(outputs)


def test_matrices_have_the_names_of_their_parameters() -> None:
    graph = graph_of("directions")
    places = [f"l{layer}{side}" for layer in (0, 1) for side in ("", "_reverse")]
    names = [f"lstm.weight_{kind}_{place}" for place in places for kind in ("ih", "hh", "hr")]
    modules = graph.matrix_modules()
    assert list(modules) == list(graph.matrix_nodes()) == [*names, "head"]
    assert all(modules[name].parameter == name for name in names)
    state = Directions().state_dict()
    assert all(modules[name].weight.shape == state[name].shape for name in names)
    assert modules["lstm.weight_ih_l0"].bias is not None
    assert modules["lstm.weight_hh_l0"].bias is not None
    assert modules["lstm.weight_hr_l0"].bias is None


def test_text_names_the_loop_and_its_matrices() -> None:
    line = next(line for line in str(graph_of("directions")).splitlines() if "cell_l0:" in line)
    assert line.partition("  #")[0].strip() == (
        "%lstm_cell_l0: 3 tensors = lstm 'lstm.cell_l0' (%lstm_weight_ih_l0_1, %select_int, %select_int_1) "
        "with 'lstm.weight_hh_l0', 'lstm.weight_hr_l0'"
    )


def test_zeros_are_no_inputs_of_a_loop_and_given_states_are() -> None:
    inputs = {name: [len(node.args) for node in graph_of(name).nodes if _is_loop(node)] for name in RECURRENT}
    assert inputs == {
        "directions": [3] * 4,
        "time_major": [1] * 3,
        "last_state": [1, 1, 2],
        "cells": [],
        "folded": [2],
        "decoder": [2, 3],
    }


def _is_loop(node: torch.fx.Node) -> bool:
    return node.op == "call_module" and "cell" in str(node.target)


def test_two_uses_of_a_layer_share_their_matrices() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(self.rnn(x)[0])[0]

    graph = capture(Twice().eval(), (torch.randn(2, 3, 4),))
    names = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.weight_ih_l0@2", "rnn.weight_hh_l0@2"]
    modules = graph.matrix_modules()
    assert list(modules) == names
    assert modules[names[1]].weight is modules[names[3]].weight
    assert list(loops(graph)) == ["rnn/cell_l0", "rnn/cell_l0@2"]
    assert [matrix.name for matrix in lowered(graph).matrices] == names[:2]


def test_other_modules_take_the_place_of_a_loops_own() -> None:
    class Zero(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return h.new_zeros(h.shape[0], 15)

    model, (x,) = RECURRENT["time_major"]()
    graph = capture(model, (x,))
    silent = graph.with_modules({"gru.weight_hh_l0": Zero()})
    with torch.no_grad():
        model.gru.weight_hh_l0.zero_()
        model.gru.bias_hh_l0.zero_()
        expected = model(x)
    for ours, theirs in zip(silent(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(graph(x)[0], expected[0])


@pytest.mark.parametrize("damage", ["mode", "names"])
def test_damaged_loops_are_refused(damage: str) -> None:
    parts, tensors = graph_to_parts(graph_of("time_major"))
    parts = json.loads(json.dumps(parts))
    loop = parts["loops"]["gru.cell_l0"]
    loop[damage] = "lstn" if damage == "mode" else {"recurrent": "elsewhere"}
    with pytest.raises(ArtifactError, match="a recurrent layer of kind 'lstn'" if damage == "mode" else "is damaged"):
        graph_from_parts(parts, tensors)


def test_a_loop_in_the_workload() -> None:
    """Two uses of a state: W_hh in the next step, and W_hr of the cell's output in the same."""
    workload = lowered(graph_of("directions"), {"*hh_l1*": {"analog": False}})
    ops = {op.name: op for op in workload.ops}
    back, cell, out = (ops[f"lstm.{name}_l0"] for name in ("weight_hh", "cell", "weight_hr"))
    assert isinstance(back, MatrixOp)
    assert isinstance(out, MatrixOp)
    assert isinstance(cell, DigitalOp)
    assert (back.windows, back.access.kind, back.input) == (7, "previous", out.output)
    assert (back.initial, out.input) == ("select_int", cell.output)
    assert cell.inputs == ("lstm_weight_ih_l0_1", back.output, "select_int_1")
    assert [access.kind for access in cell.accesses] == ["same", "same", "all"]
    # Five functions of each of 6 units in 7 steps.
    assert (cell.op, cell.cost_class, cell.work) == ("lstm_cell", "transcendental", 5 * 6 * 7)
    assert [op.name for op in workload.matrix_ops if not op.analog] == [
        "lstm.weight_hh_l1",
        "lstm.weight_hh_l1_reverse",
    ]


@pytest.mark.parametrize(
    ("network", "cell", "expected"),
    [
        # A GRU mixes the new state with the one before.
        ("time_major", "gru.cell_l1", ("transcendental", 3 * 5 * 6, ["same", "same", "previous"])),
        ("folded", "gru.cell_l0", ("transcendental", 3 * 4 * 10, ["same", "same", "previous", "all"])),
        ("decoder", "gru.cell_l0", ("transcendental", 3 * 4 * 5, ["same", "previous", "all"])),
        ("time_major", "lstm.cell_l0", ("transcendental", 5 * 3 * 6, ["same", "same"])),
        ("last_state", "rectified.cell_l0_reverse", ("elementwise", 5 * 5, ["same", "same"])),
        # A learned state at the start is a constant.
        ("last_state", "rnn.cell_l0", ("transcendental", 3 * 5, ["same", "same"])),
    ],
)
def test_cells_and_what_they_read(network: str, cell: str, expected: tuple[str, int, list[str]]) -> None:
    (op,) = [op for op in lowered(graph_of(network)).ops if op.name == cell]
    assert isinstance(op, DigitalOp)
    assert (op.cost_class, op.work, [access.kind for access in op.accesses]) == expected


def test_several_sequences_of_a_sample_pass_through_one_loop() -> None:
    """Both initial states are waited for; one window of a state goes to the matrix."""
    workload = lowered(graph_of("folded"))
    (back,) = [op for op in workload.matrix_ops if op.access.kind == "previous"]
    assert back.windows == 2 * 5
    assert (workload.tensor(back.initial).windows, workload.tensor(back.initial).width) == (1, 4)


def test_backward_directions_read_a_flipped_sequence() -> None:
    ops = {op.name: op for op in lowered(graph_of("last_state")).ops}
    flips = [op for op in ops.values() if isinstance(op, DigitalOp) and op.op == "flip"]
    assert [op.cost_class for op in flips] == ["movement"] * 2
    back = ops["rectified.weight_ih_l0_reverse"]
    assert isinstance(back, MatrixOp)
    assert back.input == flips[0].output


class Computed(nn.Module):
    """An RNN whose recurrent weight is its input."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        zeros, given = torch.zeros(1, 1, 3), [torch.ones(3, 3), weight]
        return torch.rnn_tanh(x, zeros, given, False, 1, 0.0, False, False, True)[0]


def test_computed_weights_are_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"aten\.rnn_tanh\.input .*its weights are computed from the input"):
        capture(Computed().eval(), (torch.randn(1, 5, 3), torch.randn(3, 3)), batch_dim=None)


def test_dropout_in_training_mode_is_refused() -> None:
    class Training(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(torch.randn(3, 3) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            weights = list(self.weights)
            return torch.rnn_tanh(x, torch.zeros(2, 1, 3), weights, False, 2, 0.5, True, False, True)[0]

    with pytest.raises(CaptureError, match=r"aten\.rnn_tanh\.input at .* is in training mode"):
        capture(Training().eval(), (torch.randn(1, 5, 3),), batch_dim=None)
