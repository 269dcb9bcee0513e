"""Networks for the tests, in plain torch: ``NETWORKS`` maps a name to a function that returns (model, args, kwargs).

Each is small, in evaluation mode, with weights and batch-norm statistics drawn from a fixed seed; the example holds
two samples along dimension 0.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from recurrent_networks import RECURRENT
from torch import Tensor, nn

from aimc_compiler.zoo.fashion import FashionResNet

Example = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


def prepared(model: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with batch norms as training leaves them: no statistic and no gain at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.3)
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator))
    return model.eval()


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    """The residual network for 224 x 224 images of He et al., CVPR 2016, table 1, 18 layers."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 512), blocks: int = 2, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], widths[0]
        for index, width in enumerate(widths):
            strides = [1 if index == 0 else 2] + [1] * (blocks - 1)
            stages.append(
                nn.Sequential(*(BasicBlock(inputs if i == 0 else width, width, s) for i, s in enumerate(strides)))
            )
            inputs = width
        self.layers = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


def resnet18() -> ResNet:
    """ResNet-18 in ImageNet shape."""
    return ResNet()


class OddConvolutions(nn.Module):
    """Strides, dilations, groups and "same" padding that do not divide anything."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 5), stride=(2, 3), padding=(1, 2))
        self.dilated = nn.Conv2d(8, 12, 3, padding="same", dilation=2, groups=4)
        self.even = nn.Conv2d(12, 6, (2, 4), padding="same", bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, padding="valid", padding_mode="zeros")
        self.mirrored = nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.first(x))
        x = F.leaky_relu(self.dilated(x), 0.1)
        x = F.silu(self.norm(self.even(x)))
        x = F.max_pool2d(self.mirrored(self.depthwise(x)), 3, stride=2, ceil_mode=True)
        return F.avg_pool2d(x, 2, stride=1, padding=1)


class Inception(nn.Module):
    """Branches joined by concatenation, split by chunk and slices, and a squeeze-and-excitation gate."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 1)
        self.right = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU6(inplace=True))
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)
        self.head = nn.Linear(16 * 4, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = torch.cat([self.left(x), self.right(x)], 1)
        gate = torch.sigmoid(self.up(F.gelu(self.down(y.mean((2, 3))))))
        y = y * gate[:, :, None, None]
        a, b = y.chunk(2, 1)
        y = torch.cat([a + 1, F.pad(b[:, :, :, 1:], (0, 1))], dim=1)
        y = F.interpolate(F.adaptive_avg_pool2d(y, 2), scale_factor=2.0)
        scores = self.head(F.adaptive_max_pool2d(y, 2).flatten(1))
        return {"log_probability": F.log_softmax(scores, -1), "rest": (scores.amax(1), [y.abs().sum((1, 2))])}


class TwoInputs(nn.Module):
    """A tensor, a dictionary and keyword inputs; a keyword that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = nn.Conv1d(2, 5, 3, padding=1), nn.Linear(7, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor, side: dict[str, Tensor], *, gain: Tensor, power: int = 2) -> tuple[Tensor, Tensor]:
        y = torch.tanh(self.image(x)).mean(-1) + self.vector(side["vector"]) * gain
        return self.out(y), y.clamp(-1, 1) ** power


class Tied(nn.Module):
    """One matrix used three times, two of them by one layer; weights read by functional calls; a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.w, self.v = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(torch.relu(self.first(x)))))
        return F.linear(torch.addmm(self.w[0], x, self.w), self.v)


class Sequence(nn.Module):
    """Self-attention with written-out products over (batch, time, features), layer norm, and weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.out = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        scores = self.query(y) @ self.key(y).transpose(1, 2) / 8**0.5
        return self.out(x + torch.softmax(scores, -1) @ self.value(y))


class InPlace(nn.Module):
    """Operations in place: on fresh tensors, on views whose base is read later, and under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = F.relu_(self.norm(self.conv(x)))
        y[:, 0] += 1
        y[:, 1] = y[:, 2].mul_(2)
        z = y.flatten(1)
        return self.head(F.dropout(z, training=self.training).contiguous()).add_(1)


def _conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 5, stride=2, padding=3, dilation=2),
        nn.BatchNorm1d(6),
        nn.ELU(),
        nn.AvgPool1d(2),
        nn.Conv1d(6, 4, 3, groups=2),
        nn.BatchNorm1d(4, affine=False),
        nn.Hardswish(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(50, 30), nn.BatchNorm1d(30), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(30, 7), nn.Softmax(-1)
    )


def _normed() -> nn.Module:
    """Norms that cannot be folded."""
    return nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.BatchNorm2d(8), nn.InstanceNorm2d(8)
    )


