"""The examples of spoken digits, on the excerpt of the recordings that comes with the package."""

import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import load_example
from safetensors.torch import save_file

from aimc_compiler.chip import load_chip
from aimc_compiler.zoo.digits import CLIPS, WEIGHTS

digits: Any = load_example("spoken_digits")
training: Any = load_example("train_digits")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The excerpt as an .npz of all recordings: its test clips have index 0, the others 5."""
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    with np.load(CLIPS) as data:
        parts = [{key: data[f"{part}_{key}"] for key in ("audio", "length", "digit", "speaker")} for part in PARTS]
    index = [np.full(len(part["digit"]), number) for part, number in zip(parts, (0, 5), strict=True)]
    np.savez(
        path, index=np.concatenate(index), **{key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    )
    return path


PARTS = ("test", "calibration")


def write_wave(path: Path, samples: np.ndarray, rate_hz: int = 8000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())


def test_a_folder_and_an_npz_hold_the_same(packed: Path, tmp_path: Path) -> None:
    clips = digits.read_clips(packed)
    assert len(clips.audio) == 90
    keys = zip(clips.audio, clips.digit.tolist(), clips.speaker.tolist(), clips.index.tolist(), strict=True)
    names = ("ann", "bob", "cleo", "dan", "eve", "fay")
    for audio, digit, speaker, index in keys:
        write_wave(tmp_path / f"{digit}_{names[speaker]}_{index}.wav", audio)
    found = digits.read_clips(tmp_path)
    assert found.speakers == names
    for ours, theirs in zip(found[1:4], clips[1:4], strict=True):
        assert torch.equal(ours, theirs)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found.audio, clips.audio, strict=True))


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nowhere does not exist: clone https"):
        digits.read_clips(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match=r"holds no \.wav"):
        digits.read_clips(tmp_path)
    write_wave(tmp_path / "0_ann_0.wav", np.zeros(4), rate_hz=16000)
    with pytest.raises(SystemExit, match=r"0_ann_0\.wav has 16000 Hz, 2 bytes a sample, 1 channels: 8000 Hz"):
        digits.read_clips(tmp_path)
    write_wave(tmp_path / "seven.wav", np.zeros(4))
    with pytest.raises(SystemExit, match=r"seven\.wav is not called DIGIT_SPEAKER_INDEX\.wav"):
        digits.read_clips(tmp_path)


def test_the_example_measures_the_trained_network(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["spoken_digits.py", "--data", str(packed), "--chips", "2", "--json"])
    digits.main()
    result = json.loads(capsys.readouterr().out)["official split"]
    assert result["n_samples"] == 60
    assert result["float_metric"] >= 58 / 60
    assert [row["time_s"] for row in result["times"]] == [1.0, 3600.0, 86400.0, 31536000.0]
    assert all(row["mean"] > 0.9 for row in result["times"])


def test_it_prints_a_table_and_takes_other_weights_and_chips(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = digits.DigitLstm()
    save_file({name: torch.zeros_like(value) for name, value in model.state_dict().items()}, tmp_path / "zeros")
    given = ["--data", str(packed), "--chips", "1", "--weights", str(tmp_path / "zeros"), "--chip", "ideal"]
    monkeypatch.setattr(sys, "argv", ["spoken_digits.py", *given, "--set", "tile.rows=64"])
    digits.main()
    out = capsys.readouterr().out
    assert out.startswith("ideal: ")
    # All logits are equal: the first digit is named throughout, which is chance, so there is no A*.
    lines = [line.split() for line in out.splitlines()]
    first = next(place for place, line in enumerate(lines) if line[:2] == ["float", "network"])
    assert lines[first][2:] == ["10.00", "100.0", "%"]
    assert lines[first + 1][-2:] == lines[-1][-2:] == ["10.00", "unknown"]


def test_training_gives_one_network_for_each_seed_and_learns(packed: Path) -> None:
    clips = digits.read_clips(packed)
    x = clips.features()
    chosen = clips.digit < 2
    one, again, other = (
        training.train(x[chosen], clips.digit[chosen], epochs=40, seed=seed, batch=6) for seed in (1, 1, 2)
    )
    assert not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)
    with torch.no_grad():
        assert float((one(x[chosen]).argmax(1) == clips.digit[chosen]).float().mean()) >= 0.9


def test_every_speaker_is_held_out_in_turn(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(packed), "--split", "speakers", "--epochs", "1", "--chips", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["train_digits.py", *given])
    training.main()
    results = json.loads(capsys.readouterr().out)
    assert list(results) == [f"without speaker {number}" for number in range(6)]
    assert all(result["n_samples"] == 15 for result in results.values())


def test_the_example_writes_weights_and_excerpt(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, excerpt = tmp_path / "weights.safetensors", tmp_path / "excerpt.npz"
    given = ["--data", str(packed), "--epochs", "1", "--chips", "1", "--out", str(weights), "--excerpt", str(excerpt)]
    monkeypatch.setattr(sys, "argv", ["train_digits.py", *given])
    training.main()
    assert "official split, 60 samples, 1 chips, seed 0" in capsys.readouterr().out
    assert weights.stat().st_size == WEIGHTS.stat().st_size
    with np.load(excerpt) as ours, np.load(CLIPS) as committed:
        assert ours.files == committed.files
        assert all(np.array_equal(ours[name], committed[name]) for name in ours.files)


def test_ranges_are_set_by_an_even_choice_of_clips() -> None:
    assert digits.some(torch.arange(30)).tolist() == list(range(30))
    assert digits.some(torch.arange(2700)).tolist() == list(range(0, 2700, 5))


def test_a_chip_is_changed_by_one_figure() -> None:
    results: Any = load_example("results")
    options = results.options_of(None, "data").parse_args(["--data", "x", "--set", "tile.rows=64"])
    assert results.chip_of(options) == load_chip("analog-fabric", overrides=("tile.rows=64",))
