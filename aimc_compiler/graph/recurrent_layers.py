"""Recurrent layers in the normal form: each layer and direction becomes a matrix operation on all steps and a loop.

torch.export keeps ``aten.lstm.input``, ``aten.gru.input``, ``aten.rnn_tanh.input`` and ``aten.rnn_relu.input`` whole.
Backward directions run forward on the flipped sequence.
"""

import operator
from typing import Any, cast

import torch
from torch import Tensor, fx

from aimc_compiler.graph.arguments import arguments
from aimc_compiler.graph.extract import Extraction
from aimc_compiler.graph.ir import attribute_name, op_name
from aimc_compiler.graph.matrix import MatrixModule
from aimc_compiler.graph.origin import read_origin
from aimc_compiler.graph.recurrent import GATES, RecurrentMode, RecurrentModule
from aimc_compiler.records import record

_ATEN = torch.ops.aten
_ZEROS = frozenset(["zeros", "new_zeros", "zeros_like"])


def extract_recurrent(extraction: Extraction) -> None:
    """Put matrix operations and loops in the place of every recurrent layer whose weights are constants and whose
    sequence is not; packed sequences are left."""
    for node in list(extraction.graph.nodes):
        if node.op == "call_function" and op_name(node) in GATES and str(node.target).endswith(".input"):
            layers = _Layers.of(extraction, node)
            if layers is not None:
                _Writer(extraction, node, layers).run()


@record
class _Layers:
    """What a call of a recurrent layer says. parameters: of each layer and direction; states: one or two nodes, or
    none where the initial states are zero."""

    mode: RecurrentMode
    x: fx.Node
    states: tuple[fx.Node, ...]
    parameters: tuple[tuple[tuple[Tensor, str], ...], ...]
    biased: bool
    layers: int
    directions: int
    time_axis: int

    @staticmethod
    def of(extraction: Extraction, node: fx.Node) -> "_Layers | None":
        values = arguments(node)
        found = [extraction.constants.find(parameter) for parameter in values["params"]]
        known = [parameter for parameter in found if parameter is not None]
        if len(known) < len(found) or extraction.constants.find(values["input"]) is not None:
            return None
        directions = 2 if values["bidirectional"] else 1
        each = len(known) // (values["num_layers"] * directions)
        states = values["hx"] if isinstance(values["hx"], list | tuple) else [values["hx"]]
        return _Layers(
            mode=cast(RecurrentMode, op_name(node)),
            x=values["input"],
            states=() if all(map(_zero, states)) else tuple(states),
            parameters=tuple(tuple(known[start : start + each]) for start in range(0, len(known), each)),
            biased=values["has_biases"],
            layers=values["num_layers"],
            directions=directions,
            time_axis=1 if values["batch_first"] else 0,
        )


def _zero(state: fx.Node) -> bool:
    return state.op == "call_function" and op_name(state) in _ZEROS


class _Writer:
    """Writes the layers before a node."""

    def __init__(self, extraction: Extraction, node: fx.Node, layers: _Layers) -> None:
        self.extraction, self.node, self.layers = extraction, node, layers

    def run(self) -> None:
        layers, x = self.layers, self.layers.x
        last: list[list[fx.Node]] = []
        for layer in range(layers.layers):
            sides = []
            for direction in range(layers.directions):
                index = layer * layers.directions + direction
                y, *states = self._direction(x, index, backward=direction == 1)
                sides.append(y)
                last.append(states)
            x = sides[0] if len(sides) == 1 else self._call(_ATEN.cat.default, sides, 2)
        results = [x, *(self._stacked(list(states)) for states in zip(*last, strict=True))]
        for reader in list(self.node.users):
            place = reader.args[1]
            assert isinstance(place, int)
            reader.replace_all_uses_with(results[place])
            self.extraction.graph.erase_node(reader)
        self.extraction.graph.erase_node(self.node)

    def _direction(self, x: fx.Node, index: int, *, backward: bool) -> list[fx.Node]:
        """(outputs of all steps, last h, last c of an LSTM) of one layer in one direction."""
        layers = self.layers
        parameters = layers.parameters[index]
        own_bias = parameters[2:4] if layers.biased else (None, None)
        if backward:
            x = self._call(_ATEN.flip.default, x, [layers.time_axis])
        gates = self.extraction.insert(self.node, self._matrix(parameters[0], own_bias[0]), x)
        projection = parameters[4 if layers.biased else 2 :]
        modules = {"recurrent": self._matrix(parameters[1], own_bias[1])}
        if projection:
            modules["projection"] = self._matrix(projection[0], None)
        names = {role: self.extraction.name(self.node, module.parameter) for role, module in modules.items()}
        loop = self._loop(RecurrentModule.of(layers.mode, names, modules, layers.time_axis), gates, index)
        count = 3 if layers.mode == "lstm" else 2
        results = [self._call(operator.getitem, loop, place) for place in range(count)]
        if backward:
            results[0] = self._call(_ATEN.flip.default, results[0], [layers.time_axis])
        return results

    def _matrix(self, weight: tuple[Tensor, str], bias: tuple[Tensor, str] | None) -> MatrixModule:
        held = self.extraction.weight(*weight)
        return MatrixModule("linear", weight[1], held, None if bias is None else bias[0].detach())

    def _loop(self, module: RecurrentModule, gates: fx.Node, index: int) -> fx.Node:
        name = self.extraction.unique(_cell_name(module.names["recurrent"].partition("@")[0]))
        self.extraction.root.add_module(attribute_name(name), module)
        initial = [self._call(_ATEN.select.int, state, 0, index) for state in self.layers.states]
        with self.extraction.graph.inserting_before(self.node):
            loop = self.extraction.graph.create_node("call_module", attribute_name(name), (gates, *initial))
        loop.meta["origin"] = read_origin(self.node)
        return loop

    def _stacked(self, states: list[fx.Node]) -> fx.Node:
        if len(states) == 1:
            return self._call(_ATEN.unsqueeze.default, states[0], 0)
        return self._call(_ATEN.stack.default, states, 0)

    def _call(self, target: Any, *args: Any) -> fx.Node:
        with self.extraction.graph.inserting_before(self.node):
            made = self.extraction.graph.call_function(target, args)
        made.meta["origin"] = read_origin(self.node)
        return made


def _cell_name(recurrent: str) -> str:
    """ "lstm.cell_l0" for "lstm.weight_hh_l0"."""
    path, _, leaf = recurrent.rpartition(".")
    cell = leaf.replace("weight_hh", "cell") if "weight_hh" in leaf else f"{leaf}.cell"
    return f"{path}.{cell}" if path else cell
