"""Recurrent networks for the tests, samples along dimension 0: name -> function that returns (model, inputs)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Directions(nn.Module):
    """Two bidirectional LSTM layers with projection; initial states given, all results used."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 6, 2, bidirectional=True, proj_size=2, batch_first=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        y, (last, cell) = self.lstm(x, (h.transpose(0, 1), c.transpose(0, 1)))
        return self.head(y), last.transpose(0, 1), cell.transpose(0, 1)


class TimeMajor(nn.Module):
    """Two GRU layers that take time first, and an LSTM whose last cells alone are read; initial states are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(4, 5, 2), nn.LSTM(5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, last = self.gru(x.transpose(0, 1))
        _, (_, cell) = self.lstm(torch.relu(y))
        return last.transpose(0, 1), cell[0]


class LastState(nn.Module):
    """A bidirectional RNN with relu and without biases, and one with tanh that starts at a learned state."""

    def __init__(self) -> None:
        super().__init__()
        self.rectified = nn.RNN(4, 5, nonlinearity="relu", bias=False, bidirectional=True, batch_first=True)
        self.rnn, self.start = nn.RNN(10, 3, batch_first=True), nn.Parameter(torch.randn(1, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rectified(x)
        _, last = self.rnn(y, self.start.expand(-1, x.shape[0], -1).contiguous())
        return last[-1]


class Cells(nn.Module):
    """Every kind of cell in a loop of forward; one starts at ones, one at an input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(3, 4), nn.GRUCell(4, 5)
        self.rectified, self.rnn = nn.RNNCell(5, 4, nonlinearity="relu", bias=False), nn.RNNCell(4, 2)

    def forward(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        state, gated, third, fourth, outputs = None, None, x.new_ones(x.shape[0], 4), start, []
        for step in range(x.shape[1]):
            state = self.lstm(x[:, step], state)
            gated = self.gru(state[0], gated)
            third = self.rectified(gated, third)
            fourth = self.rnn(third, fourth)
            outputs.append(fourth)
        assert state is not None
        return torch.stack(outputs, 1), state[1]


class Folded(nn.Module):
    """Two sequences a sample, folded into the batch of a GRU; an initial state for each."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        y, _ = self.gru(x.flatten(0, 1), h.flatten(0, 1)[None])
        return y.unflatten(0, x.shape[:2])


class Decoder(nn.Module):
    """A GRU on zeros from a given state, so that its input products are constants, and an LSTM whose c starts there."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(3, 4, batch_first=True), nn.LSTM(4, 4)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.gru(torch.zeros(h.shape[0], 5, 3, dtype=h.dtype), h[None])
        _, (last, cell) = self.lstm(y.transpose(0, 1), (torch.zeros(1, h.shape[0], 4, dtype=h.dtype), h[None]))
        return last[0], cell[0]


def _built(
    build: Callable[[], nn.Module], *shapes: tuple[int, ...]
) -> Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(1)
        return build().eval(), tuple(torch.randn(2, *shape) for shape in shapes)

    return make


RECURRENT = {
    "directions": _built(Directions, (7, 3), (4, 2), (4, 6)),
    "time_major": _built(TimeMajor, (6, 4)),
    "last_state": _built(LastState, (5, 4)),
    "cells": _built(Cells, (3, 3), (2,)),
    "folded": _built(Folded, (2, 5, 3), (2, 4)),
    "decoder": _built(Decoder, (4,)),
}
