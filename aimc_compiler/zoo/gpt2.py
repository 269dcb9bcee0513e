"""GPT-2: a transformer decoder for text.

Radford, Wu, Child, Luan, Amodei, Sutskever, "Language models are unsupervised multitask learners", 2019, table 2:
small has 12 layers, width 768, 12 heads, 1024 positions, 50 257 tokens. Linear layers are spelled as in the original,
weight (inputs, outputs) and ``addmm``. Names of parameters are those of ``GPT2LMHeadModel`` of Hugging Face
transformers, so that its state dicts load; the output layer is the table of tokens itself.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.attention import attend, causal_mask, join_heads, require_heads, split_heads
from aimc_compiler.zoo.building import initialise_transformer, seeded

DEVIATION = 0.02


class Conv1D(nn.Module):
    """The linear layer of the original: y = x W + b with W (inputs, outputs). x: (batch, time, inputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return y.view(*x.shape[:-1], y.shape[-1])


class CausalSelfAttention(nn.Module):
    """Attention to what came before; one matrix makes queries, keys and values. (batch, time, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        require_heads(width, heads)
        self.heads = heads
        self.c_attn = Conv1D(width, 3 * width)
        self.c_proj = Conv1D(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.c_attn(x).chunk(3, dim=-1))
        y: Tensor = self.c_proj(join_heads(attend(query, key, value, mask)))
        return y


class Gpt2Layer(nn.Module):
    """Norm and attention, norm and a two-layer network with GELU (its tanh form), each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": Conv1D(width, 4 * width), "c_proj": Conv1D(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        y: Tensor = self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh"))
        return x + y


class Gpt2Decoder(nn.Module):
    """Tokens (batch, time) to states (batch, time, width)."""

    def __init__(self, vocabulary: int, positions: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(positions, width)
        self.h = nn.ModuleList(Gpt2Layer(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.wte(input_ids) + self.wpe.weight[: input_ids.shape[1]]
        mask = causal_mask(x)
        for layer in self.h:
            x = layer(x, mask)
        states: Tensor = self.ln_f(x)
        return states


class Gpt2(nn.Module):
    """GPT-2 with its output layer. input_ids: (batch, time) tokens; returns (batch, time, vocabulary) logits."""

    def __init__(self, vocabulary: int, positions: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.transformer = Gpt2Decoder(vocabulary, positions, width, layers, heads)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer.wte.weight
        initialise_transformer(self, DEVIATION)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):  # section 2.3: scaled by the number of residual layers
                nn.init.normal_(parameter, std=DEVIATION / math.sqrt(2 * layers))

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(self.transformer(input_ids))
        return logits


def gpt2(
    *,
    vocabulary: int = 50257,
    positions: int = 1024,
    width: int = 768,
    layers: int = 12,
    heads: int = 12,
    seed: int = 0,
) -> Gpt2:
    """GPT-2 small: 124 439 808 parameters. In evaluation mode.

    Example:
        >>> logits = gpt2()(torch.zeros(1, 1024, dtype=torch.long))      # (1, 1024, 50257)
    """
    return seeded(lambda: Gpt2(vocabulary, positions, width, layers, heads), seed)
