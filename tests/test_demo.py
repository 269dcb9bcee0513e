"""The demo network on the virtual chip: what the README says, on fewer images and chips."""

import json
import subprocess
import sys

import pytest
import torch

import aimc_compiler as aimc
from aimc_compiler.chip import all_off, scale
from aimc_compiler.zoo.fashion import fashion_images, fashion_resnet

HOUR_S, YEAR_S = 3600.0, 31_536_000.0


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    images, _ = fashion_images("calibration")
    return aimc.compile(fashion_resnet(), "analog-fabric", (images[:1],), calibration=images.split(128))


def accuracy(compiled: aimc.CompiledModel, count: int, times_s: tuple[float, ...], chips: int) -> list[float]:
    images, labels = fashion_images("test")
    data = list(zip(images[:count].split(100), labels[:count].split(100), strict=True))
    return [row.mean for row in aimc.evaluate(compiled, data, times_s=times_s, n_chips=chips).times]


def test_float_accuracy_is_above_90_percent() -> None:
    images, labels = fashion_images("test")
    with torch.inference_mode():
        found = fashion_resnet()(images).argmax(1)
    assert float((found == labels).float().mean()) > 0.90


def test_all_effects_off_is_the_float_accuracy(compiled: aimc.CompiledModel) -> None:
    images, labels = fashion_images("test")
    off = compiled.with_chip(all_off(compiled.chip))
    result = aimc.evaluate(off, [(images[:500], labels[:500])], times_s=(YEAR_S,), n_chips=1)
    assert result.times[0].mean == result.float_metric
    chip_outputs = off.deploy()(images[:100], time_s=YEAR_S)
    expected = compiled.float_outputs(images[:100])
    assert (chip_outputs - expected).norm() / expected.norm() < 1e-5


def test_accuracy_falls_with_time(compiled: aimc.CompiledModel) -> None:
    first, last = accuracy(compiled, 400, (1.0, YEAR_S), chips=3)
    assert 0.6 < last < first < 0.93


@pytest.mark.parametrize(
    ("effect", "factor"),
    [
        ("read_noise", 12.0),
        ("output_noise", 12.0),
        ("programming_noise", 6.0),
        ("drift", 6.0),
        ("accumulated_read_noise", 8.0),
        ("ir_drop", 600.0),
    ],
)
def test_accuracy_falls_with_each_nonideality(compiled: aimc.CompiledModel, effect: str, factor: float) -> None:
    worse = compiled.with_chip(scale(compiled.chip, effect, factor))
    assert accuracy(worse, 200, (HOUR_S,), chips=2)[0] < accuracy(compiled, 200, (HOUR_S,), chips=2)[0] - 0.02


def test_demo_command() -> None:
    command = [sys.executable, "-c", "from aimc_compiler.cli import main; main()"]
    options = ["demo", "--chips", "1", "--images", "100", "--json"]
    found = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    result = json.loads(found.stdout)
    assert result["n_samples"] == 100
    assert result["tiles_used"] > 5
    assert [row["time_s"] for row in result["times"]] == [1.0, HOUR_S, 86_400.0, YEAR_S]
