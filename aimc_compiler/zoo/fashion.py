"""A small residual CNN for Fashion-MNIST, its trained weights, and the images it is tried on.

The network is a CIFAR-style residual network (He et al., "Deep residual learning for image recognition",
CVPR 2016, section 4.2) of three stages with one block each, on 28 x 28 grey images. The weights were trained
by ``examples/train_fashion.py`` on the 60 000 training images of Fashion-MNIST (Xiao, Rasul, Vollgraf,
arXiv:1708.07747, MIT licence); the committed images are the first ones of its test and training sets.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ASSETS = Path(__file__).parent / "assets"
WEIGHTS = ASSETS / "fashion_resnet.safetensors"
IMAGES = ASSETS / "fashion_mnist.npz"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def conv_norm(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias followed by batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, kernel=3, stride=stride)
        self.second = conv_norm(outputs, outputs, kernel=3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        return torch.relu(self.second(y) + self.shortcut(x))


class FashionResNet(nn.Module):
    """Residual CNN on (batch, 1, 28, 28) images in [0, 1]; returns (batch, 10) logits.

    widths: channels of the three stages; the committed weights are those of the default.
    """

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_norm(1, widths[0], kernel=3)
        self.stages = nn.Sequential(
            ResidualBlock(widths[0], widths[0], stride=1),
            ResidualBlock(widths[0], widths[1], stride=2),
            ResidualBlock(widths[1], widths[2], stride=2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = self.pool(self.stages(x))
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits


def fashion_resnet() -> FashionResNet:
    """The trained network, in evaluation mode."""
    model = FashionResNet()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def fashion_images(part: Literal["test", "calibration"]) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 28, 28) as float32 in [0, 1] and labels (n,) of the committed excerpt.

    part: "test" holds the first 2000 images of the test set, "calibration" the first 512 of the training set.
    """
    with np.load(IMAGES) as data:
        images, labels = data[f"{part}_images"], data[f"{part}_labels"]
    inputs = torch.from_numpy(images.astype(np.float32) / np.float32(255))
    return inputs.unsqueeze(1), torch.from_numpy(labels.astype(np.int64))
