"""Networks with several ways into them, small enough to compile in a moment."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler import Entry
from aimc_compiler.zoo.generation import GeneratingLlama, generating_llama, generation_calls
from aimc_compiler.zoo.llama import LlamaShape

SHAPE = LlamaShape(vocabulary=24, width=16, layers=2, heads=4, key_heads=2, inner=20)
PROMPT, CONTEXT = 5, 8


class EncoderDecoder(nn.Module):
    """Images of text: `encode` (batch, time, 8) to states, `decode` tokens (batch, time) over them; a tied head.

    `widen` is a matrix that the encoder alone has, `cross` and `head` are those of the decoder; `mix` is in both.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.widen = nn.Linear(8, 12)
        self.mix = nn.Linear(12, 12)
        self.cross = nn.Linear(12, 12, bias=False)
        self.tokens = nn.Embedding(10, 12)
        self.head = nn.Linear(12, 10, bias=False)
        self.head.weight = self.tokens.weight

    def encode(self, x: Tensor) -> Tensor:
        return self.mix(torch.relu(self.widen(x)))

    def decode(self, tokens: Tensor, states: Tensor) -> dict[str, Tensor]:
        query = self.cross(self.mix(self.tokens(tokens)))
        weights = torch.softmax(query @ states.transpose(1, 2), -1)
        return {"logits": self.head(query + weights @ states)}

    def forward(self, x: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        return self.decode(tokens, self.encode(x))


class Parts(nn.Module):
    """A packed weight whose parts are matrices of one name: `all` multiplies by both, `last` by the second alone.

    Behind them stands an LSTM, and in front layers whose weights are computed (by weight norm).
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        weight_norm = torch.nn.utils.parametrizations.weight_norm
        self.front = nn.ModuleList(weight_norm(nn.Linear(6, 6)) for _ in range(2))
        self.packed = nn.Parameter(torch.randn(10, 6))
        self.lstm = nn.LSTM(5, 4, batch_first=True)

    def all(self, x: Tensor) -> Tensor:
        first, second = self.packed.chunk(2)
        x = self.front[1](self.front[0](x))
        return self.lstm(F.linear(x, first) + F.linear(x, second))[0]

    def last(self, x: Tensor) -> Tensor:
        return self.lstm(F.linear(self.front[1](x), self.packed.chunk(2)[1]))[0]


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(*shape: int, below: int, seed: int = 2) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def encoder_decoder() -> tuple[EncoderDecoder, dict[str, Entry]]:
    """With entries "encode" and "decode"."""
    network = EncoderDecoder().eval()
    x, tokens = numbers(1, 4, 8), integers(1, 3, below=10)
    decode = Entry(inputs=(tokens,), kwargs={"states": numbers(1, 4, 12, seed=5)}, method="decode")
    return network, {"encode": Entry(inputs=(x,), method="encode"), "decode": decode}


def generator(shape: LlamaShape = SHAPE) -> tuple[GeneratingLlama, dict[str, Entry]]:
    """With entries "prefill" and "step"."""
    calls = generation_calls(shape, PROMPT, CONTEXT)
    entries = {name: Entry(inputs=call.inputs, method=call.method) for name, call in calls.items()}
    return generating_llama(shape, CONTEXT), entries
