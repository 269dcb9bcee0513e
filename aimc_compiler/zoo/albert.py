"""ALBERT: BERT with one layer used at every depth, and embeddings narrower than the layers.

Lan et al., "ALBERT: a lite BERT for self-supervised learning of language representations", ICLR 2020, table 1: base
has embeddings of 128, width 768, 12 uses of the layer, 12 heads, inner width 3072, 30 000 word pieces. On a chip the
shared matrices are stored once and used twelve times. Names of parameters are those of
``AlbertForSequenceClassification`` of Hugging Face transformers, so that its state dicts load.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.attention import SelfAttention, padding_mask
from aimc_compiler.zoo.bert import EPSILON, TextEmbeddings
from aimc_compiler.zoo.building import initialise_transformer, seeded


class AlbertAttention(SelfAttention):
    """Self-attention with its projection, shortcut and norm: (batch, time, width) to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y: Tensor = self.LayerNorm(self.dense(super().forward(x, mask)) + x)
        return y


class AlbertLayer(nn.Module):
    """The layer that is shared: attention and a two-layer network with GELU (its tanh form)."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.full_layer_layer_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = AlbertAttention(width, heads)
        self.ffn = nn.Linear(width, inner)
        self.ffn_output = nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)
        y = self.ffn_output(F.gelu(self.ffn(x), approximate="tanh"))
        z: Tensor = self.full_layer_layer_norm(y + x)
        return z


class AlbertGroup(nn.Module):
    """Layers that share their weights with every other use of the group; the published networks have one."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList([AlbertLayer(width, heads, inner)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.albert_layers:
            x = layer(x, mask)
        return x


class AlbertEncoder(nn.Module):
    """From the embeddings' width to the layers', then the group ``uses`` times."""

    def __init__(self, embedding: int, width: int, uses: int, heads: int, inner: int) -> None:
        super().__init__()
        self.uses = uses
        self.embedding_hidden_mapping_in = nn.Linear(embedding, width)
        self.albert_layer_groups = nn.ModuleList([AlbertGroup(width, heads, inner)])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.embedding_hidden_mapping_in(x)
        for _ in range(self.uses):
            for group in self.albert_layer_groups:
                x = group(x, mask)
        return x


class Albert(nn.Module):
    """Encoder and pooler: tokens (batch, time) to (states (batch, time, width), pooled (batch, width))."""

    def __init__(self, embeddings: TextEmbeddings, encoder: AlbertEncoder, width: int) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = encoder
        self.pooler = nn.Linear(width, width)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x = self.embeddings(input_ids, token_type_ids)
        x = self.encoder(x, padding_mask(attention_mask, x.dtype))
        return x, torch.tanh(self.pooler(x[:, 0]))


class AlbertClassifier(nn.Module):
    """ALBERT with a linear layer on its pooled output.

    input_ids: (batch, time) tokens. attention_mask: (batch, time), 0 at padding, or None. token_type_ids:
    (batch, time) segments, or None. Returns (batch, classes) logits.
    """

    def __init__(self, encoder: Albert, width: int, classes: int) -> None:
        super().__init__()
        self.albert = encoder
        self.classifier = nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        _, pooled = self.albert(input_ids, attention_mask, token_type_ids)
        logits: Tensor = self.classifier(pooled)
        return logits


def albert_base_v2(
    *,
    classes: int = 2,
    vocabulary: int = 30000,
    positions: int = 512,
    segments: int = 2,
    embedding: int = 128,
    width: int = 768,
    uses: int = 12,
    heads: int = 12,
    inner: int = 3072,
    seed: int = 0,
) -> AlbertClassifier:
    """ALBERT-base, version 2: 11 683 584 parameters (``.albert``) and the head's 769 a class. In evaluation mode.

    Example:
        >>> logits = albert_base_v2()(torch.zeros(1, 128, dtype=torch.long))      # (1, 2)
    """

    def build() -> AlbertClassifier:
        embeddings = TextEmbeddings(vocabulary, positions, segments, embedding)
        encoder = AlbertEncoder(embedding, width, uses, heads, inner)
        model = AlbertClassifier(Albert(embeddings, encoder, width), width, classes)
        initialise_transformer(model)
        return model

    return seeded(build, seed)
