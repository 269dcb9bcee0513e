"""The example of pronunciations: what it reads and counts, and the network against the package's own."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from loading import installed, load_example

import aimc_compiler as aimc
from aimc_compiler.chip import load_chip

example: Any = load_example("pronunciation")

EXCERPT = Path(__file__).parent / "cmudict_excerpt.dict"
STRANGE = ["activationist", "zzyzx", "blockchain", "x", "antidisestablishmentarian", "quokka's", "naïve", "torchlike"]

needs_package = pytest.mark.skipif(not installed("g2p_en"), reason="needs g2p-en: pip install --no-deps g2p-en")


def test_distances_are_those_of_levenshtein() -> None:
    for first, second, edits in (("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0)):
        assert example.distance(first, second) == example.distance(second, first) == edits


def test_words_count_where_one_pronunciation_is_met_and_phonemes_by_the_nearest() -> None:
    end = example.END_PHONEME
    found = torch.tensor([[5, 6, end, 9], [5, 7, 8, 9], [end, 0, 0, 0]])
    targets = [[[5, 7], [5, 6]], [[5, 7, 8]], [[4, 4], [4]]]
    assert example.word_accuracy(found, targets) == pytest.approx(1 / 3)
    # Nothing, one insertion, one deletion; of 2 + 3 + 1 phonemes.
    assert example.phoneme_accuracy(found, targets) == pytest.approx(1 - 2 / 6)


def test_a_dictionary_is_read_with_all_pronunciations_and_without_comments() -> None:
    words = example.read_dictionary(EXCERPT)
    phonemes = [" ".join(example.PHONEMES[number] for number in each) for each in words["tomato"]]
    assert phonemes == ["T AH0 M EY1 T OW2", "T AH0 M AA1 T OW2"]
    assert "a.m." not in words
    assert all(word.isalpha() for word in words)


def test_words_are_spelt_with_their_end_and_padding() -> None:
    assert example.spell(["ab", "é"], 4).tolist() == [[3, 4, 2, 0], [1, 2, 0, 0]]
    with pytest.raises(ValueError, match="'abcd' has 4 letters: at most 3 fit"):
        example.spell(["abcd"], 4)


def test_the_state_at_the_end_of_the_word_starts_the_decoder() -> None:
    """What stands behind a word does not matter, and a loop by hand over one word gives the same."""
    torch.manual_seed(0)
    model = example.Pronouncer(width=8, steps=5).double().eval()
    word = example.spell(["abc"], 9)
    with torch.no_grad():
        found = model(word)
        assert torch.equal(found, model(word[:, :4]))
        _, state = model.encoder(model.letters(word[:, :4]))
        state, spoken = state[0], torch.tensor([example.START_PHONEME])
        for step in range(5):
            state = model.decoder(model.phonemes(spoken), state)
            spoken = model.head(state).argmax(1)
            assert int(found[0, step]) == int(spoken)


def test_the_ideal_chip_speaks_as_the_float_network() -> None:
    torch.manual_seed(0)
    model = example.Pronouncer(width=8, steps=5).double().eval()
    words = example.spell(["abc", "de", "fghij"], 9)
    compiled = aimc.compile(model, "ideal", (words[:1],))
    assert compiled.graph.batch.dynamic
    with torch.no_grad():
        assert torch.equal(compiled.deploy()(words), model(words))


# The package leaves a file open.
@pytest.mark.filterwarnings("ignore")
@needs_package
def test_the_network_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word by word against its numpy code, on words of the dictionary, others, and letters it does not know."""
    for name in ("nltk", "nltk.corpus", "nltk.tokenize", "inflect", "distance"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    theirs = importlib.import_module("g2p_en.g2p").G2p()
    assert tuple(theirs.phonemes) == example.PHONEMES
    assert theirs.graphemes[example.FIRST_LETTER :] == list(example.LETTERS)
    words = [*example.read_dictionary(EXCERPT), *STRANGE]
    with torch.no_grad():
        found = example.pronouncer()(example.spell(words, 30)).tolist()
    for word, row in zip(words, found, strict=True):
        assert [example.PHONEMES[number] for number in example.spoken(row)] == theirs.predict(word), word


@needs_package
def test_the_trained_network_on_the_ideal_chip() -> None:
    model = example.pronouncer()
    words = example.spell([*example.read_dictionary(EXCERPT), *STRANGE], 30)
    compiled = aimc.compile(model, "ideal", (words[:1],))
    with torch.no_grad():
        assert torch.equal(compiled.deploy()(words), model(words))


@needs_package
def test_the_example_measures_both_metrics(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", str(EXCERPT), "--words", "16", "--chips", "1", "--json", "--chip", "ideal"]
    monkeypatch.setattr(sys, "argv", ["pronunciation.py", *given])
    example.main()
    results = json.loads(capsys.readouterr().out)
    assert list(results) == ["word_accuracy", "phoneme_accuracy"]
    for name, result in results.items():
        assert result["metric"] == name
        assert result["n_samples"] == 16
        assert 0.5 < result["float_metric"] == result["times"][0]["mean"]


@needs_package
def test_a_narrow_output_converter_is_what_costs_accuracy() -> None:
    """States of a GRU are near 1 in magnitude: products of 256 rows pass the standard bound of 10 and are clipped."""
    words = example.read_dictionary(EXCERPT)
    chips = [load_chip("analog-fabric", overrides=(f"tile.adc.out_bound={bound}",)) for bound in ("10", "20")]
    narrow, wide = (
        example.measure(words, count=16, chip=chip, chips=1, seed=0)[1]["phoneme_accuracy"].times[0].mean
        for chip in chips
    )
    assert narrow < 0.6 < wide
