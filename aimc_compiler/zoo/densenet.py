"""DenseNet-121 for ImageNet.

Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", CVPR 2017, table 1: growth rate 32,
bottleneck layers, transitions that halve the channels. Names of parameters are those of torchvision's
``densenet121``, so that its state dicts load (those of today; the first files called ``norm1`` ``norm.1``).
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.building import initialise_convolutions, seeded

#: Channels of the 1 x 1 convolution of a layer, in growth rates (section 3, "bottleneck layers").
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1 x 1 convolution, norm, ReLU, 3 x 3 convolution. x: (batch, inputs, height, width)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(torch.relu(self.norm1(x)))
        new: Tensor = self.conv2(torch.relu(self.norm2(x)))
        return new


class DenseBlock(nn.Module):
    """Layers that each read the outputs of all before them; channels grow by ``growth`` a layer."""

    def __init__(self, layers: int, inputs: int, growth: int) -> None:
        super().__init__()
        for index in range(layers):
            self.add_module(f"denselayer{index + 1}", DenseLayer(inputs + index * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.children():
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def _transition(inputs: int) -> nn.Sequential:
    """Half the channels, half the height and width."""
    named: OrderedDict[str, nn.Module] = OrderedDict(
        norm=nn.BatchNorm2d(inputs),
        relu=nn.ReLU(),
        conv=nn.Conv2d(inputs, inputs // 2, 1, bias=False),
        pool=nn.AvgPool2d(2, stride=2),
    )
    return nn.Sequential(named)


class DenseNet(nn.Module):
    """Densely connected network on (batch, 3, height, width) images, normalised; returns (batch, classes) logits.

    layers: of each dense block. growth: channels that a layer adds. stem: channels of the first convolution.
    """

    def __init__(self, layers: Sequence[int], *, growth: int, stem: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(stem))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        channels = stem
        for number, count in enumerate(layers, start=1):
            self.features.add_module(f"denseblock{number}", DenseBlock(count, channels, growth))
            channels += count * growth
            if number < len(layers):
                self.features.add_module(f"transition{number}", _transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(torch.relu(self.features(x)), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def densenet121(
    *,
    classes: int = 1000,
    layers: Sequence[int] = (6, 12, 24, 16),
    growth: int = 32,
    stem: int = 64,
    seed: int = 0,
) -> DenseNet:
    """DenseNet-121: 7 978 856 parameters for 1000 classes, 224 x 224 images. In evaluation mode.

    Example:
        >>> logits = densenet121()(torch.zeros(1, 3, 224, 224))      # (1, 1000)
    """
    return seeded(lambda: DenseNet(layers, growth=growth, stem=stem, classes=classes), seed)
