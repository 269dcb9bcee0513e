"""How the networks of the zoo get their first weights: from a seed, drawn in the usual way of their family."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """What ``build`` makes with torch's CPU generator at ``seed``, in evaluation mode; the generator is put back.

    On the meta device (``with torch.device("meta")``) nothing is drawn and nothing stored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build()
    return model.eval()


def initialise_convolutions(model: nn.Module) -> None:
    """Convolutions normal by their fan-out (He et al., ICCV 2015, equation 14), without bias; norms stay 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def initialise_transformer(model: nn.Module, deviation: float = 0.02) -> None:
    """Linear layers and embeddings normal with one deviation, biases 0 (Devlin et al., 2019; Radford et al., 2019)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
