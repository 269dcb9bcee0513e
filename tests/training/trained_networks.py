"""Networks of every kind that is trained for tiles, with inputs of a few samples."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aimc_compiler.zoo.gpt2 import Conv1D


class Head(nn.Module):
    """A layer whose first output goes to a linear head."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 4)

    def forward(self, *x: Tensor) -> Tensor:
        y: Any = self.body(*x)
        outputs: Tensor = self.head(y[0] if isinstance(y, tuple) else y)
        return outputs


class Cells(nn.Module):
    """A cell called in a loop."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = x.new_zeros(x.shape[0], 5)
        state = (state, state) if isinstance(self.cell, nn.LSTMCell) else state
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        y: Tensor = self.head(state[0] if isinstance(state, tuple) else state)
        return y


class Shared(nn.Module):
    """One layer used three times, and two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        y: Tensor = self.other(x)
        return y


class BothWays(nn.Module):
    """A weight that is a matrix and its transpose."""

    def __init__(self, there: nn.Module, back: nn.Module) -> None:
        super().__init__()
        self.there, self.back = there, back
        self.back.weight = self.there.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.back(torch.tanh(self.there(x)))
        return y


def at_two_paths() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(6, 3))


class Cross(nn.Module):
    """Attention of one sequence to another, time first."""

    def __init__(self, *, copies: bool = False, **widths: int) -> None:
        super().__init__()
        self.copies, self.attention = copies, nn.MultiheadAttention(16, 4, **widths)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        query, key = x.transpose(0, 1), z.transpose(0, 1)
        y: Tensor = self.attention(query, key, key.clone() if self.copies else key)[0]
        return y.transpose(0, 1)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(70, 20, 3, padding=1, groups=2),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        nn.ConvTranspose2d(20, 8, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Conv2d(8, 6, 3, padding="same", padding_mode="reflect"),
        nn.Flatten(),
        nn.Linear(600, 10),
    )


Made = tuple[nn.Module, tuple[Tensor, ...]]


def _draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def networks() -> dict[str, Callable[[], Made]]:
    """name -> function that makes a network and six samples."""

    def encoder() -> nn.Module:
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
        return nn.TransformerEncoder(layer, 2)

    def recurrent(kind: Any, width: int, **options: Any) -> Made:
        return Head(kind(8, 12, 2, batch_first=True, **options), width), (_draw(6, 5, 8),)

    return {
        "linear": lambda: (nn.Linear(700, 30), (_draw(6, 700),)),
        "sequence": lambda: (nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3)), (_draw(6, 4, 9),)),
        "convolutions": lambda: (convolutions(), (_draw(6, 70, 5, 5),)),
        "conv1d": lambda: (nn.Conv1d(6, 4, 3, stride=2, dilation=2), (_draw(6, 6, 11),)),
        "conv3d": lambda: (nn.Conv3d(2, 4, 3, padding=1), (_draw(6, 2, 4, 4, 4),)),
        "lstm": lambda: recurrent(nn.LSTM, 24, bidirectional=True),
        "lstm projected": lambda: recurrent(nn.LSTM, 3, proj_size=3),
        "gru": lambda: recurrent(nn.GRU, 12),
        "rnn": lambda: recurrent(nn.RNN, 12, nonlinearity="relu", bias=False),
        "lstm cells": lambda: (Cells(nn.LSTMCell(4, 5)), (_draw(6, 3, 4),)),
        "gru cells": lambda: (Cells(nn.GRUCell(4, 5)), (_draw(6, 3, 4),)),
        "shared": lambda: (Shared(), (_draw(6, 6),)),
        "module at two paths": lambda: (at_two_paths(), (_draw(6, 6),)),
        "one weight both ways": lambda: (
            BothWays(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 3, 3)),
            (_draw(6, 3, 6, 6),),
        ),
        "encoder": lambda: (Head(encoder(), 16), (_draw(6, 5, 16),)),
        "decoder": lambda: (
            nn.TransformerDecoderLayer(16, 4, 32, batch_first=True, dropout=0.0),
            (_draw(6, 5, 16), _draw(6, 7, 16)),
        ),
        "stored by rows": lambda: (nn.Sequential(Conv1D(40, 7), nn.GELU(), Conv1D(7, 3)), (_draw(6, 4, 40),)),
        "attention": lambda: (Cross(copies=True), (_draw(6, 5, 16), _draw(6, 7, 16))),
        "attention of widths": lambda: (Cross(kdim=8, vdim=8), (_draw(6, 5, 16), _draw(6, 7, 8))),
    }


NETWORKS = networks()

#: A recipe without any effect, whose ranges are wide enough to clip nothing.
QUIET = {
    "noise": "none",
    "read_noise": 0.0,
    "output_noise": 0.0,
    "converters": False,
    "range_sigmas": 50.0,
    "range_batches": 10_000,
}
