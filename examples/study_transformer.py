"""A small transformer encoder on Fashion-MNIST: digital, mapped directly, trained for the chip.

    python examples/study_transformer.py --data /usr/share/datasets/fashion-mnist float
    python examples/study_transformer.py --data /usr/share/datasets/fashion-mnist train --seed 0
    python examples/study_transformer.py --data /usr/share/datasets/fashion-mnist score

Two convolutions make 49 tokens of an image (Xiao et al., "Early convolutions help transformers see better", NeurIPS
2021), three encoder layers of 64 features read them (Vaswani et al., NeurIPS 2017; norms in front: Xiong et al., ICML
2020), their mean is classified. Weights are analog but for the first convolution: its 288 of the 123 000 cost more than
all others together (``--study transformer-analog`` has them on tiles, too). Attention's own products, softmax and norms
are digital, as in Rasch et al. (2023). Data and splits are those of ``study_fashion.py``.
"""

from dataclasses import replace
from functools import partial

import torch
from study import NARROW, Split, Study, Training, cells_of, main, one_cycle
from study_fashion import read
from torch import Tensor, nn

from aimc_compiler.training import Recipe, Task


class FashionTransformer(nn.Module):
    """Transformer encoder on (batch, 1, 28, 28) images in [0, 1]; returns (batch, classes) logits."""

    def __init__(self, width: int = 64, layers: int = 3, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(0.02 * torch.randn(1, 49, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.norm(self.encoder(tokens)).mean(1))
        return logits


def digital(split: Split) -> Task:
    return Task(
        network=FashionTransformer,
        train=split.train,
        validation=split.validation,
        optimiser=partial(torch.optim.AdamW, lr=2e-3),
        scheduler=one_cycle(2e-3),
        loss=nn.CrossEntropyLoss(label_smoothing=0.05),
        weight_decay=0.05,
        clip_gradient=1.0,
        epochs=40,
    )


def adapted(split: Split, network: nn.Module) -> Task:
    return replace(
        digital(split),
        network=network,
        optimiser=partial(torch.optim.AdamW, lr=5e-4),
        scheduler=one_cycle(5e-4),
        range_rate=1e-3,
        epochs=8,
        batch_size=500,
    )


CHIPS = {"analog-fabric": 2000, "hermes": 2000, "neurram": 500}
CELLS = ("float", "adapted-0", "adapted-1")
STUDY = Study(
    name="transformer",
    title="Transformer encoder, Fashion-MNIST, first convolution digital",
    split=read,
    network=FashionTransformer,
    digital=digital,
    adapted=adapted,
    trainings={"adapted": Training("analog-fabric", Recipe(**NARROW))},
    cells=[*cells_of(*CELLS, chips=CHIPS)],
    rules={"stem.0": {"analog": False}},
)
ANALOG = replace(
    STUDY,
    name="transformer-analog",
    title="Transformer encoder, Fashion-MNIST, all layers analog",
    cells=[*cells_of(*CELLS, chips={"analog-fabric": CHIPS["analog-fabric"]})],
    rules={},
    float_of="transformer",
)

if __name__ == "__main__":
    main(__doc__, [STUDY, ANALOG])
