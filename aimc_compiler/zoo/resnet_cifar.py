"""Residual networks for 32 x 32 images (CIFAR): ResNet-32 and WideResNet-16-4.

ResNet-32: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2 and table 6
(0.46 M parameters). WideResNet: Zagoruyko and Komodakis, "Wide residual networks", BMVC 2016, table 1, with norm and
activation before each convolution (2.7 M parameters at depth 16 and width 4).

Names of parameters are those of two implementations in wide use, so that their state dicts load:
``resnet32`` of akamaster/pytorch_resnet_cifar10, and ``WideResNet`` of xternalz/WideResNet-pytorch.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.building import initialise_convolutions, seeded
from aimc_compiler.zoo.resnet import convolution

#: He et al., section 3.3: "A" pads new channels with zeros and has no parameters, "B" projects by a 1 x 1 convolution.
Shortcut = Literal["A", "B"]


class PaddedShortcut(nn.Module):
    """Every second row and column, with channels of zeros on both sides: option A of He et al.

    x: (batch, inputs, height, width); returns (batch, inputs + 2 * padding, height / 2, width / 2).
    """

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class CifarBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which changes shape only where the stride is 2."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 and shortcut == "A":
            self.shortcut = PaddedShortcut((width - inputs) // 2)
        elif stride != 1:
            self.shortcut = nn.Sequential(convolution(inputs, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Residual network of 6 n + 2 layers on (batch, 3, 32, 32) images; returns (batch, classes) logits.

    blocks: n, of each stage. widths: channels of the three stages, each twice those of the one before it.
    """

    def __init__(self, blocks: int, *, classes: int, widths: Sequence[int], shortcut: Shortcut) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut is {shortcut!r}: choose 'A' (zeros) or 'B' (projections)")
        if any(after != 2 * before for before, after in pairwise(widths)):
            raise ValueError(f"widths are {tuple(widths)}: each stage must have twice the channels of the one before")
        self.conv1 = convolution(3, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs, stages = widths[0], []
        for stage, width in enumerate(widths):
            first = CifarBlock(inputs, width, 1 if stage == 0 else 2, shortcut)
            stages.append([first, *(CifarBlock(width, width, 1, shortcut) for _ in range(blocks - 1))])
            inputs = width
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(*stage) for stage in stages)
        self.linear = nn.Linear(inputs, classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


class WideBlock(nn.Module):
    """Norm, ReLU and 3 x 3 convolution, twice (Zagoruyko and Komodakis, figure 1 c, without dropout)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        # The name is that of the implementation whose state dicts load.
        self.convShortcut = None if inputs == width else convolution(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.bn1(x))
        y = torch.relu(self.bn2(self.conv1(active)))
        # Where the shape changes the projection takes the activated input, as in the authors' code.
        y = self.conv2(y)
        z: Tensor = y + (x if self.convShortcut is None else self.convShortcut(active))
        return z


class WideStage(nn.Module):
    """Blocks of one width; the first has the stride."""

    def __init__(self, blocks: int, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        rest = (WideBlock(width, width, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(WideBlock(inputs, width, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class WideResNet(nn.Module):
    """Wide residual network of 6 n + 4 layers on (batch, 3, 32, 32) images; returns (batch, classes) logits.

    blocks: n, of each stage. width: k of the paper; the stages have 16 k, 32 k and 64 k channels.
    """

    def __init__(self, blocks: int, *, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, 16, 3)
        self.block1 = WideStage(blocks, 16, 16 * width, 1)
        self.block2 = WideStage(blocks, 16 * width, 32 * width, 2)
        self.block3 = WideStage(blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.adaptive_avg_pool2d(torch.relu(self.bn1(x)), 1)
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


def resnet32(
    *, classes: int = 10, widths: Sequence[int] = (16, 32, 64), shortcut: Shortcut = "A", seed: int = 0
) -> CifarResNet:
    """ResNet-32 for CIFAR-10: 464 154 parameters, 466 906 with projections ("B"). In evaluation mode.

    Example:
        >>> logits = resnet32()(torch.zeros(1, 3, 32, 32))      # (1, 10)
    """
    return seeded(lambda: CifarResNet(5, classes=classes, widths=widths, shortcut=shortcut), seed)


def wide_resnet16(*, width: int = 4, classes: int = 10, seed: int = 0) -> WideResNet:
    """WideResNet-16-k: at k = 4, 2 748 890 parameters for 10 classes and 2 772 020 for 100. In evaluation mode."""
    return seeded(lambda: WideResNet(2, width=width, classes=classes), seed)
