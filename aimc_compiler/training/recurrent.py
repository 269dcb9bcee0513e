"""Recurrent layers in training: their input products on all steps at once, then their loop.

The loop is that of ``aimc_compiler.graph.recurrent``, which compiled networks run, step by step; in the standard model
of training it is that of ``loops.py``, one operation for all steps.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.analog import Contraction
from aimc_compiler.errors import TrainingError
from aimc_compiler.graph.recurrent import RecurrentMode, RecurrentModule, Stepped
from aimc_compiler.training.layers import Place, TrainedLayer, Untied
from aimc_compiler.training.loops import run_loop
from aimc_compiler.training.matrix import TrainedMatrix

_LINEAR = Contraction(kind="linear")


class _Recurrent(TrainedLayer):
    """What the three kinds share. ``analog`` holds a matrix for each weight, by its name."""

    analog: nn.ModuleDict
    mode: str
    num_layers: int
    bidirectional: bool
    hidden_size: int
    proj_size: int
    batch_first: bool
    dropout: float
    bias: bool
    nonlinearity: str

    def cores(self) -> dict[str, TrainedMatrix]:
        return dict(self.analog.items())  # type: ignore[arg-type]

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """As torch's. Raises TrainingError on packed sequences."""
        if not isinstance(x, Tensor):
            raise TrainingError(
                f"a recurrent layer in training was given a {type(x).__name__}: pad the sequences, and mask what "
                "follows their ends"
            )
        single = x.dim() == 2
        states = self._states(hx, single=single)
        y = x[None] if single else x if self.batch_first else x.transpose(0, 1)
        last: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            found = []
            for suffix in self._directions(layer):
                found.append(self._run(y, suffix, [state[len(last)] for state in states]))
                last.append(found[-1][1:])
            y = torch.cat([outputs for outputs, *_ in found], -1)
            if self.dropout and layer + 1 < self.num_layers:
                y = F.dropout(y, self.dropout, self.training)
        ends = [torch.stack(values) for values in zip(*last, strict=True)]
        if single:
            return y[0], self._joined([end[:, 0] for end in ends])
        return y if self.batch_first else y.transpose(0, 1), self._joined(ends)

    def _run(self, x: Tensor, suffix: str, states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One layer in one direction: outputs and last states. x: (batch, time, inputs)."""
        backward = suffix.endswith("_reverse")
        x = x.flip(1) if backward else x
        names = {role: f"weight_{role}_{suffix}" for role in ("ih", "hh", "hr")}
        weights = {role: getattr(self, name)[None] for role, name in names.items() if name in self.analog}
        biases = {role: getattr(self, f"bias_{role}_{suffix}") if self.bias else None for role in ("ih", "hh")}
        gates = self.cores()[names["ih"]](x, weights["ih"], biases["ih"])
        steps = {
            role: _Steps(self.cores()[names[role]], weights[role], biases.get(role)) for role in weights if role != "ih"
        }
        roles = {"recurrent": "hh", "projection": "hr"}
        modules = {role: steps[short] for role, short in roles.items() if short in steps}
        state = self.proj_size or self.hidden_size
        loop = RecurrentModule(self._mode(), dict.fromkeys(modules, ""), modules, self.hidden_size, state, 1)
        with ExitStack() as stack:
            for role in steps:
                stack.enter_context(self.cores()[names[role]].held(weights[role]))
            outputs, *ends = loop(gates, *states)
        return (outputs.flip(1) if backward else outputs, *ends)

    def _directions(self, layer: int) -> list[str]:
        return [f"l{layer}", *([f"l{layer}_reverse"] if self.bidirectional else [])]

    def _mode(self) -> Any:
        return {"LSTM": "lstm", "GRU": "gru"}.get(self.mode, self.mode.lower())

    def _states(self, hx: Any, *, single: bool) -> list[Tensor]:
        """The initial states, (layers * directions, batch, width) each; none where they are zero."""
        given = [] if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
        return [state[:, None] for state in given] if single else given

    def _joined(self, ends: list[Tensor]) -> Any:
        return tuple(ends) if self.mode == "LSTM" else ends[0]

    def _add(self, place: Place) -> None:
        matrices = {}
        for name, weight in self.named_parameters(recurse=False):
            if name.startswith("weight_"):
                matrices[name] = place.matrix(name, name, weight, (1, weight.shape[0], weight.shape[1]), _LINEAR)
        self.analog = nn.ModuleDict(matrices)

    def restore(self, untied: Untied) -> None:
        super().restore(untied)
        self._init_flat_weights()  # type: ignore[operator]


class _Steps(Stepped, nn.Module):
    """A matrix of the loop with its weight of this mini-batch."""

    def __init__(self, core: TrainedMatrix, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._held = (core, weight, bias)  # a tuple: nothing is registered

    def at_step(self, x: Tensor, step: int) -> Tensor:
        core, weight, bias = self._held
        y: Tensor = core(x, weight, bias)
        return y

    def run_all(self, mode: RecurrentMode, gates: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, ...] | None:
        """All steps at once where that is the same."""
        core, _, bias = self._held
        return run_loop(core, mode, gates, h, c, bias)


class _NoProduct(Stepped, nn.Module):
    """What is left of a product with zeros."""

    def __init__(self, width: int, bias: Tensor | None) -> None:
        super().__init__()
        self._held = (width, bias)

    def at_step(self, x: Tensor, step: int) -> Tensor:
        width, bias = self._held
        return x.new_zeros(x.shape[0], width) if bias is None else bias.expand(x.shape[0], -1)


class TrainedLSTM(_Recurrent, nn.LSTM):  # type: ignore[misc]
    """``nn.LSTM`` on tiles."""

    plain = nn.LSTM


class TrainedGRU(_Recurrent, nn.GRU):  # type: ignore[misc]
    """``nn.GRU`` on tiles."""

    plain = nn.GRU


class TrainedRNN(_Recurrent, nn.RNN):  # type: ignore[misc]
    """``nn.RNN`` on tiles."""

    plain = nn.RNN


_CELLS: dict[type[nn.Module], str] = {nn.LSTMCell: "lstm", nn.GRUCell: "gru"}


class _Cell(TrainedLayer):
    """A cell that the network calls step by step."""

    analog: nn.ModuleDict
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    hidden_size: int

    def cores(self) -> dict[str, TrainedMatrix]:
        return dict(self.analog.items())  # type: ignore[arg-type]

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        """As torch's."""
        single = x.dim() == 1
        given = [] if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
        x, given = (x[None], [state[None] for state in given]) if single else (x, given)
        mode = self._mode()
        cores, known = self.cores(), bool(given)
        if not given:
            given = [x.new_zeros(x.shape[0], self.hidden_size) for _ in range(2 if mode == "lstm" else 1)]
        gates = cores["weight_ih"](x, self.weight_ih[None], self.bias_ih)
        step: nn.Module = _Steps(cores["weight_hh"], self.weight_hh[None], self.bias_hh)
        if not known:  # the compiler leaves the product with a state of zeros out, too
            step = _NoProduct(gates.shape[-1], self.bias_hh)
        width = self.hidden_size
        loop = RecurrentModule(mode, {"recurrent": ""}, {"recurrent": step}, width, width, 1)
        ends = [state[0] if single else state for state in loop(gates[:, None], *given)[1:]]
        return tuple(ends) if mode == "lstm" else ends[0]

    def _mode(self) -> Any:
        return _CELLS.get(self.plain) or f"rnn_{self.nonlinearity}"

    def _add(self, place: Place) -> None:
        names = ("weight_ih", "weight_hh")
        weights: dict[str, Tensor] = {name: getattr(self, name) for name in names}
        self.analog = nn.ModuleDict(
            {name: place.matrix(name, name, w, (1, w.shape[0], w.shape[1]), _LINEAR) for name, w in weights.items()}
        )


class TrainedLSTMCell(_Cell, nn.LSTMCell):  # type: ignore[misc]
    """``nn.LSTMCell`` on tiles."""

    plain = nn.LSTMCell


class TrainedGRUCell(_Cell, nn.GRUCell):  # type: ignore[misc]
    """``nn.GRUCell`` on tiles."""

    plain = nn.GRUCell


class TrainedRNNCell(_Cell, nn.RNNCell):  # type: ignore[misc]
    """``nn.RNNCell`` on tiles."""

    plain = nn.RNNCell
