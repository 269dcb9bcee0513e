"""A recurrent layer as a module: its steps one after another, with the matrices that multiply the state.

The products of the inputs are an ordinary matrix operation in front, on all steps at once. What is left is the loop of
one layer in one direction: a product with the state of the step before, and a digital cell. With ``a`` the input
products and ``u = W_hh h + b_hh``, both with their biases, gates one after another as torch keeps them::

    lstm:      i, f, g, o = a + u;  c <- sigmoid(f) c + sigmoid(i) tanh(g);  h = sigmoid(o) tanh(c), or W_hr of that
    gru:       r, z = sigmoid(a + u);  n = tanh(a_n + r u_n);  h <- (1 - z) n + z h
    rnn:       h = tanh(a + u), or relu

(Hochreiter and Schmidhuber, Neural Comput. 9, 1735 (1997); Sak et al., Interspeech 2014; Cho et al., EMNLP 2014.)
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from aimc_compiler.graph.matrix import MatrixModule

RecurrentMode = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
#: Gates of a cell: parts of the outputs of W_ih and W_hh.
GATES: dict[str, int] = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class Stepped(ABC):
    """A matrix of a recurrent layer that does not do the same at every step, as one on a chip."""

    @abstractmethod
    def at_step(self, x: Tensor, step: int) -> Tensor:
        """The output of one step. x: (batch, inputs); step: from 0."""

    def run_all(self, mode: RecurrentMode, gates: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, ...] | None:
        """All steps of a layer without projection at once; None where they must be run one by one.

        gates: (batch, steps, gates * units), the input products; h, c: (batch, units), c of an LSTM. Returns (outputs,
        last h) and for an LSTM the last c.
        """
        return None


class RecurrentModule(nn.Module):
    """The loop of one recurrent layer in one direction.

    mode: "lstm", "gru", "rnn_tanh" or "rnn_relu"; names: of each matrix by its role ("recurrent", "projection"), as
    matrix operations are called; modules: those matrices by role, W_hh (gates * units, state) and W_hr (state, units);
    units, state: widths of the cell and of what it gives (fewer with projection); time_axis: 1 for (batch, time, ...),
    0 for (time, batch, ...).
    """

    def __init__(
        self,
        mode: RecurrentMode,
        names: Mapping[str, str],
        modules: Mapping[str, nn.Module],
        units: int,
        state: int,
        time_axis: int,
    ) -> None:
        super().__init__()
        self.mode: RecurrentMode = mode
        self.names = dict(names)
        self.units, self.state = units, state
        self.time_axis = time_axis
        self.recurrent = modules["recurrent"]
        self.projection: nn.Module | None = modules.get("projection")

    @staticmethod
    def of(
        mode: RecurrentMode, names: Mapping[str, str], modules: Mapping[str, MatrixModule], time_axis: int
    ) -> "RecurrentModule":
        """The loop of these matrices, whose weights give its widths."""
        outputs, state = modules["recurrent"].weight.shape
        return RecurrentModule(mode, names, modules, int(outputs) // GATES[mode], int(state), time_axis)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Its matrices by the name of the operation, in execution order."""
        held = {"recurrent": self.recurrent, "projection": self.projection}
        return {self.names[role]: module for role, module in held.items() if module is not None}

    def with_parts(self, modules: Mapping[str, nn.Module]) -> "RecurrentModule":
        """The same loop with other modules for some of its matrices. modules: by name."""
        roles = {role: modules.get(name, self.parts[name]) for role, name in self.names.items()}
        return RecurrentModule(self.mode, self.names, roles, self.units, self.state, self.time_axis)

    def forward(self, gates: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> tuple[Tensor, ...]:
        """(outputs of all steps, last h) and for an LSTM the last c.

        gates: (batch, time, gates * units), the input products with their biases, or (time, batch, ...); h, c: (batch,
        state) and (batch, units), zeros where they are None. Outputs have the form of gates.
        """
        batch = gates.shape[1 - self.time_axis]
        h = gates.new_zeros(batch, self.state) if h is None else h
        c = gates.new_zeros(batch, self.units) if c is None and self.mode == "lstm" else c
        fused = self._fused(gates, h, c)
        if fused is not None:
            return fused
        outputs = []
        for step, given in enumerate(gates.unbind(self.time_axis)):
            h, c = self._step(given, h, c, step)
            outputs.append(h)
        y = torch.stack(outputs, self.time_axis)
        return (y, h) if c is None else (y, h, c)

    def _fused(self, gates: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, ...] | None:
        if not isinstance(self.recurrent, Stepped) or self.projection is not None:
            return None
        result = self.recurrent.run_all(self.mode, gates.movedim(self.time_axis, 1), h, c)
        return None if result is None else (result[0].movedim(1, self.time_axis), *result[1:])

    def _step(self, given: Tensor, h: Tensor, c: Tensor | None, step: int) -> tuple[Tensor, Tensor | None]:
        """The next (h, c). given: (batch, gates * units), the input products of this step."""
        fed = self._multiply(self.recurrent, h, step)
        if c is None:
            return _CELLS[self.mode](given, fed, h), None
        i, f, g, o = (given + fed).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h if self.projection is None else self._multiply(self.projection, h, step)), c

    def _multiply(self, module: nn.Module, x: Tensor, step: int) -> Tensor:
        y: Tensor = module.at_step(x, step) if isinstance(module, Stepped) else module(x)
        return y

    def extra_repr(self) -> str:
        return f"{self.mode}, units={self.units}, {', '.join(self.names.values())}"


def _gru(given: Tensor, fed: Tensor, h: Tensor) -> Tensor:
    (given_r, given_z, given_n), (fed_r, fed_z, fed_n) = given.chunk(3, -1), fed.chunk(3, -1)
    n = torch.tanh(given_n + torch.sigmoid(given_r + fed_r) * fed_n)
    return n + torch.sigmoid(given_z + fed_z) * (h - n)


def _rnn_tanh(given: Tensor, fed: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(given + fed)


def _rnn_relu(given: Tensor, fed: Tensor, h: Tensor) -> Tensor:
    return torch.relu(given + fed)


_CELLS = {"gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}
