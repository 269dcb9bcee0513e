"""The studies of hardware-aware training, every command, on the excerpts that come with the package."""

import gzip
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import load_example

from aimc_compiler.zoo.digits import CLIPS
from aimc_compiler.zoo.fashion import IMAGES

study: Any = load_example("study")
fashion: Any = load_example("study_fashion")
digits: Any = load_example("study_digits")
transformer: Any = load_example("study_transformer")
characters: Any = load_example("study_characters")
results: Any = load_example("write_results")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The idx files of 320 training and 60 test images."""
    folder = tmp_path_factory.mktemp("fashion")
    with np.load(IMAGES) as data:
        for name, part, count in (("train", "calibration", 320), ("t10k", "test", 60)):
            pixels, labels = data[f"{part}_images"][:count], data[f"{part}_labels"][:count]
            with gzip.open(folder / f"{name}-images-idx3-ubyte.gz", "wb") as file:
                file.write(bytes(16) + pixels.astype(np.uint8).tobytes())
            with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
                file.write(bytes(8) + labels.astype(np.uint8).tobytes())
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The excerpt as the recordings of three indices: 0 is tested, 5 chooses settings, 10 is trained on."""
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    with np.load(CLIPS) as data:
        test, more = ({key: data[f"{part}_{key}"] for key in KEYS} for part in ("test", "calibration"))
    parts = [(test, 0), (more, 5), (more, 10)]
    index = np.concatenate([np.full(len(part["digit"]), number) for part, number in parts])
    np.savez(path, index=index, **{key: np.concatenate([part[key] for part, _ in parts]) for key in KEYS})
    return path


