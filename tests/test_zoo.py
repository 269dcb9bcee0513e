"""The networks and data that come with the package, and the examples that use them."""

import runpy
from pathlib import Path

import pytest
import torch

from aimc_compiler.zoo import DATASETS, NETWORKS
from aimc_compiler.zoo.fashion import CLASSES, fashion_images

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["fashion_resnet", "resnet32", "llama_tiny"])
def test_networks_run_in_evaluation_mode(name: str) -> None:
    model, example = NETWORKS[name]()
    assert not model.training
    with torch.inference_mode():
        assert torch.isfinite(model(*example)).all()


def test_the_excerpt_is_what_it_says() -> None:
    for part, count in (("test", 2000), ("calibration", 512)):
        images, labels = fashion_images(part)
        assert images.shape == (count, 1, 28, 28)
        assert images.dtype == torch.float32
        assert images.min() == 0.0
        assert images.max() == 1.0
        assert labels.shape == (count,)
        assert set(labels.tolist()) == set(range(len(CLASSES)))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_datasets_are_batches_of_pairs(name: str) -> None:
    for inputs, labels in DATASETS[name]():
        assert len(inputs) == len(labels)


def test_quickstart_is_short_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "quickstart.py"
    assert len(path.read_text().splitlines()) < 30
    runpy.run_path(str(path), run_name="__main__")
    out = capsys.readouterr().out
    assert "11 tiles" in out
    assert "uJ an image" in out


def test_a_decoder_generates_on_a_chip(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "generate.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "floating point: [" in out
    assert "15 tiles for both entries" in out
    assert "each further token:" in out


def test_training_runs_on_a_folder_of_idx_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gzip

    import numpy as np

    train = runpy.run_path(str(EXAMPLES / "train_fashion.py"))["train"]
    images, labels = fashion_images("calibration")
    pixels = (images * 255).round().to(torch.uint8).numpy()
    for name in ("train", "t10k"):
        with gzip.open(tmp_path / f"{name}-images-idx3-ubyte.gz", "wb") as file:
            file.write(bytes(16) + pixels.tobytes())
        with gzip.open(tmp_path / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(bytes(8) + labels.numpy().astype(np.uint8).tobytes())
    model = train(tmp_path, epochs=4, seed=0)
    assert not model.training
    losses = [float(line.split("loss ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < losses[0]
