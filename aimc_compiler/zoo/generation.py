"""Decoders that generate: the prompt at once, then a token at a time on the keys and values of those before it.

A cache is an input and an output like any other: keys and values of every layer, with as many places as the context
has; those behind the present position hold anything and are masked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.building import seeded
from aimc_compiler.zoo.llama import LLAMA3_70B, LLAMA_1B, LLAMA_70B, LLAMA_TINY, KeysValues, Llama, LlamaShape

#: Keys and values of every layer, each (batch, key heads, context, size).
Cache = tuple[KeysValues, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One way to call a network: the name of its method, and inputs of one sample."""

    method: str
    inputs: tuple[Any, ...]


class GeneratingLlama(Llama):
    """A Llama with two more ways into it. context: tokens that the cache has places for."""

    def __init__(self, shape: LlamaShape, context: int) -> None:
        super().__init__(shape)
        self.shape, self.context = shape, context

    def prefill(self, input_ids: Tensor) -> tuple[Tensor, Cache]:
        """The prompt. input_ids: (batch, time), at most ``context`` tokens; returns (batch, time, vocabulary) logits
        and the cache that holds their keys and values in its first places."""
        states, kept = self.model(input_ids)
        room = self.context - input_ids.shape[1]
        cache = tuple((F.pad(key, (0, 0, 0, room)), F.pad(value, (0, 0, 0, room))) for key, value in kept)
        return self.lm_head(states), cache

    def step(self, input_ids: Tensor, cache: Cache, position: Tensor) -> tuple[Tensor, Cache]:
        """One further token. input_ids: (batch, 1), which stands at ``position`` (batch,); returns (batch, 1,
        vocabulary) logits and the cache with its keys and values."""
        states, kept = self.model(input_ids, cache, position)
        return self.lm_head(states), kept


def generating_llama(shape: LlamaShape, context: int, *, seed: int = 0) -> GeneratingLlama:
    """A decoder of any shape that generates, in evaluation mode; the parameters of ``llama`` of the same seed.

    Example:
        >>> logits, cache = generating_llama(LLAMA_TINY, 128).prefill(torch.zeros(1, 16, dtype=torch.long))
    """
    return seeded(lambda: GeneratingLlama(shape, context), seed)


def generation_calls(shape: LlamaShape, prompt: int, context: int) -> dict[str, Call]:
    """Inputs of one sample of ``prefill``, a prompt of so many tokens, and of the ``step`` behind it; the same each
    time, on torch's default device."""
    generator, device = torch.Generator().manual_seed(0), torch.get_default_device()

    def tokens(count: int) -> Tensor:
        return torch.randint(shape.vocabulary, (1, count), generator=generator, device="cpu").to(device)

    def half() -> Tensor:
        return torch.randn(1, shape.key_heads, context, shape.head, generator=generator, device="cpu").to(device)

    cache = tuple((half(), half()) for _ in range(shape.layers))
    position = torch.full((1,), prompt, dtype=torch.long)
    return {
        "prefill": Call(method="prefill", inputs=(tokens(prompt),)),
        "step": Call(method="step", inputs=(tokens(1), cache, position)),
    }


#: A network that generates, and how it is called.
Generator = Callable[[], tuple[nn.Module, dict[str, Call]]]


def _generator(shape: LlamaShape, prompt: int, context: int, *, meta: bool = False) -> Generator:
    def build() -> tuple[nn.Module, dict[str, Call]]:
        with torch.device("meta" if meta else torch.get_default_device()):
            return generating_llama(shape, context), generation_calls(shape, prompt, context)

    return build


#: name of the network -> what builds it with its calls. Half of the context is the prompt.
GENERATORS: dict[str, Generator] = {
    "llama_tiny": _generator(LLAMA_TINY, 64, 128),
    "llama_1b": _generator(LLAMA_1B, 64, 128),
    "llama_70b": _generator(LLAMA_70B, 2048, 4096, meta=True),
    "llama3_70b": _generator(LLAMA3_70B, 4096, 8192, meta=True),
}
