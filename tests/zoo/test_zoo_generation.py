"""Decoders that generate: the prompt, then token by token with a cache, against the whole sequence at once."""

import pytest
import torch

from aimc_compiler.zoo import GENERATORS, NETWORKS
from aimc_compiler.zoo.generation import generating_llama, generation_calls
from aimc_compiler.zoo.llama import LLAMA_TINY, LlamaShape, llama

TIED = LlamaShape(vocabulary=20, width=16, layers=2, heads=4, key_heads=1, inner=24, tied=True)


@pytest.mark.parametrize("shape", [TIED, LLAMA_TINY])
def test_steps_continue_what_a_prompt_began(shape: LlamaShape) -> None:
    """Samples at different positions side by side, over a cache whose free places hold anything."""
    context, prompts = 12, (3, 7)
    network, whole = generating_llama(shape, context), llama(shape)
    tokens = torch.randint(shape.vocabulary, (2, context), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = whole(tokens)
        parts = []
        for row, count in enumerate(prompts):
            logits, cache = network.prefill(tokens[row : row + 1, :count])
            assert torch.allclose(logits, expected[row : row + 1, :count], atol=1e-6)
            parts.append([torch.where(half == 0, 5.0, half) for pair in cache for half in pair])
        joined = [torch.cat(halves) for halves in zip(*parts, strict=True)]
        cache = tuple(zip(joined[::2], joined[1::2], strict=True))
        for ahead in range(context - max(prompts)):
            position = torch.tensor(prompts) + ahead
            token = tokens.gather(1, position[:, None])
            logits, cache = network.step(token, cache, position)
            assert torch.allclose(logits[:, 0], expected[torch.arange(2), position], atol=1e-5)


def test_parameters_are_those_of_the_network_without_a_cache() -> None:
    network, plain = generating_llama(LLAMA_TINY, 8), llama(LLAMA_TINY)
    assert network.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_calls_fit_the_cache(name: str) -> None:
    meta = NETWORKS[name].parameters > 1e9  # gigabytes: shapes alone
    with torch.device("meta" if meta and not NETWORKS[name].meta else "cpu"):
        network, calls = GENERATORS[name]()
    assert not network.training
    assert list(calls) == ["prefill", "step"]
    assert all(parameter.is_meta == meta for parameter in network.parameters())
    token, cache, position = calls["step"].inputs
    (prompt,) = calls["prefill"].inputs
    assert (token.shape, position.shape) == ((1, 1), (1,))
    assert len(cache) == len(network.model.layers)
    assert prompt.shape[1] < cache[0][0].shape[2] == network.context
    assert meta or int(position) == prompt.shape[1]


def test_calls_are_the_same_each_time() -> None:
    first, second = (generation_calls(LLAMA_TINY, 4, 8)["step"].inputs for _ in range(2))
    assert torch.equal(first[1][0][0], second[1][0][0])
