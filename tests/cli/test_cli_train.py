"""`aimc train`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import aimc_compiler as aimc

TASK = """
from functools import partial
import torch
from torch import nn
from aimc_compiler.training import Task

def network():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

def data(seed, count):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)

def task():
    return Task(network=network, train=data(0, 80), validation=data(1, 60), batch_size=20, epochs=2,
                optimiser=partial(torch.optim.Adam, lr=0.02))

def wide():
    import dataclasses
    return dataclasses.replace(task(), network=lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))

class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][-1])

def steps_first():
    import dataclasses
    x, y = data(0, 80)
    batches = [(part.expand(4, 20, 6), target) for part, target in zip(x.split(20), y.split(20))]
    return dataclasses.replace(task(), network=Last, train=batches, validation=batches, batch_dim=1)

def made():
    torch.manual_seed(0)
    return network().eval(), torch.zeros(1, 6)

def batches():
    return [data(0, 80)]

def fails():
    return absent

def nothing():
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(TASK)
    (tmp_path / "recipe.json").write_text('{"range_batches": 2, "noise_factor": 2.0}')
    (tmp_path / "wrong.json").write_text('{"noise_facto": 2.0}')
    return tmp_path


def test_a_task_is_trained_scored_and_resumed(aimc_command: Any, folder: Path) -> None:
    given = ("train", "net.py:task", "--recipe", "recipe.json", "--chips", "2", "--times", "1s,1d")
    code, out, err = aimc_command(*given, "-o", "run", "--epoch-chips", "2", "--json")
    assert code == 0, err
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    found = json.loads(out)
    assert [row["time_s"] for row in found["times"]] == [1.0, 86400.0]
    assert [len(each["chip_metrics"]) for each in found["epochs"]] == [2, 2]
    assert found["times"][0]["ci95"] is not None
    assert found["epochs"][-1]["float_metric"] == found["float_metric"]
    compiled = aimc.load(folder / "run" / "network.aimc")
    assert compiled.ranges is not None
    assert compiled.ranges.method == "learned"
    code, out, err = aimc_command(*given, "-o", "run", "--resume")
    assert code == 0, err
    assert (
        "8 steps in 2 epochs; 60 samples on 2 programmed chips of analog-fabric, seed 0; input ranges: learned" in out
    )
    assert "float network" in out
    assert f"wrote {Path('run') / 'network.aimc'}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.py:nothing",), "net.py:nothing must return an aimc_compiler.training.Task, not int"),
        (("net.py:fails",), "fails, called without arguments: NameError"),
        (("net.py",), "names no task: write file.py:function"),
        (("net.py:task", "--recipe", "none.json"), "there is no recipe file none.json"),
        (("net.py:task", "--recipe", "wrong.json"), "there is no setting 'noise_facto'"),
        (("net.py:task", "--set", "tile.rowz=3"), "rowz"),
        (("net.py:task", "-o", "net.py"), "net.py cannot be made"),
    ],
)
def test_what_is_wrong_is_named(aimc_command: Any, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = aimc_command("train", *arguments)
    assert code == 2
    assert message in " ".join(err.split())


def test_samples_may_lie_along_another_dimension(aimc_command: Any, folder: Path) -> None:
    code, out, err = aimc_command("train", "net.py:steps_first", "--chips", "2", "--times", "1s", "-o", "run", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["epochs"][-1]["float_metric"] == found["float_metric"]
    compiled = aimc.load(folder / "run" / "network.aimc")
    assert compiled.deploy(seed=0)(torch.randn(4, 5, 6)).shape == (5, 3)


def test_channels_are_rescaled_before_a_network_is_compiled(aimc_command: Any, folder: Path) -> None:
    code, _, err = aimc_command(
        "compile", "net.py:made", "--rescale", "net.py:batches", "--calibrate", "net.py:batches", "-o", "net.aimc"
    )
    assert code == 0, err
    assert "rescaled 0 and 2.weight: 16 channels, factors 0." in err
    assert "not rescaled: 2: its channels are outputs of the network" in err
    assert aimc_command("run", "net.aimc", "--data", "net.py:batches", "--chips", "1", "--times", "1s")[0] == 0


def test_another_network_does_not_go_on(aimc_command: Any) -> None:
    assert aimc_command("train", "net.py:task", "--epochs", "1", "--chips", "1", "--times", "1s")[0] == 0
    code, _, err = aimc_command("train", "net.py:task", "--epochs", "1")
    assert code == 2
    assert "holds a run already: resume it" in err
    code, _, err = aimc_command("train", "net.py:wide", "--epochs", "1", "--resume")
    assert code == 2
    assert "belongs to a run with parameters" in err
