"""The networks of the zoo at sizes that run in a moment: name -> function that returns (model, example inputs)."""

from collections.abc import Callable

import torch
from networks import prepared
from torch import Tensor, nn

from aimc_compiler.zoo.albert import albert_base_v2
from aimc_compiler.zoo.bert import bert_base
from aimc_compiler.zoo.densenet import densenet121
from aimc_compiler.zoo.gpt2 import gpt2
from aimc_compiler.zoo.llama import LlamaShape, llama, llama_tiny
from aimc_compiler.zoo.mixtral import mixtral_tiny
from aimc_compiler.zoo.mobilenet import mobilenet_v2
from aimc_compiler.zoo.recurrent import ptb_lstm, swb300_lstm
from aimc_compiler.zoo.resnet import resnet18, resnet50, wide_resnet50_2
from aimc_compiler.zoo.resnet_cifar import resnet32, wide_resnet16
from aimc_compiler.zoo.rnn_t import rnn_t
from aimc_compiler.zoo.vit import vit_b16

Small = Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]

WIDTHS = (4, 8, 12, 16)
#: One stage of each kind in MobileNetV2: without widening, with a stride, with a shortcut.
STAGES = ((1, 4, 1, 1), (6, 6, 2, 2), (6, 8, 2, 1))
TEXT = {"vocabulary": 50, "positions": 20, "width": 16, "heads": 2}
TIED = LlamaShape(vocabulary=50, width=16, layers=2, heads=4, key_heads=1, inner=24, tied=True)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def integers(count: int, below: int = 50) -> Tensor:
    return torch.randint(below, (1, count), generator=torch.Generator().manual_seed(2))


def _small(build: Callable[[], nn.Module], *inputs: Tensor) -> Small:
    return lambda: (prepared(build()), inputs)


CONVOLUTIONAL: dict[str, Small] = {
    "resnet18": _small(lambda: resnet18(widths=WIDTHS, classes=5), numbers(1, 3, 32, 32)),
    "resnet50": _small(lambda: resnet50(widths=WIDTHS, classes=5), numbers(1, 3, 32, 32)),
    "wide_resnet50_2": _small(lambda: wide_resnet50_2(widths=WIDTHS, classes=5), numbers(1, 3, 32, 32)),
    "resnet32": _small(lambda: resnet32(widths=(4, 8, 16)), numbers(1, 3, 16, 16)),
    "resnet32_projected": _small(lambda: resnet32(widths=(4, 8, 16), shortcut="B"), numbers(1, 3, 16, 16)),
    "wide_resnet16": _small(lambda: wide_resnet16(width=1), numbers(1, 3, 16, 16)),
    "densenet121": _small(lambda: densenet121(layers=(2, 3), growth=4, stem=8, classes=5), numbers(1, 3, 32, 32)),
    "mobilenet_v2": _small(lambda: mobilenet_v2(stages=STAGES, stem=8, last=16, classes=5), numbers(1, 3, 32, 32)),
}

TRANSFORMERS: dict[str, Small] = {
    "bert_base": _small(lambda: bert_base(**TEXT, layers=2, inner=24), integers(12)),
    "bert_base_padded": _small(
        lambda: bert_base(**TEXT, layers=1, inner=24),
        integers(12),
        torch.tensor([[1] * 9 + [0] * 3]),
        integers(12, below=2),
    ),
    "albert_base_v2": _small(lambda: albert_base_v2(**TEXT, embedding=8, uses=3, inner=24), integers(12)),
    "gpt2": _small(lambda: gpt2(**TEXT, layers=2), integers(12)),
    "llama_tiny": _small(llama_tiny, integers(12)),
    "llama_tied": _small(lambda: llama(TIED), integers(12)),
    "mixtral_tiny": _small(mixtral_tiny, integers(12)),
    "vit_b16": _small(
        lambda: vit_b16(classes=5, size=32, patch=8, width=16, layers=2, heads=2, inner=24), numbers(1, 3, 32, 32)
    ),
}

RECURRENT: dict[str, Small] = {
    "ptb_lstm": _small(lambda: ptb_lstm(vocabulary=50, width=12), integers(9)),
    "swb300_lstm": _small(
        lambda: swb300_lstm(features=10, width=12, layers=2, bottleneck=6, states=20), numbers(1, 7, 10)
    ),
    "rnn_t": _small(
        lambda: rnn_t(features=10, width=12, layers=2, prediction=8, joint_width=6, characters=20),
        numbers(1, 7, 10),
        integers(4, below=20),
    ),
}

SMALL: dict[str, Small] = CONVOLUTIONAL | TRANSFORMERS | RECURRENT
