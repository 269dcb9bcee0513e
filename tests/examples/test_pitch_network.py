"""torchcrepe's tiny pitch network (Kim et al., ICASSP 2018) on the ideal chip.

The package itself needs librosa and resampy, so its module of the network is loaded alone, with its weights.
"""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from loading import installed
from random_checks import check_outputs
from torch import Tensor

import aimc_compiler as aimc

pytestmark = pytest.mark.skipif(
    not installed("torchcrepe"), reason="needs torchcrepe: pip install --no-deps torchcrepe"
)

BINS, RATE_HZ, FRAME = 360, 16000, 1024


def pitch_network(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.find_spec("torchcrepe")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    stand_in: Any = ModuleType("torchcrepe")
    stand_in.PITCH_BINS = BINS
    monkeypatch.setitem(sys.modules, "torchcrepe", stand_in)
    found = importlib.util.spec_from_file_location("pitch_model", folder / "model.py")
    assert found is not None
    assert found.loader is not None
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    model = module.Crepe("tiny")
    model.load_state_dict(torch.load(folder / "assets" / "tiny.pth", weights_only=True))
    return model.eval()


def tones(*hertz: float) -> Tensor:
    """(tones, 1024) frames of sines with two overtones, mean 0 and deviation 1."""
    phase = 2 * math.pi * torch.tensor(hertz, dtype=torch.float64)[:, None] * torch.arange(FRAME) / RATE_HZ
    x = phase.sin() + 0.5 * (2 * phase).sin() + 0.25 * (3 * phase).sin()
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


def cents_off(activation: Tensor, hertz: float) -> float:
    """How far the strongest bin is from a frequency; bins are 20 cents apart from 1997.38 cents over 10 Hz."""
    return 20 * int(activation.argmax()) + 1997.3794084376191 - 1200 * math.log2(hertz / 10)


def test_the_ideal_chip_equals_the_trained_pitch_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pitch_network(monkeypatch).double()
    compiled = aimc.compile(model, "ideal", (tones(220.0, 330.0),))
    assert compiled.graph.batch.dynamic
    outputs = check_outputs(model, compiled, ((tones(110.0, 261.6, 440.0),), {}))
    for activation, hertz in zip(outputs[0], (110.0, 261.6, 440.0), strict=True):
        assert abs(cents_off(activation, hertz)) < 50
