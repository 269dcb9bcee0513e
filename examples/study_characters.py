"""A character LSTM on tiny Shakespeare: digital, mapped directly, trained for the chip. Scored is the next character.

    curl -O https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt
    python examples/study_characters.py --data input.txt float
    python examples/study_characters.py --data input.txt train --seed 0
    python examples/study_characters.py --data input.txt score

The first 90 % of the text are trained on, the next 5 % chose settings, the last 5 % are reported, in pieces of 256
characters that each begin without a state. The embedding is digital, as in Rasch et al. (2023). See ``study.py`` for
the commands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from study import NARROW, Pair, Split, Study, Training, cells_of, main, one_cycle
from torch import Tensor, nn

from aimc_compiler.training import Recipe, Task

BATCH, STEPS, TESTED = 64, 128, 256


class CharacterLstm(nn.Module):
    """Two LSTM layers on (batch, time) characters by number; returns (batch, time, characters) logits."""

    def __init__(self, characters: int = 65, embedded: int = 64, width: int = 192, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedded)
        self.lstm = nn.LSTM(embedded, width, 2, batch_first=True, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, characters)

    def forward(self, text: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.lstm(self.embedding(text))[0]))
        return logits


@dataclass(frozen=True)
class Windows:
    """Batches of pieces of a text, cut at places that are drawn anew each time."""

    text: Tensor

    def __len__(self) -> int:
        return (len(self.text) - STEPS - 1) // (BATCH * STEPS)

    def __iter__(self) -> Iterator[Pair]:
        first = int(torch.randint(0, STEPS, ()))
        order = torch.randperm((len(self.text) - 1 - first) // STEPS)[: len(self) * BATCH]
        for chosen in (first + STEPS * order).split(BATCH):
            places = chosen[:, None] + torch.arange(STEPS)
            yield self.text[places], self.text[places + 1]


def read(path: Path) -> Split:
    """Characters by their number in the order of their code."""
    text = path.read_text()
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([numbers[character] for character in text])
    ends = len(codes) * 90 // 100, len(codes) * 95 // 100
    train = Windows(codes[: ends[0]])
    calibration = codes[: 64 * TESTED].reshape(64, TESTED)
    return Split(train, pieces(codes[ends[0] : ends[1]]), pieces(codes[ends[1] :]), calibration)


def pieces(codes: Tensor) -> Pair:
    """(inputs, targets), (pieces, TESTED) each."""
    count = (len(codes) - 1) // TESTED
    x, y = codes[: count * TESTED], codes[1 : count * TESTED + 1]
    return x.reshape(count, TESTED), y.reshape(count, TESTED)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def characters_right(outputs: Tensor, targets: Tensor) -> Tensor:
    """(pieces, TESTED): whether the likeliest character comes next; the error is 1 less the mean."""
    return outputs.argmax(-1) == targets


def digital(split: Split) -> Task:
    return Task(
        network=CharacterLstm,
        train=split.train,
        validation=split.validation,
        optimiser=partial(torch.optim.AdamW, lr=4e-3),
        scheduler=one_cycle(4e-3),
        loss=loss,
        metric=characters_right,
        weight_decay=1e-2,
        clip_gradient=1.0,
        epochs=15,
    )


def adapted(split: Split, network: nn.Module) -> Task:
    return replace(
        digital(split),
        network=network,
        optimiser=partial(torch.optim.AdamW, lr=2e-3),
        scheduler=one_cycle(2e-3),
        range_rate=1e-3,
        epochs=16,
        batch_size=256,
    )


#: Chosen on the validation text, next to threefold programming noise, other clipping and distillation, all worse.
RECIPE = Recipe(clip_sigmas=2.5, **NARROW)

STUDY = Study(
    name="characters",
    title="Character LSTM, tiny Shakespeare",
    split=read,
    network=CharacterLstm,
    digital=digital,
    adapted=adapted,
    trainings={"adapted": Training("analog-fabric", RECIPE)},
    cells=[*cells_of("float", "adapted-0", "adapted-1", chips={"analog-fabric": 0, "hermes": 60, "neurram": 60})],
    metric=characters_right,
    chance=0.14604,
    batch=256,
)

if __name__ == "__main__":
    main(__doc__, [STUDY])
