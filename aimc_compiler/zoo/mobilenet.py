"""MobileNetV2 for ImageNet.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, table 2.
Its depthwise convolutions have one input channel a group, which is the hard case of a crossbar. Names of parameters
are those of torchvision's ``mobilenet_v2``, so that its state dicts load.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.building import initialise_convolutions, seeded

#: Table 2 of the paper: expansion t, channels c, repetitions n, stride s of the first of them.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280


def _conv_norm_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen (1 x 1), filter each channel (3 x 3), narrow without activation (1 x 1); figure 3 b of the paper.

    x: (batch, inputs, height, width). The shortcut joins the narrow ends, where shape and stride allow it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        widen = [] if expansion == 1 else [_conv_norm_relu6(inputs, wide, 1)]
        self.conv = nn.Sequential(
            *widen,
            _conv_norm_relu6(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2 on (batch, 3, height, width) images, normalised; returns (batch, classes) logits.

    stages: rows (t, c, n, s) of table 2. last: channels of the last 1 x 1 convolution.
    """

    def __init__(self, stages: Sequence[tuple[int, int, int, int]], *, stem: int, last: int, classes: int) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv_norm_relu6(3, stem, 3, stride=2)]
        inputs = stem
        for expansion, channels, count, stride in stages:
            for index in range(count):
                features.append(InvertedResidual(inputs, channels, stride if index == 0 else 1, expansion))
                inputs = channels
        features.append(_conv_norm_relu6(inputs, last, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def mobilenet_v2(
    *,
    classes: int = 1000,
    stages: Sequence[tuple[int, int, int, int]] = STAGES,
    stem: int = STEM,
    last: int = LAST,
    seed: int = 0,
) -> MobileNetV2:
    """MobileNetV2 of width 1: 3 504 872 parameters for 1000 classes, 224 x 224 images. In evaluation mode.

    Example:
        >>> logits = mobilenet_v2()(torch.zeros(1, 3, 224, 224))      # (1, 1000)
    """
    return seeded(lambda: MobileNetV2(stages, stem=stem, last=last, classes=classes), seed)
