"""``nn.MultiheadAttention`` in training: its projections on tiles, attention between activations digital.

A call with one tensor for query, key and value is one product with the packed weight; with one tensor for key and value
two, else three, as the compiler has them. Which of them a network makes is said by its place (the second attention of
``nn.TransformerDecoderLayer`` shares key and value) or by example inputs.
"""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.analog import Contraction
from aimc_compiler.errors import TrainingError
from aimc_compiler.training.batches import made_again
from aimc_compiler.training.layers import Place, TrainedLayer
from aimc_compiler.training.matrix import TrainedMatrix

Form = Literal["self", "shared", "separate"]
_LINEAR = Contraction(kind="linear")
_SPLITS: dict[Form, tuple[int, ...]] = {"self": (3,), "shared": (1, 2), "separate": (1, 1, 1)}


def form_of(query: Any, key: Any, value: Any) -> Form:
    """Which products a call makes."""
    return "self" if query is key and key is value else "shared" if key is value else "separate"


class TrainedMultiheadAttention(TrainedLayer, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` on tiles. Its output projection is a linear layer of its own."""

    plain = nn.MultiheadAttention
    analog: nn.ModuleList
    form: Form

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's."""
        single = query.dim() == 2
        query, key, value = self._as_prepared(query, key, value)
        form = form_of(query, key, value)
        inputs = [self._batch_first(part) for part in (query, key, value)]
        q, k, v = (self._heads(part) for part in self._projected(form, *inputs))
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        dropped = self.dropout if self.training else 0.0
        if need_weights:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            y = F.dropout(weights, dropped) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, dropped)
        outputs = self.out_proj(y.transpose(1, 2).flatten(2))
        outputs = outputs[0] if single else outputs if self.batch_first else outputs.transpose(0, 1)
        if not need_weights:
            return outputs, None
        weights = weights.mean(1) if average_attn_weights else weights
        return outputs, weights[0] if single else weights

    def cores(self) -> dict[str, TrainedMatrix]:
        return {str(index): cast(TrainedMatrix, core) for index, core in enumerate(self.analog)}

    def blocks(self, name: str) -> Tensor:
        return self._weights()[int(name)][None]

    def replace(self, name: str, blocks: Tensor) -> None:
        self._weights()[int(name)].data.copy_(blocks[0])

    def _add(self, place: Place) -> None:
        if self.bias_k is not None or self.add_zero_attn:
            raise TrainingError(
                f"{place.path!r} adds a key and value of its own (add_bias_kv, add_zero_attn), which is "
                "not built: keep it digital by a rule"
            )
        self.form = cast(Form, place.form or "self")
        made = [
            place.matrix(name, parameter, weight, (1, weight.shape[0], weight.shape[1]), _LINEAR)
            for (name, parameter), weight in zip(self._names(), self._weights(), strict=True)
        ]
        self.analog = nn.ModuleList(made)

    def _names(self) -> list[tuple[str, str]]:
        """(of the matrix, of its weight), as the compiler has them."""
        if not self._qkv_same_embed_dim:
            return [(name, name) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
        packed, width = "in_proj_weight", self.embed_dim
        views = {
            "self": [""],
            "shared": [f"|split_with_sizes([{width}, {2 * width}],)[{part}]" for part in range(2)],
            "separate": [f"|chunk(3,)[{part}]" for part in range(3)],
        }[self.form]
        numbered = [packed, *(f"{packed}@{number}" for number in range(2, len(views) + 1))]
        return [(name, packed + view) for name, view in zip(numbered, views, strict=True)]

    def _weights(self) -> list[Tensor]:
        if not self._qkv_same_embed_dim:
            return [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        return list(torch.split(self.in_proj_weight, [count * self.embed_dim for count in _SPLITS[self.form]]))

    def _projected(self, form: Form, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values, (batch, time, width). Raises TrainingError where they are not made as prepared."""
        if self._qkv_same_embed_dim and form != self.form:
            raise TrainingError(
                f"attention {self.analog[0].name!r} was prepared for {_WORDS[self.form]} and is called with "
                f"{_WORDS[form]}: give prepare_hwa example_inputs, which show how it is called"
            )
        counts = _SPLITS[form] if self._qkv_same_embed_dim else (1, 1, 1)
        biases: list[Tensor | None] = [None] * len(counts)
        if self.in_proj_bias is not None:
            biases = list(torch.split(self.in_proj_bias, [count * self.embed_dim for count in counts]))
        inputs = {1: [query], 2: [query, key], 3: [query, key, value]}[len(counts)]
        parts = [
            core(x, weight[None], bias)
            for core, x, weight, bias in zip(self.analog, inputs, self._weights(), biases, strict=True)
        ]
        return [each for part in parts for each in torch.split(part, self.embed_dim, -1)]

    def _as_prepared(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs as one tensor where they were one: reentrant checkpointing detaches each by itself when it makes
        values again."""
        if not made_again() or form_of(query, key, value) == self.form:
            return query, key, value
        key = query if self.form == "self" and _same_memory(query, key) else key
        return query, key, key if _same_memory(key, value) else value

    def _batch_first(self, x: Tensor) -> Tensor:
        return x[None] if x.dim() == 2 else x if self.batch_first else x.transpose(0, 1)

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """What is added to the scores: (batch, heads, queries, keys), or what broadcasts to it."""
        padding, mask = (None if part is None else _added(part, q) for part in (padding, mask))
        if mask is not None and mask.dim() == 3:
            mask = mask.reshape(-1, self.num_heads, *mask.shape[1:])
        if padding is None:
            return mask
        padding = padding.reshape(-1, 1, 1, k.shape[2])
        return padding if mask is None else mask + padding


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers to add to scores: minus infinity where a mask of truth values is true."""
    if mask.dtype != torch.bool:
        return mask.to(like)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


_WORDS = {
    "self": "one tensor for query, key and value",
    "shared": "one tensor for key and value",
    "separate": "three tensors",
}
