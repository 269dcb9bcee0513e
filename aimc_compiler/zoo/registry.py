"""The networks of the zoo by name: what builds each, what it takes, where it comes from, how large it is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aimc_compiler.zoo.albert import albert_base_v2
from aimc_compiler.zoo.bert import bert_base
from aimc_compiler.zoo.densenet import densenet121
from aimc_compiler.zoo.digits import digit_lstm
from aimc_compiler.zoo.fashion import fashion_resnet
from aimc_compiler.zoo.gpt2 import gpt2
from aimc_compiler.zoo.llama import llama3_70b, llama_1b, llama_70b, llama_tiny
from aimc_compiler.zoo.mixtral import mixtral_8x7b, mixtral_tiny
from aimc_compiler.zoo.mobilenet import mobilenet_v2
from aimc_compiler.zoo.recurrent import ptb_lstm, swb300_lstm
from aimc_compiler.zoo.resnet import resnet18, resnet50, wide_resnet50_2
from aimc_compiler.zoo.resnet_cifar import resnet32, wide_resnet16
from aimc_compiler.zoo.rnn_t import rnn_t
from aimc_compiler.zoo.vit import vit_b16

#: A model in evaluation mode and example inputs.
Example = tuple[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of a network. shape: of one sample, as a batch of 1. below: bound of integers; None: floats."""

    shape: tuple[int, ...]
    below: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A network of the zoo; called, it returns (model, example inputs).

    build: returns the model in evaluation mode. inputs: of one sample, at the
    published size. batch_dim: the dimension of every input that counts samples. parameters: numbers that training
    changes, tied ones once. meta: the model holds shapes without values (torch's meta device), as do its inputs.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Input, ...]
    paper: str
    parameters: int
    batch_dim: int = 0
    meta: bool = False

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One sample of normal numbers and random integers, the same each time; on torch's default device."""
        device = torch.device("meta") if self.meta else torch.get_default_device()
        generator = torch.Generator().manual_seed(0)
        return tuple(_draw(each, generator).to(device) for each in self.inputs)

    def __call__(self) -> Example:
        return self.build(), self.example_inputs()


def _draw(given: Input, generator: torch.Generator) -> Tensor:
    if given.below is None:
        return torch.randn(given.shape, generator=generator, device="cpu")
    return torch.randint(given.below, given.shape, generator=generator, device="cpu")


def _image(size: int, channels: int = 3) -> tuple[Input, ...]:
    return (Input(shape=(1, channels, size, size)),)


def _tokens(count: int, vocabulary: int) -> tuple[Input, ...]:
    return (Input(shape=(1, count), below=vocabulary),)


def _wide_resnet16_100() -> nn.Module:
    return wide_resnet16(classes=100)


_HE = "He et al., CVPR 2016"
_ZAGORUYKO = "Zagoruyko and Komodakis, BMVC 2016"

#: name -> network. Images are taken at their published size; text at 128 tokens, GPT-2 and the 70B at their context.
NETWORKS: dict[str, Entry] = {
    "fashion_resnet": Entry(
        build=fashion_resnet,
        inputs=_image(28, channels=1),
        paper=f"{_HE} (three blocks, trained here)",
        parameters=77754,
    ),
    "digit_lstm": Entry(
        build=digit_lstm,
        inputs=(Input(shape=(1, 60, 32)),),
        paper="Hochreiter and Schmidhuber, 1997 (one layer, trained here)",
        parameters=50890,
    ),
    "resnet32": Entry(build=resnet32, inputs=_image(32), paper=f"{_HE}, section 4.2", parameters=464154),
    "wide_resnet16_4": Entry(build=wide_resnet16, inputs=_image(32), paper=_ZAGORUYKO, parameters=2748890),
    "wide_resnet16_4_cifar100": Entry(
        build=_wide_resnet16_100, inputs=_image(32), paper=_ZAGORUYKO, parameters=2772020
    ),
    "resnet18": Entry(build=resnet18, inputs=_image(224), paper=_HE, parameters=11689512),
    "resnet50": Entry(
        build=resnet50, inputs=_image(224), paper=f"{_HE}; Goyal et al., arXiv:1706.02677", parameters=25557032
    ),
    "wide_resnet50_2": Entry(build=wide_resnet50_2, inputs=_image(224), paper=_ZAGORUYKO, parameters=68883240),
    "densenet121": Entry(build=densenet121, inputs=_image(224), paper="Huang et al., CVPR 2017", parameters=7978856),
    "mobilenet_v2": Entry(
        build=mobilenet_v2, inputs=_image(224), paper="Sandler et al., CVPR 2018", parameters=3504872
    ),
    "vit_b16": Entry(build=vit_b16, inputs=_image(224), paper="Dosovitskiy et al., ICLR 2021", parameters=86567656),
    "bert_base": Entry(
        build=bert_base, inputs=_tokens(128, 30522), paper="Devlin et al., NAACL 2019", parameters=109483778
    ),
    "albert_base_v2": Entry(
        build=albert_base_v2, inputs=_tokens(128, 30000), paper="Lan et al., ICLR 2020", parameters=11685122
    ),
    "gpt2": Entry(build=gpt2, inputs=_tokens(1024, 50257), paper="Radford et al., 2019", parameters=124439808),
    "llama_tiny": Entry(
        build=llama_tiny, inputs=_tokens(128, 256), paper="after Touvron et al., arXiv:2302.13971", parameters=125248
    ),
    "llama_1b": Entry(
        build=llama_1b, inputs=_tokens(128, 128256), paper="Grattafiori et al., arXiv:2407.21783", parameters=1235814400
    ),
    "llama_70b": Entry(
        build=llama_70b,
        inputs=_tokens(4096, 32000),
        paper="Touvron et al., arXiv:2307.09288",
        parameters=68976648192,
        meta=True,
    ),
    "llama3_70b": Entry(
        build=llama3_70b,
        inputs=_tokens(8192, 128256),
        paper="Grattafiori et al., arXiv:2407.21783",
        parameters=70553706496,
        meta=True,
    ),
    "mixtral_tiny": Entry(
        build=mixtral_tiny, inputs=_tokens(128, 256), paper="after Jiang et al., arXiv:2401.04088", parameters=230208
    ),
    "mixtral_8x7b": Entry(
        build=mixtral_8x7b,
        inputs=_tokens(128, 32000),
        paper="Jiang et al., arXiv:2401.04088",
        parameters=46702792704,
        meta=True,
    ),
    "ptb_lstm": Entry(
        build=ptb_lstm, inputs=_tokens(35, 10000), paper="Zaremba et al., arXiv:1409.2329", parameters=19780400
    ),
    "swb300_lstm": Entry(
        build=swb300_lstm,
        inputs=(Input(shape=(1, 21, 140)),),
        paper="Rasch et al., Nat. Commun. 14, 5282 (2023)",
        parameters=30064128,
    ),
    "rnn_t": Entry(
        build=rnn_t,
        inputs=(Input(shape=(1, 50, 340)), Input(shape=(1, 8), below=46)),
        paper="Saon et al., ICASSP 2021",
        parameters=57164282,
    ),
}
