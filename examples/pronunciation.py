"""g2p-en on an analog chip: how English words are pronounced, letter by letter in, phoneme by phoneme out.

    pip install --no-deps g2p-en
    python examples/pronunciation.py --data cmudict.dict

The package (Park and Kim, Apache-2.0) holds a GRU encoder and decoder of 834 890 parameters, which it computes with
numpy; here they are plain torch. ``--data`` names the CMU Pronouncing Dictionary, one pronunciation a line
(https://github.com/cmusphinx/cmudict, file cmudict.dict), by which the network was trained: words are not held out.
"""

import importlib.util
import random
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import numpy as np
import torch
from results import chip_of, options_of, print_results
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import ChipSpec
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.study import Evaluation

PACKAGE = "g2p_en"
WIDTH = 256
PAD, UNKNOWN, END = 0, 1, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FIRST_LETTER = 3
#: The decoder's first input, and what ends a pronunciation, among the phonemes.
START_PHONEME, END_PHONEME = 2, 3
#: In the package's order: vowels with their stress (0 none, 1 first, 2 second) among the consonants.
PHONEMES = tuple(
    """<pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH
    EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2
    P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH""".split()  # noqa: SIM905
)
STEPS = 20
BATCH = 100

#: All pronunciations of one word, as numbers of phonemes.
Pronunciations = list[list[int]]
Metric = Callable[[Tensor, Sequence[Pronunciations]], float]


class Pronouncer(nn.Module):
    """Letters (batch, time), END behind the last and PAD behind that, to phonemes (batch, steps).

    The encoder's state at END starts the decoder, which is fed its own best phoneme; what stands behind END_PHONEME
    means nothing. The number of steps is fixed, since a chip's program is.
    """

    def __init__(self, width: int = WIDTH, letters: int = 29, phonemes: int = 74, steps: int = STEPS) -> None:
        super().__init__()
        self.steps = steps
        self.letters = nn.Embedding(letters, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.phonemes = nn.Embedding(phonemes, width)
        self.decoder = nn.GRUCell(width, width)
        self.head = nn.Linear(width, phonemes)

    def forward(self, word: Tensor) -> Tensor:
        states, _ = self.encoder(self.letters(word))
        last = (word == END).to(torch.int64).argmax(1)
        state = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
        spoken = torch.full_like(last, START_PHONEME)
        found = []
        for _ in range(self.steps):
            state = self.decoder(self.phonemes(spoken), state)
            spoken = self.head(state).argmax(1)
            found.append(spoken)
        return torch.stack(found, 1)


def pronouncer() -> Pronouncer:
    """The published network, in evaluation mode. The package is not imported: that would need nltk and its data."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the network is not installed: pip install --no-deps g2p-en")
    with np.load(Path(found.submodule_search_locations[0]) / "checkpoint20.npz") as data:
        given = {name: torch.from_numpy(data[name]) for name in data.files}
    state = {"letters.weight": given["enc_emb"], "phonemes.weight": given["dec_emb"]}
    for ours, theirs, suffix in (("encoder", "enc", "_l0"), ("decoder", "dec", "")):
        for short, long in (("w", "weight"), ("b", "bias")):
            state |= {f"{ours}.{long}_{way}{suffix}": given[f"{theirs}_{short}_{way}"] for way in ("ih", "hh")}
    state |= {"head.weight": given["fc_w"], "head.bias": given["fc_b"]}
    model = Pronouncer()
    model.load_state_dict(state)
    return model.eval()


def spell(words: Sequence[str], length: int) -> Tensor:
    """(words, length) letters as the network takes them; length: at least one more than the longest word has."""
    rows = torch.full((len(words), length), PAD)
    for row, word in zip(rows, words, strict=True):
        if len(word) >= length:
            raise ValueError(f"{word!r} has {len(word)} letters: at most {length - 1} fit")
        numbers = [LETTERS.find(letter) + FIRST_LETTER if letter in LETTERS else UNKNOWN for letter in word]
        row[: len(word) + 1] = torch.tensor([*numbers, END])
    return rows


def spoken(row: Sequence[int]) -> list[int]:
    """Phonemes up to END_PHONEME."""
    found = list(row)
    return found[: found.index(END_PHONEME)] if END_PHONEME in found else found


def read_dictionary(path: Path) -> dict[str, Pronunciations]:
    """Words of plain letters and all their pronunciations, of a file in the form of the CMU dictionary."""
    numbers = {phoneme: number for number, phoneme in enumerate(PHONEMES)}
    words: dict[str, Pronunciations] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, *phonemes = line.split("#")[0].split() or [""]
        word = re.sub(r"\(\d+\)$", "", name)
        if re.fullmatch("[a-z]+", word):
            words.setdefault(word, []).append([numbers[phoneme] for phoneme in phonemes])
    return words


def distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Substitutions, insertions and deletions between two sequences (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (one != other))
    return row[-1]


def word_accuracy(found: Tensor, targets: Sequence[Pronunciations]) -> float:
    """Share of the words that are spoken, stress included, as one of their pronunciations."""
    pairs = zip(found.tolist(), targets, strict=True)
    return sum(spoken(row) in allowed for row, allowed in pairs) / len(targets)


def phoneme_accuracy(found: Tensor, targets: Sequence[Pronunciations]) -> float:
    """1 less the phoneme error rate: edits to the nearest pronunciation over the phonemes of that."""
    edits = total = 0
    for row, allowed in zip(found.tolist(), targets, strict=True):
        least, length = min((distance(spoken(row), each), len(each)) for each in allowed)
        edits, total = edits + least, total + length
    return 1 - edits / total


def of_words(metric: Metric, words: dict[str, Pronunciations]) -> Callable[[Tensor, Sequence[str]], float]:
    """A metric whose targets are the words themselves."""

    @wraps(metric)
    def scored(found: Tensor, names: Sequence[str]) -> float:
        return metric(found, [words[name] for name in names])

    return scored


def measure(
    words: dict[str, Pronunciations], *, count: int, chip: ChipSpec, chips: int, seed: int
) -> tuple[CompiledModel, dict[str, Evaluation]]:
    """The compiled network and both metrics on ``count`` words drawn at random; as many others set the input ranges."""
    drawn = random.Random(0).sample(sorted(words), min(2 * count, len(words)))
    measured, others = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    length = 1 + max(len(word) for word in drawn)
    inputs = spell(measured, length).split(BATCH)
    names = [measured[place : place + BATCH] for place in range(0, len(measured), BATCH)]
    compiled = aimc.compile(pronouncer(), chip, inputs[:1], calibration=spell(others, length).split(BATCH))
    results = {}
    for metric in (word_accuracy, phoneme_accuracy):
        data = zip(inputs, names, strict=True)
        scored = of_words(metric, words)
        results[metric.__name__] = aimc.evaluate(compiled, data, scored, chance=0.0, n_chips=chips, seed=seed)
    return compiled, results


def main() -> None:
    parser = options_of(__doc__, "the dictionary: cmudict.dict")
    parser.add_argument("--words", type=int, default=500, help="how many words are measured")
    options = parser.parse_args()
    words = read_dictionary(options.data)
    compiled, results = measure(
        words, count=options.words, chip=chip_of(options), chips=options.chips, seed=options.seed
    )
    print_results(compiled, results, as_json=options.json)


if __name__ == "__main__":
    main()