KEYS = ("audio", "length", "digit", "speaker")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text that repeats itself."""
    path = tmp_path_factory.mktemp("characters") / "text.txt"
    path.write_text("She sells sea shells by the sea shore. " * 250)
    return path


def every_command(
    one: Any, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, training: str = "adapted-0"
) -> dict[str, Any]:
    """Digital training, training for the chip, scores of two cells, and what is collected of them."""
    kept = [
        replace(cell, chips=2, samples=min(cell.samples or 40, 40))
        for cell in one.cells
        if cell.key in (f"{training}--analog-fabric", "float--analog-fabric--max")
    ]
    one = replace(one, cells=kept, batch=20)
    name, _, seed = training.rpartition("-")
    for command in (["float", "--epochs", "1"], ["train", "--name", name, "--seed", seed, "--epochs", "1"], ["score"]):
        arguments = ["study", "--data", str(data), "--out", str(out), *command]
        monkeypatch.setattr(sys, "argv", arguments)
        study.main("", [one])
    monkeypatch.setattr(sys, "argv", ["study", "--data", "-", "--out", str(out), "collect", "--into", str(out)])
    study.main("", [one])
    found: dict[str, Any] = json.loads((out / f"{one.name}.json").read_text())
    return found


def require_whole(found: dict[str, Any], training: str = "adapted-0") -> None:
    """Two cells with two chips at every time, and both trainings."""
    assert sorted(found["trainings"]) == sorted([training, "float"])
    assert sorted(found["cells"]) == sorted([f"{training}--analog-fabric", "float--analog-fabric--max"])
    for cell in found["cells"].values():
        assert [len(row["values"]) for row in cell["result"]["times"]] == [2] * 4
        for row, paired in zip(cell["result"]["times"], cell["paired"], strict=True):
            assert paired["mean"] == pytest.approx(row["mean"] - cell["digital"])


def test_fashion(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "VALIDATION", 60)
    found = every_command(fashion.STUDY, images, tmp_path, monkeypatch, "frozen-0")
    require_whole(found, "frozen-0")
    text = results.refresh(
        "<!-- results of fashion; do not edit below -->\nold\n<!-- end of the results -->\n", {"fashion": found}
    )
    assert "old" not in text
    assert text.count("40 x 2") == 2
    assert "frozen, seed 0" in text
    results.draw([found], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_transformer(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "VALIDATION", 60)
    require_whole(every_command(transformer.STUDY, images, tmp_path, monkeypatch))
    found = every_command(transformer.ANALOG, images, tmp_path, monkeypatch)
    assert not (tmp_path / transformer.ANALOG.name / "float").exists(), "it has the digital network of the other"
    protected = json.loads((tmp_path / "transformer.json").read_text())
    for name, cell in found["cells"].items():
        assert cell["digital"] == protected["cells"][name]["digital"]
        assert cell["tiles"] > protected["cells"][name]["tiles"], "the first convolution has a tile"


def test_digits(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "BATCH", 10)
    require_whole(every_command(digits.OFFICIAL, clips, tmp_path, monkeypatch))


def test_characters(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(characters, "BATCH", 16)
    monkeypatch.setattr(characters, "STEPS", 32)
    monkeypatch.setattr(characters, "TESTED", 16)
    network = partial(characters.CharacterLstm, width=24)
    small = replace(characters.STUDY, network=network)
    monkeypatch.setattr(characters, "CharacterLstm", network)
    require_whole(every_command(small, text, tmp_path, monkeypatch))


def test_a_held_out_speaker_is_not_trained_on(clips: Path) -> None:
    without = digits.read(clips, speaker=2)
    with np.load(clips) as data:
        counts = {number: int((data["speaker"] == number).sum()) for number in range(6)}
    assert len(without.test[0]) == counts[2]
    held = {row.numpy().tobytes() for row in without.test[0]}
    assert not held & {row.numpy().tobytes() for row in without.train.x}


def test_scores_that_are_there_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = study.Cell("float", ranges="max")
    one = replace(fashion.STUDY, cells=[cell])
    cells = tmp_path / "fashion" / "cells"
    cells.mkdir(parents=True)
    (cells / f"{cell.key}.json").write_text("{}")
    monkeypatch.setattr(study, "score", lambda *_: pytest.fail("scored again"))
    study.score_all(one, None, tmp_path, "")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="train it first"):
        study.load_float(fashion.STUDY, tmp_path)


def test_augmented_clips_keep_their_shape() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 60, 32)
    assert digits.augment(x).shape == x.shape
    assert fashion.augment(torch.rand(5, 1, 28, 28)).shape == (5, 1, 28, 28)


def test_recipes_are_compared_chip_by_chip() -> None:
    def cell(training: str, *values: float) -> dict[str, Any]:
        row = {"time_s": 3600.0, "values": list(values)}
        setting = {"training": training, "chip": "analog-fabric", "ranges": "", "norms": False}
        return {"cell": setting, "digital": 0.9, "result": {"chance": 0.1, "times": [row]}}

    cells = {
        "one": cell("baseline-0", 0.5, 0.7),
        "two": cell("frozen-0", 0.58, 0.82),
        "three": cell("frozen-1", 0.5, 0.6),
    }
    lines = list(results.differences({"cells": cells}))
    # 10 and 15 points: mean 12.5, half interval 12.706 times 2.5
    assert lines[2:] == ["| frozen, seed 0 | +12.50 ± 31.77 |", ""]
    assert list(results.differences({"cells": {"three": cells["three"]}})) == []


def test_studies_that_are_alike_stand_in_one_table() -> None:
    def one(title: str, digital: float, *means: float) -> dict[str, Any]:
        rows = [{"time_s": 1.0}, {"time_s": 3600.0}, {"time_s": 86400.0}]
        paired = [{"mean": mean, "ci95": [mean - 0.01, mean + 0.01]} for mean in means]
        setting = {"training": "adapted-0", "chip": "analog-fabric", "ranges": "", "norms": False}
        cell = {"cell": setting, "digital": digital, "paired": paired, "result": {"times": rows}}
        return {"title": f"LSTM, {title} held out", "cells": {"one": cell}}

    studies = [one("theo", 0.8, 0.01, 0.5, 0.02), one("lucas", 0.9, 0.03, 0.5, 0.02)]
    lines = list(results.together(studies))
    assert lines[0].count("|") == 5
    assert "hardware-aware, seed 0: 1 day" in lines[0]
    assert lines[2:4] == [
        "| theo held out | 80.0 | +1.0 ± 1.0 | +2.0 ± 1.0 |",
        "| lucas held out | 90.0 | +3.0 ± 1.0 | +2.0 ± 1.0 |",
    ]
    # 1 and 3 points: mean 2, half interval 12.706
    assert lines[4] == "| mean of the 2 | 85.0 | +2.0 ± 12.7 | +2.0 ± 0.0 |"
    chose = list(results.together([one("george (chose the rate)", 0.5, 0.4, 0.4, 0.4), *studies]))
    assert chose[-2] == lines[4].replace("the 2", "the other 2")
    # Seeds of one training are one column, whose interval is over them: 1 and 2 points, half interval 12.706 * 0.5.
    more = one("theo", 0.8, 0.02, 0.5, 0.02)["cells"]["one"]
    more["cell"]["training"] = "adapted-1"
    two = {"title": "LSTM, theo held out", "cells": {"one": studies[0]["cells"]["one"], "two": more}}
    lines = list(results.together([two]))
    assert "hardware-aware, 2 seeds: 1 s | hardware-aware, 2 seeds: 1 day" in lines[0]
    assert lines[2] == "| theo held out | 80.0 | +1.5 ± 6.4 | +2.0 ± 0.0 |"
    del studies[0]["cells"]["one"]
    with pytest.raises(SystemExit, match="has other lines than the study before it"):
        list(results.together(studies[::-1]))


def test_a_line_a_study_says_what_training_is_worth() -> None:
    def cell(training: str, hour: float, year: float, ranges: str = "") -> dict[str, Any]:
        rows = [{"time_s": 3600.0, "mean": hour}, {"time_s": 31_536_000.0, "mean": year}]
        setting = {"training": training, "chip": "analog-fabric", "ranges": ranges, "norms": False}
        return {"cell": setting, "digital": 0.9, "tiles": 7, "result": {"chance": 0.1, "times": rows}}

    cells = [
        cell("float", 0.7, 0.5, "max"),
        cell("float", 0.66, 0.54, "percentile:99.9"),
        cell("adapted-0", 0.9, 0.88),
        cell("adapted-1", 0.89, 0.89),
        cell("baseline-0", 0.1, 0.1),
    ]
    lines = list(results.summary([{"name": "other", "title": "Some network", "cells": dict(enumerate(cells))}]))
    assert lines[2:] == ["| Some network | 7 | 75.0 | 55.0 | 100.0, 98.8 | 97.5, 98.8 |", ""]
