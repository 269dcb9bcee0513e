"""A residual CNN on Fashion-MNIST, every layer analog: digital, mapped directly, trained for the chip.

    apt-get install dataset-fashion-mnist      # or any folder that holds the four idx .gz files
    python examples/study_fashion.py --data /usr/share/datasets/fashion-mnist float
    python examples/study_fashion.py --data /usr/share/datasets/fashion-mnist train --seed 0
    python examples/study_fashion.py --data /usr/share/datasets/fashion-mnist score

The last 5000 training images choose settings and are never trained on; the 10 000 test images are reported. See
``study.py`` for the commands.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from study import NARROW, Batches, Split, Study, Training, cells_of, main, one_cycle
from torch import nn
from train_fashion import augment, read_set

from aimc_compiler.training import RASCH_2023, Recipe, Task
from aimc_compiler.zoo.fashion import FashionResNet

BATCH, VALIDATION = 128, 5000


def read(folder: Path) -> Split:
    """Images in [0, 1] and labels."""
    sets = [read_set(folder, name) for name in ("train", "t10k")]
    (x, y), test = [
        (torch.from_numpy(images.astype(np.float32) / np.float32(255)).unsqueeze(1), torch.from_numpy(labels).long())
        for images, labels in sets
    ]
    return Split(
        train=Batches(x[:-VALIDATION], y[:-VALIDATION], BATCH, augment),
        validation=(x[-VALIDATION:], y[-VALIDATION:]),
        test=test,
        calibration=x[:1000],
    )


def digital(split: Split) -> Task:
    return Task(
        network=FashionResNet,
        train=split.train,
        validation=split.validation,
        optimiser=partial(torch.optim.SGD, lr=0.4, momentum=0.9, nesterov=True),
        scheduler=one_cycle(0.4),
        loss=nn.CrossEntropyLoss(label_smoothing=0.05),
        weight_decay=5e-4,
        epochs=30,
    )


def adapted(split: Split, network: nn.Module) -> Task:
    return replace(
        digital(split),
        network=network,
        optimiser=partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
        scheduler=one_cycle(0.05),
        range_rate=1e-3,
        epochs=10,
        batch_size=500,
    )


#: Test images on the chip, 25 times at four times.
FABRIC = {"analog-fabric": 5000}

#: The method of Rasch et al. (2023), and what may be better.
BASELINE = replace(RASCH_2023, noise_ramp=430)
DRIFT = Recipe(clip="none", freeze_norms=0.0, **NARROW)
CLIP = replace(BASELINE, clip="k-sigma", clip_sigmas=2.0, remap_every=1)
FROZEN = Recipe(distillation=0.5, **NARROW)
#: For chips whose batch norms are measured again: they follow to the end, and chips are a day to a year old.
AGED = replace(FROZEN, freeze_norms=0.0, drift_s=(86400.0, 31536000.0))
LONG = {
    "epochs": 30,
    "optimiser": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "scheduler": one_cycle(0.1),
    "clip_gradient": 1.0,
}
CLIPPED = {"clip_gradient": 1.0}
TRAININGS = {
    "baseline": Training("analog-fabric", BASELINE),
    "drift": Training("analog-fabric", DRIFT),
    "clip": Training("analog-fabric", CLIP),
    "distilled": Training("analog-fabric", replace(BASELINE, distillation=0.5)),
    "frozen": Training("analog-fabric", FROZEN, CLIPPED),
    "undistilled": Training("analog-fabric", replace(FROZEN, distillation=0.0), CLIPPED),
    "unfrozen": Training("analog-fabric", replace(FROZEN, freeze_norms=0.0), CLIPPED),
    "default": Training("analog-fabric", Recipe(), CLIPPED),
    "default-unfrozen": Training("analog-fabric", Recipe(freeze_norms=0.0), CLIPPED),
    "aged": Training("analog-fabric", AGED, CLIPPED | {"epochs": 20}),
    "undrifted": Training("analog-fabric", replace(CLIP, distillation=0.5, freeze_norms=0.2), CLIPPED),
    "baseline-long": Training("analog-fabric", BASELINE, LONG),
    "clip-long": Training("analog-fabric", CLIP, LONG),
    "frozen-long": Training("analog-fabric", FROZEN, LONG),
}

STUDY = Study(
    name="fashion",
    title="Residual CNN, Fashion-MNIST, all layers analog",
    split=read,
    network=FashionResNet,
    digital=digital,
    adapted=adapted,
    trainings=TRAININGS,
    cells=[
        *cells_of("float", *(f"{name}-{seed}" for name in TRAININGS for seed in (0, 1)), chips=FABRIC, norms=True),
        *cells_of("float", "default-0", "default-1", chips={"hermes": 2000, "neurram": 1000}),
    ],
)

if __name__ == "__main__":
    main(__doc__, [STUDY])
