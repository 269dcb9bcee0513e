"""A decoder of the Llama family: grouped queries, gated inner layers, norms without mean, rotary positions.

Touvron et al., "LLaMA: open and efficient foundation language models", arXiv:2302.13971, section 2.2; 70B with eight
key heads: Touvron et al., "Llama 2", arXiv:2307.09288, table 1; the vocabulary of 128 256: Grattafiori et al., "The
Llama 3 herd of models", arXiv:2407.21783, table 3. Names of parameters are those of ``LlamaForCausalLM`` of Hugging
Face transformers, so that its state dicts load.

Not modelled: the stretched rotary frequencies of Llama 3.1 and later ("rope scaling"), which matter beyond 8192 tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.attention import attend, causal_mask, join_heads, require_heads, split_heads
from aimc_compiler.zoo.building import initialise_transformer, seeded


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """Sizes of a decoder. Raises ValueError where heads do not divide.

    width: of the residual stream. inner: of the gated layers. key_heads: heads of keys and values, shared by groups of
    ``heads // key_heads`` query heads. rotary_base: theta of the rotary embedding. tied: the output layer is the table
    of tokens.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    key_heads: int
    inner: int
    rotary_base: float = 10000.0
    epsilon: float = 1e-5
    tied: bool = False

    def __post_init__(self) -> None:
        require_heads(self.width, self.heads)
        if self.heads % self.key_heads:
            raise ValueError(f"{self.key_heads} key heads do not divide {self.heads} heads: choose a divisor")

    @property
    def head(self) -> int:
        """Numbers in a head."""
        return self.width // self.heads


LLAMA_TINY = LlamaShape(vocabulary=256, width=64, layers=2, heads=4, key_heads=2, inner=176)
LLAMA_1B = LlamaShape(
    vocabulary=128256, width=2048, layers=16, heads=32, key_heads=8, inner=8192, rotary_base=500000.0, tied=True
)
LLAMA_70B = LlamaShape(vocabulary=32000, width=8192, layers=80, heads=64, key_heads=8, inner=28672)
LLAMA3_70B = LlamaShape(
    vocabulary=128256, width=8192, layers=80, heads=64, key_heads=8, inner=28672, rotary_base=500000.0
)


#: Keys and values of a layer, each (batch, key heads, time, size).
KeysValues = tuple[Tensor, Tensor]


def rotary_angles(x: Tensor, size: int, base: float, time: int) -> tuple[Tensor, Tensor]:
    """(cosines, sines), each (time, size), of the first positions; in x's floating type, on its device.

    Su et al., "RoFormer", arXiv:2104.09864, equation 15; the two halves of a head turn together, as in the weights that
    are in use.
    """
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=x.device) / size
    steps = torch.arange(time, dtype=torch.float32, device=x.device)
    angles = (steps[:, None] * base**-exponents).repeat(1, 2)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x: (batch, heads, time, size), each pair (i, i + size / 2) turned by its position's angle."""
    left, right = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-right, left], dim=-1) * sines


