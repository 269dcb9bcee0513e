"""Residual networks for ImageNet: ResNet-18, ResNet-50 and WideResNet-50-2.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, table 1; the bottleneck block has its
stride in the 3 x 3 convolution ("version 1.5", Goyal et al., arXiv:1706.02677). The wide one is of Zagoruyko and
Komodakis, "Wide residual networks", BMVC 2016: ResNet-50 with inner convolutions twice as wide.

Names of parameters are those of torchvision's ``resnet18``, ``resnet50`` and ``wide_resnet50_2``, so that their state
dicts load.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aimc_compiler.zoo.building import initialise_convolutions, seeded


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps height and width at stride 1; kernel: odd."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., figure 5 left). x: (batch, inputs, height, width)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, widening: int = 1) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width * widening, 3, stride)
        self.bn1 = nn.BatchNorm2d(width * widening)
        self.conv2 = convolution(width * widening, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions, and a shortcut (He et al., figure 5 right)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, widening: int = 1) -> None:
        super().__init__()
        inner, outputs = width * widening, width * self.expansion
        self.conv1 = convolution(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = convolution(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = convolution(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """None where the shape stays (identity), else a projection (option B of He et al., section 3.3)."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Residual network on (batch, 3, height, width) images, normalised; returns (batch, classes) logits.

    block: BasicBlock or Bottleneck. blocks: blocks of the four stages. widths: channels of the stages, before the
    block's expansion. widening: width of the inner convolutions in those of the plain network.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        *,
        classes: int = 1000,
        widths: Sequence[int] = (64, 128, 256, 512),
        widening: int = 1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs, stages = widths[0], []
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            strides = [1 if stage == 0 else 2] + [1] * (count - 1)
            channels = [inputs] + [width * block.expansion] * (count - 1)
            stages.append([block(*item, widening) for item in zip(channels, [width] * count, strides, strict=True)])
            inputs = width * block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = (nn.Sequential(*stage) for stage in stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def resnet18(*, classes: int = 1000, widths: Sequence[int] = (64, 128, 256, 512), seed: int = 0) -> ResNet:
    """ResNet-18: 11 689 512 parameters for 1000 classes, 224 x 224 images. In evaluation mode.

    Example:
        >>> logits = resnet18()(torch.zeros(1, 3, 224, 224))      # (1, 1000)
    """
    return seeded(lambda: ResNet(BasicBlock, (2, 2, 2, 2), classes=classes, widths=widths), seed)


def resnet50(*, classes: int = 1000, widths: Sequence[int] = (64, 128, 256, 512), seed: int = 0) -> ResNet:
    """ResNet-50 v1.5: 25 557 032 parameters for 1000 classes, 224 x 224 images. In evaluation mode."""
    return seeded(lambda: ResNet(Bottleneck, (3, 4, 6, 3), classes=classes, widths=widths), seed)


def wide_resnet50_2(*, classes: int = 1000, widths: Sequence[int] = (64, 128, 256, 512), seed: int = 0) -> ResNet:
    """WideResNet-50-2: 68 883 240 parameters for 1000 classes, 224 x 224 images. In evaluation mode."""
    return seeded(lambda: ResNet(Bottleneck, (3, 4, 6, 3), classes=classes, widths=widths, widening=2), seed)