class Volumes(nn.Module):
    """Convolutions and pools of three dimensions, groups, an uneven "same" padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(2, 6, (3, 2, 3), stride=(1, 2, 1), padding=(1, 0, 1), dilation=(1, 1, 2), bias=False)
        self.norm = nn.BatchNorm3d(6)
        self.wide = nn.Conv3d(6, 4, (2, 3, 1), padding="same", groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(torch.relu(self.norm(self.stem(x))), (2, 2, 1))
        x = F.interpolate(F.avg_pool3d(self.wide(x), 2, stride=1), scale_factor=2)
        return self.head(F.adaptive_avg_pool3d(x, 1).flatten(1))


class Upsampling(nn.Module):
    """Transposed convolutions of one to three dimensions: strides, padding on both sides, dilation, groups, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.ConvTranspose1d(3, 4, 4, stride=3, padding=1, output_padding=1, dilation=2)
        self.plane = nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, output_padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.volume = nn.ConvTranspose3d(3, 2, 2, stride=(2, 1, 3), padding=(0, 1, 0))
        self.tied = nn.Parameter(torch.randn(6, 2, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        line = torch.relu(self.line(x))
        plane = self.norm(self.plane(line.unflatten(2, (2, -1))))
        volume = self.volume(plane.unflatten(1, (3, 2)))
        return F.conv_transpose2d(plane, self.tied), F.conv_transpose2d(plane.relu(), self.tied), volume


class Attention(nn.Module):
    """Fused attention in every spelling: causal, masked by truth and by number, a scale of its own, shared heads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.query, self.key, self.value = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        x = self.layer(x)
        q, k, v = (part(x).unflatten(2, (-1, 4)).transpose(1, 2) for part in (self.query, self.key, self.value))
        shared = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        seen = mask[:, None] > 0
        return (
            shared.transpose(1, 2).flatten(2),
            F.scaled_dot_product_attention(k, k, v, attn_mask=seen, scale=0.3),
            F.scaled_dot_product_attention(k, v, v, attn_mask=mask[:, None]),
        )


class Einsum(nn.Module):
    """Products by letters: with a weight, twice the same one, of activations, from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 4))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        left, right = (torch.einsum("btd,dhe->bthe", part, self.weight) for part in (x, y))
        scores = torch.einsum("bthe,bshe->bhts", left, right).softmax(-1)
        return torch.einsum("bhts, bshe -> bthe", scores, right), torch.einsum("bi,bj->bij", x[:, 0], y[:, 1])


_BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "fashion_resnet": (lambda: FashionResNet((4, 6, 8)), (1, 28, 28)),
    "small_resnet": (lambda: ResNet((4, 8, 12, 16), 1, 5), (3, 32, 32)),
    "mlp": (_mlp, (50,)),
    "conv1d": (_conv1d, (2, 40)),
    "odd_convolutions": (OddConvolutions, (3, 23, 31)),
    "inception": (Inception, (3, 8, 8)),
    "normed": (_normed, (3, 9, 7)),
    "tied": (Tied, (6,)),
    "sequence": (Sequence, (5, 8)),
    "in_place": (InPlace, (1, 4, 4)),
    "volumes": (Volumes, (2, 5, 9, 8)),
    "upsampling": (Upsampling, (3, 5)),
}


def _build(name: str) -> Example:
    builder, shape = _BUILDERS[name]
    torch.manual_seed(1)
    return prepared(builder()), (torch.randn(2, *shape),), {}


def _two_inputs() -> Example:
    torch.manual_seed(1)
    args = (torch.randn(2, 2, 9), {"vector": torch.randn(2, 7)})
    return TwoInputs().eval(), args, {"gain": torch.randn(2, 1)}


def _attention() -> Example:
    torch.manual_seed(1)
    mask = torch.randn(2, 5, 5)
    mask.diagonal(dim1=1, dim2=2).fill_(1.0)  # every query sees a key
    return Attention().eval(), (torch.randn(2, 5, 8), mask), {}


def _einsum() -> Example:
    torch.manual_seed(1)
    return Einsum().eval(), (torch.randn(2, 6, 5), torch.randn(2, 7, 5)), {}


def _builder(name: str) -> Callable[[], Example]:
    return lambda: _build(name)


def _recurrent(name: str) -> Callable[[], Example]:
    return lambda: (*RECURRENT[name](), {})


NETWORKS: dict[str, Callable[[], Example]] = {
    **{name: _builder(name) for name in _BUILDERS},
    "two_inputs": _two_inputs,
    "attention": _attention,
    "einsum": _einsum,
    **{name: _recurrent(name) for name in RECURRENT},
}