class GroupedAttention(nn.Module):
    """Causal attention whose keys and values serve several query heads: Ainslie et al., arXiv:2305.13245, figure 2.

    x: (batch, time, width); returns (the same shape, keys and values). past: keys and values of earlier calls, with
    room for those of x, which stand at ``position`` (batch,): x is then one token.
    """

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.heads, self.key_heads = shape.heads, shape.key_heads
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.key_heads * shape.head, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.key_heads * shape.head, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head, shape.width, bias=False)

    def forward(
        self,
        x: Tensor,
        cosines: Tensor,
        sines: Tensor,
        mask: Tensor,
        past: KeysValues | None = None,
        position: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        query = rotate(split_heads(self.q_proj(x), self.heads), cosines, sines)
        key = rotate(split_heads(self.k_proj(x), self.key_heads), cosines, sines)
        value = split_heads(self.v_proj(x), self.key_heads)
        if past is not None and position is not None:
            place = position[:, None, None, None].expand_as(key)
            key, value = past[0].scatter(2, place, key), past[1].scatter(2, place, value)
        # (batch, key heads, group, time, size): a group's queries meet one set of keys and values.
        grouped = torch.unflatten(query, 1, (self.key_heads, -1))
        context = attend(grouped, key.unsqueeze(2), value.unsqueeze(2), mask)
        y: Tensor = self.o_proj(join_heads(context.flatten(1, 2)))
        return y, (key, value)


class GatedLayer(nn.Module):
    """down(silu(gate(x)) * up(x)): SwiGLU of Shazeer, arXiv:2002.05202. (batch, time, width) to the same."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class LlamaLayer(nn.Module):
    """Norm and attention, norm and gated layer, each added to its input; arguments as of ``GroupedAttention``."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.self_attn = GroupedAttention(shape)
        self.mlp = GatedLayer(shape.width, shape.inner)
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.epsilon)

    def forward(
        self,
        x: Tensor,
        cosines: Tensor,
        sines: Tensor,
        mask: Tensor,
        past: KeysValues | None = None,
        position: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        mixed, kept = self.self_attn(self.input_layernorm(x), cosines, sines, mask, past, position)
        x = x + mixed
        y: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + y, kept


class LlamaDecoder(nn.Module):
    """Tokens (batch, time) to states (batch, time, width), with the keys and values of every layer.

    past: keys and values of earlier calls, a pair a layer, of as many places as the context has; then there is one
    token, which stands at ``position`` (batch,), and all places behind it are masked.
    """

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.head, self.rotary_base = shape.head, shape.rotary_base
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(LlamaLayer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)

    def forward(
        self, input_ids: Tensor, past: tuple[KeysValues, ...] | None = None, position: Tensor | None = None
    ) -> tuple[Tensor, tuple[KeysValues, ...]]:
        x = self.embed_tokens(input_ids)
        cosines, sines, mask = self._whole(x) if past is None or position is None else self._at(x, past, position)
        kept = []
        for number, layer in enumerate(self.layers):
            x, held = layer(x, cosines, sines, mask, None if past is None else past[number], position)
            kept.append(held)
        states: Tensor = self.norm(x)
        return states, tuple(kept)

    def _whole(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines, sines and mask of all positions of x."""
        return *rotary_angles(x, self.head, self.rotary_base, x.shape[1]), causal_mask(x)

    def _at(self, x: Tensor, past: tuple[KeysValues, ...], position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of one position, looked up in tables."""
        time = past[0][0].shape[2]
        tables = rotary_angles(x, self.head, self.rotary_base, time)
        cosines, sines = (F.embedding(position, table)[:, None, None, :] for table in tables)
        behind = torch.arange(time, device=x.device) > position[:, None]
        mask = torch.zeros(1, time, dtype=x.dtype, device=x.device).masked_fill(behind, float("-inf"))
        return cosines, sines, mask[:, None, None, None, :]


class Llama(nn.Module):
    """Decoder and output layer. input_ids: (batch, time) tokens; returns (batch, time, vocabulary) logits."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.model = LlamaDecoder(shape)
        self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        if shape.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        initialise_transformer(self)

    def forward(self, input_ids: Tensor) -> Tensor:
        states, _ = self.model(input_ids)
        logits: Tensor = self.lm_head(states)
        return logits


def llama(shape: LlamaShape, *, seed: int = 0) -> Llama:
    """A decoder of any shape, in evaluation mode.

    Example:
        >>> logits = llama(LLAMA_TINY)(torch.zeros(1, 16, dtype=torch.long))      # (1, 16, 256)
    """
    return seeded(lambda: Llama(shape), seed)


def llama_tiny(*, seed: int = 0) -> Llama:
    """Two layers of width 64 on 256 tokens: 125 248 parameters, to try things with."""
    return llama(LLAMA_TINY, seed=seed)


def llama_1b(*, seed: int = 0) -> Llama:
    """The shape of Llama 3.2 1B: 1 235 814 400 parameters, 4.9 GB in float32."""
    return llama(LLAMA_1B, seed=seed)


def llama_70b() -> Llama:
    """The shape of Llama 2 70B: 68 976 648 192 parameters, on the meta device: shapes without values."""
    with torch.device("meta"):
        return llama(LLAMA_70B)


def llama3_70b() -> Llama:
    """The shape of Llama 3 70B: 70 553 706 496 parameters, on the meta device: shapes without values."""
    with torch.device("meta"):
        return llama(LLAMA3_70B)
