"""An LSTM on spoken digits: digital, mapped directly, trained for the chip; official split and held-out speakers.

    git clone https://github.com/Jakobovski/free-spoken-digit-dataset
    python examples/study_digits.py --data free-spoken-digit-dataset/recordings float
    python examples/study_digits.py --data free-spoken-digit-dataset/recordings train --seed 0
    python examples/study_digits.py --data free-spoken-digit-dataset/recordings score

Clips 0 to 4 of each speaker and digit are the official test set. Clips 5 to 9 chose the settings, left out of training
then; for the results they are trained on like all others. ``--study digits`` is the official split alone; in ``--study
digits-theo`` and five more one speaker is held out of training, and all of that speaker's clips are tested. See
``study.py`` for the commands.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from spoken_digits import read_clips
from study import Batches, Cell, Split, Study, Training, cells_of, main, one_cycle
from torch import Tensor, nn

from aimc_compiler.training import Recipe, Task
from aimc_compiler.zoo.digits import DigitLstm

BATCH, VALIDATION = 64, 5
CHIPS = {"adapted": "analog-fabric", "hermes": "hermes", "neurram": "neurram"}
#: A training takes a minute, and a seed tells more of a speaker than chips do.
SEEDS = tuple(f"adapted-{seed}" for seed in range(5))
#: The default's input ranges do better than 3 deviations and 95 % in the mean over any five of the speakers, so that
#: whoever is held out did not choose them.
RECIPE = Recipe(clip_sigmas=2.5)
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def read(path: Path, speaker: int | None = None, *, choosing: bool = False) -> Split:
    """Log-mel features and digits; without the clips of ``speaker``, by number, which are the test then.

    Clips 5 to 9 are the validation: with ``choosing`` they are not trained on.
    """
    clips = read_clips(path)
    x, y = clips.features(), clips.digit
    held = clips.index < VALIDATION if speaker is None else clips.speaker == speaker
    chosen = (clips.index >= VALIDATION) & (clips.index < 2 * VALIDATION) & ~held
    kept = ~held & ~chosen if choosing else ~held
    return Split(
        train=Batches(x[kept], y[kept], BATCH, augment),
        validation=(x[chosen], y[chosen]),
        test=(x[held], y[held]),
        calibration=x[kept][::4],
    )


def augment(x: Tensor) -> Tensor:
    """Clips up to a quarter faster or slower and up to six frames later, of vocal tracts up to a tenth shorter or
    longer (Jaitly and Hinton, "Vocal tract length perturbation", ICML workshop 2013), with a little noise. Behind clips
    stay zeros.
    """
    batch, frames, bands = x.shape
    rate, delay = 0.8 + 0.45 * torch.rand(batch, 1), 6 * torch.rand(batch, 1)
    x = between(x, (torch.arange(frames) - delay) * rate)
    length = 0.9 + 0.2 * torch.rand(batch, 1)
    x = between(x.transpose(1, 2), (torch.arange(bands) * length).clamp(max=bands - 1)).transpose(1, 2)
    return x + 0.1 * torch.randn_like(x) * (x != 0)


def between(x: Tensor, places: Tensor) -> Tensor:
    """Rows of ``x``, (batch, rows, width), at ``places``, (batch, count), in between in proportion; zeros outside."""
    batch, rows, width = x.shape
    padded = torch.cat([x, x.new_zeros(batch, 1, width)], 1)
    low = places.floor().long()
    share = (places - low)[..., None]
    below, above = (
        padded.gather(1, torch.where((row < 0) | (row >= rows), rows, row)[..., None].expand(-1, -1, width))
        for row in (low, low + 1)
    )
    return below * (1 - share) + above * share


def digital(split: Split) -> Task:
    return Task(
        network=DigitLstm,
        train=split.train,
        validation=split.validation,
        optimiser=partial(torch.optim.AdamW, lr=4e-3),
        scheduler=one_cycle(4e-3),
        loss=nn.CrossEntropyLoss(label_smoothing=0.05),
        weight_decay=1e-2,
        clip_gradient=1.0,
        epochs=100,
    )


def adapted(split: Split, network: nn.Module) -> Task:
    """At a low rate, chosen with george held out: at a higher one the network learns other things about speakers than
    the digital one knows, for better or worse."""
    return replace(
        digital(split),
        network=network,
        optimiser=partial(torch.optim.AdamW, lr=5e-4),
        scheduler=one_cycle(5e-4),
        range_rate=1e-3,
        epochs=30,
        batch_size=300,
    )


def study(name: str, title: str, speaker: int | None, cells: list[Cell]) -> Study:
    return Study(
        name=name,
        title=title,
        split=partial(read, speaker=speaker),
        network=DigitLstm,
        digital=digital,
        adapted=adapted,
        trainings={name: Training(chip, RECIPE) for name, chip in CHIPS.items()},
        cells=cells,
        batch=100,
    )


OFFICIAL = study(
    "digits",
    "LSTM, spoken digits, official split",
    None,
    [
        *cells_of("float", *SEEDS[:2], "hermes-0", "neurram-0", chips=dict.fromkeys(CHIPS.values(), 0)),
        *cells_of(*SEEDS[2:], chips={"analog-fabric": 0}),
    ],
)
FABRIC = [*cells_of("float", *SEEDS, chips={"analog-fabric": 0})]
HELD_OUT = [
    study(
        f"digits-{name}",
        f"LSTM, spoken digits, {name}{' (chose the rate)' if name == 'george' else ''}",
        number,
        FABRIC,
    )
    for number, name in enumerate(SPEAKERS)
]

if __name__ == "__main__":
    main(__doc__, [OFFICIAL, *HELD_OUT])
