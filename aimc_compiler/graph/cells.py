"""Recurrent cells written out: two products with weights and elementwise operations, as torch's documentation does.

torch.export unrolls a loop over cells in forward, so every step is one more use of the same two matrices.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from aimc_compiler.graph.arguments import arguments
from aimc_compiler.graph.ir import op_name
from aimc_compiler.graph.split import Writer

_ATEN = torch.ops.aten


def split_cells(graph: fx.Graph) -> None:
    """Write out ``lstm_cell``, ``gru_cell``, ``rnn_tanh_cell`` and ``rnn_relu_cell``."""
    for node in list(graph.nodes):
        if node.op == "call_function" and (write := _CELLS.get(op_name(node))):
            write(_Writer(graph, node))


class _Writer(Writer):
    """Writes a cell out."""

    def __init__(self, graph: fx.Graph, node: fx.Node) -> None:
        super().__init__(graph, node)
        self.values = arguments(node)

    def products(self, state: fx.Node) -> tuple[fx.Node, fx.Node]:
        """(W_ih x + b_ih, W_hh h + b_hh)."""
        values = self.values
        given = self.call(_ATEN.linear.default, values["input"], values["w_ih"], values["b_ih"])
        return given, self.call(_ATEN.linear.default, state, values["w_hh"], values["b_hh"])

    def gates(self, value: fx.Node, count: int) -> list[fx.Node]:
        """The parts of the last dimension."""
        parts = self.call(_ATEN.chunk.default, value, count, -1)
        return [self.call(operator.getitem, parts, index) for index in range(count)]

    def add(self, left: fx.Node, right: fx.Node) -> fx.Node:
        return self.call(_ATEN.add.Tensor, left, right)

    def mul(self, left: fx.Node, right: fx.Node) -> fx.Node:
        return self.call(_ATEN.mul.Tensor, left, right)

    def sigmoid(self, value: fx.Node) -> fx.Node:
        return self.call(_ATEN.sigmoid.default, value)

    def tanh(self, value: fx.Node) -> fx.Node:
        return self.call(_ATEN.tanh.default, value)

    def finish_all(self, *results: fx.Node) -> None:
        """Let the results take the place of the cell: of its readers by number, or of itself where it has one."""
        if len(results) == 1:
            self.node.replace_all_uses_with(results[0])
        else:
            for reader in list(self.node.users):
                place = reader.args[1]
                assert isinstance(place, int)
                reader.replace_all_uses_with(results[place])
                self.graph.erase_node(reader)
        self.graph.erase_node(self.node)


def _lstm(write: _Writer) -> None:
    h, c = write.values["hx"]
    i, f, g, o = write.gates(write.add(*write.products(h)), 4)
    kept = write.mul(write.sigmoid(f), c)
    c = write.add(kept, write.mul(write.sigmoid(i), write.tanh(g)))
    write.finish_all(write.mul(write.sigmoid(o), write.tanh(c)), c)


def _gru(write: _Writer) -> None:
    h = write.values["hx"]
    given, fed = (write.gates(product, 3) for product in write.products(h))
    r, z = (write.sigmoid(write.add(given[gate], fed[gate])) for gate in (0, 1))
    n = write.tanh(write.add(given[2], write.mul(r, fed[2])))
    write.finish_all(write.add(n, write.mul(z, write.call(_ATEN.sub.Tensor, h, n))))


def _rnn(activation: Any) -> Callable[[_Writer], None]:
    def cell(write: _Writer) -> None:
        write.finish_all(write.call(activation, write.add(*write.products(write.values["hx"]))))

    return cell


_CELLS: dict[str, Callable[[_Writer], None]] = {
    "lstm_cell": _lstm,
    "gru_cell": _gru,
    "rnn_tanh_cell": _rnn(_ATEN.tanh.default),
    "rnn_relu_cell": _rnn(_ATEN.relu.default),
}
