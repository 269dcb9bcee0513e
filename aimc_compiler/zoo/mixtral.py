"""A decoder of the Mixtral family: Llama's attention, and instead of one gated layer a mixture of them.

Jiang et al., "Mixtral of experts", arXiv:2401.04088, section 2: a router takes for each token the two experts with the
highest scores and weighs their outputs by the softmax of these two. Names of parameters are those of the published
weights of Mixtral 8x7B (``MixtralForCausalLM`` of Hugging Face transformers up to 4), so that they load.

Every expert multiplies every token, weighted by zero where the router did not take it: so shapes do not depend on
values. A rule says how tokens are assumed to be dealt for time and energy
(``{"*.experts.*": {"experts": 8, "active": 2}}``).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.building import initialise_transformer, seeded
from aimc_compiler.zoo.llama import Llama, LlamaLayer, LlamaShape


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtralShape(LlamaShape):
    """Sizes of a decoder, with ``experts`` in each layer of which a token takes ``active``. Raises ValueError where
    heads do not divide or more experts are taken than there are.
    """

    experts: int
    active: int = 2

    def __post_init__(self) -> None:
        LlamaShape.__post_init__(self)
        if not 1 <= self.active <= self.experts:
            raise ValueError(f"{self.active} experts a token, of {self.experts}: choose 1 to {self.experts}")


MIXTRAL_TINY = MixtralShape(vocabulary=256, width=64, layers=2, heads=4, key_heads=2, inner=112, experts=4)
MIXTRAL_8X7B = MixtralShape(
    vocabulary=32000, width=4096, layers=32, heads=32, key_heads=8, inner=14336, rotary_base=1000000.0, experts=8
)


class Expert(nn.Module):
    """w2(silu(w1(x)) * w3(x)): SwiGLU of Shazeer, arXiv:2002.05202. (batch, time, width) to the same."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


class Mixture(nn.Module):
    """The sum of each token's best experts, by the router's weights. (batch, time, width) to the same."""

    def __init__(self, shape: MixtralShape) -> None:
        super().__init__()
        self.active = shape.active
        self.gate = nn.Linear(shape.width, shape.experts, bias=False)
        self.experts = nn.ModuleList(Expert(shape.width, shape.inner) for _ in range(shape.experts))

    def forward(self, x: Tensor) -> Tensor:
        scores, taken = self.gate(x).topk(self.active, dim=-1)
        weights = scores.softmax(dim=-1)
        outputs = [
            (weights * (taken == number)).sum(dim=-1, keepdim=True) * expert(x)
            for number, expert in enumerate(self.experts)
        ]
        y: Tensor = outputs[0]
        for output in outputs[1:]:
            y = y + output
        return y


class MixtralLayer(LlamaLayer):
    """Norm and attention, norm and mixture, each added to its input."""

    def __init__(self, shape: MixtralShape) -> None:
        super().__init__(shape)
        del self.mlp
        self.block_sparse_moe = Mixture(shape)

    @property
    def mlp(self) -> Mixture:  # type: ignore[override]
        """What stands in the place of Llama's gated layer."""
        return self.block_sparse_moe


class Mixtral(Llama):
    """Decoder and output layer. input_ids: (batch, time) tokens; returns (batch, time, vocabulary) logits."""

    def __init__(self, shape: MixtralShape) -> None:
        super().__init__(replace(shape, layers=0))
        self.model.layers = nn.ModuleList(MixtralLayer(shape) for _ in range(shape.layers))
        initialise_transformer(self)


def mixtral(shape: MixtralShape, *, seed: int = 0) -> Mixtral:
    """A decoder of any shape, in evaluation mode.

    Example:
        >>> logits = mixtral(MIXTRAL_TINY)(torch.zeros(1, 16, dtype=torch.long))      # (1, 16, 256)
    """
    return seeded(lambda: Mixtral(shape), seed)


def mixtral_tiny(*, seed: int = 0) -> Mixtral:
    """Two layers of width 64 with four experts each, on 256 tokens, to try things with."""
    return mixtral(MIXTRAL_TINY, seed=seed)


def mixtral_8x7b() -> Mixtral:
    """The shape of Mixtral 8x7B: 46 702 792 704 parameters, on the meta device: shapes without values."""
    with torch.device("meta"):
        return mixtral(MIXTRAL_8X7B)
