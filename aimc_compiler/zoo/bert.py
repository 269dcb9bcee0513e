"""BERT: a bidirectional transformer encoder, with its pooler and a head that classifies sequences.

Devlin, Chang, Lee, Toutanova, "BERT: pre-training of deep bidirectional transformers for language understanding",
NAACL 2019, section 3: base has 12 layers, width 768, 12 heads, inner width 3072, 30 522 word pieces. Names of
parameters are those of ``BertForSequenceClassification`` of Hugging Face transformers, so that its state dicts load.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.zoo.attention import SelfAttention, padding_mask
from aimc_compiler.zoo.building import initialise_transformer, seeded

EPSILON = 1e-12


class TextEmbeddings(nn.Module):
    """Word, position and segment embeddings, added and normalised. Shared by BERT and ALBERT.

    tokens: (batch, time) integers; segments: the same, or None for the first one throughout. Returns
    (batch, time, width).
    """

    def __init__(self, vocabulary: int, positions: int, segments: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(segments, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, tokens: Tensor, segments: Tensor | None) -> Tensor:
        # Rows taken from the table directly depend on no input: they are constants of the program.
        kinds = self.token_type_embeddings.weight[0] if segments is None else self.token_type_embeddings(segments)
        positions = self.position_embeddings.weight[: tokens.shape[1]]
        x: Tensor = self.LayerNorm(self.word_embeddings(tokens) + kinds + positions)
        return x


class AddAndNorm(nn.Module):
    """A linear layer, added to what came before it, normalised: (batch, time, inputs) to (batch, time, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=EPSILON)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        y: Tensor = self.LayerNorm(self.dense(x) + before)
        return y


class BertLayer(nn.Module):
    """Attention and a two-layer network with GELU, each with its shortcut and norm behind it."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads), "output": AddAndNorm(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = AddAndNorm(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        y: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return y


class BertEncoder(nn.Module):
    """Layers in a row: (batch, time, width) to the same."""

    def __init__(self, layers: int, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(width, heads, inner) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Bert(nn.Module):
    """Encoder and pooler: tokens (batch, time) to (states (batch, time, width), pooled (batch, width))."""

    def __init__(
        self, *, vocabulary: int, positions: int, segments: int, width: int, layers: int, heads: int, inner: int
    ) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(vocabulary, positions, segments, width)
        self.encoder = BertEncoder(layers, width, heads, inner)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        x = self.embeddings(input_ids, token_type_ids)
        x = self.encoder(x, padding_mask(attention_mask, x.dtype))
        return x, torch.tanh(self.pooler["dense"](x[:, 0]))


class BertClassifier(nn.Module):
    """BERT with a linear layer on its pooled output.

    input_ids: (batch, time) tokens. attention_mask: (batch, time), 0 at padding, or None. token_type_ids:
    (batch, time) segments, or None. Returns (batch, classes) logits.
    """

    def __init__(self, encoder: Bert, width: int, classes: int) -> None:
        super().__init__()
        self.bert = encoder
        self.classifier = nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        _, pooled = self.bert(input_ids, attention_mask, token_type_ids)
        logits: Tensor = self.classifier(pooled)
        return logits


def bert_base(
    *,
    classes: int = 2,
    vocabulary: int = 30522,
    positions: int = 512,
    segments: int = 2,
    width: int = 768,
    layers: int = 12,
    heads: int = 12,
    inner: int = 3072,
    seed: int = 0,
) -> BertClassifier:
    """BERT-base: 109 482 240 parameters (``.bert``) and the head's 769 a class. In evaluation mode.

    Example:
        >>> logits = bert_base()(torch.zeros(1, 128, dtype=torch.long))      # (1, 2)
    """

    def build() -> BertClassifier:
        sizes = {"width": width, "layers": layers, "heads": heads, "inner": inner}
        encoder = Bert(vocabulary=vocabulary, positions=positions, segments=segments, **sizes)
        model = BertClassifier(encoder, width, classes)
        initialise_transformer(model)
        return model

    return seeded(build, seed)
