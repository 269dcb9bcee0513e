"""What trained networks are sensitive to: the command, and the table and plot of several networks."""

import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from loading import load_example
from safetensors.torch import save_file
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.report.sensitivity import load_sensitivity, save_sensitivity
from aimc_compiler.training import prepare_hwa

study: Any = load_example("study")
characters: Any = load_example("study_characters")
command: Any = load_example("study_sensitivity")
written: Any = load_example("write_sensitivity")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two linear networks on a small task, in the place of two studies."""
    folder = tmp_path_factory.mktemp("found")
    for name, seed in (("fashion", 0), ("characters", 1)):
        torch.manual_seed(seed)
        model, x = nn.Linear(24, 4).eval(), torch.randn(40, 24)
        with torch.no_grad():
            data = [(x, model(x).argmax(1))]
        compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x])
        result = aimc.sensitivity(
            compiled,
            data,
            n_chips=3,
            threshold=0.9,
            parts=["effects", "layers", "columns"],
            effects=["output_noise", "adc_quantisation", "ir_drop", "stuck_at_g_max"],
        )
        save_sensitivity(result, folder / f"{name}.json")
    every: dict[str, Any] = written.read_all(folder)
    return every


def test_the_table_has_both_networks(found: dict[str, Any]) -> None:
    text = written.refresh(
        "before\n<!-- trained networks; do not edit below -->\nold\n<!-- end of the trained networks -->\nafter\n",
        found,
    )
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    lines = text.splitlines()
    assert lines[3] == (
        "| effect | the chip's | CNN: loss at 20 % MVM error | LSTM: loss at 20 % MVM error | CNN: tolerated up to | "
        "LSTM: tolerated up to |"
    )
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in lines[5:9]}
    assert set(rows) == {"output noise", "output quantisation", "IR drop", "devices stuck at g_max"}
    for label, place in (("CNN", 1), ("LSTM", 2)):
        effect = next(row for row in found[label].effects if row.name == "output_noise")
        assert rows["output noise"][place].split(" [")[0] == f"{100 * effect.equal.loss.mean:.1f}"
        assert rows["output noise"][place + 2].startswith(f"{float(f'{effect.tolerance.level:.2g}'):g}x")
    costs = [max(written.cost(row) for row in rows.values()) for rows in written.effects(found).values()]
    assert costs == sorted(costs, reverse=True)
    assert "| CNN: layer | share of weights | gain if exempt |" in lines
    assert "| 1 column | " in text
    assert "| 1 column by chance | " in text


def test_endless_tolerances_are_said(found: dict[str, Any], tmp_path: Path) -> None:
    (row,) = (row for row in found["CNN"].effects if row.name == "output_noise")
    endless = replace(row, tolerance=replace(row.tolerance, level=math.inf, high=math.inf))
    save_sensitivity(replace(found["CNN"], effects=(endless,)), tmp_path / "one.json")
    written_back = load_sensitivity(tmp_path / "one.json")
    assert written_back.effects == (endless,)
    lines = list(written.effects_table({"CNN": written_back}))
    assert f"| {written.tolerance_text(endless)} |" in lines[2]
    assert written.tolerance_text(endless).startswith("> ")
    assert written.tolerance_text(replace(endless, kind="bits")) == "own bits needed"
    assert written.tolerance_text(replace(row, tolerance=None)) == "-"


def test_it_is_drawn(found: dict[str, Any], tmp_path: Path) -> None:
    written.draw(found, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_the_command_studies_trained_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    text = tmp_path / "text.txt"
    text.write_text("She sells sea shells by the sea shore. " * 60)
    for name, value in (("BATCH", 4), ("STEPS", 8), ("TESTED", 8)):
        monkeypatch.setattr(characters, name, value)
    network = partial(characters.CharacterLstm, width=12)
    small = replace(characters.STUDY, network=network, batch=20, chance=-1.0)
    monkeypatch.setattr(characters, "CharacterLstm", network)
    monkeypatch.setattr(sys.modules["study_characters"], "STUDY", small)
    recipe = small.trainings["adapted"].recipe
    trained = prepare_hwa(network(), "analog-fabric", recipe, example_inputs=(small.split(text).calibration[:1],))
    trained.train()(small.split(text).calibration)
    plain = network()
    with torch.no_grad():
        plain.head.bias[0] = 100.0  # the baseline says a space whatever comes
    for name, model in (("float", plain), ("adapted-0", trained)):
        folder = tmp_path / "characters" / name
        folder.mkdir(parents=True)
        save_file(
            {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "weights.safetensors"
        )
    arguments = ["study", "--data", str(text), "--out", str(tmp_path), "characters", "--samples", "12", "--chips", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--parts", "layers,columns", "--into", str(tmp_path / "found")])
    command.main()
    result = json.loads((tmp_path / "found" / "characters.json").read_text())
    assert (result["n_samples"], result["n_chips"], result["asked_threshold"]) == (12, 2, 0.98)
    assert 0.15 < result["baseline"] < 0.25
    assert result["float_metric"] != result["baseline"]
    assert {layer["matrix"] for layer in result["layers"]} >= {"head", "lstm.weight_hh_l0"}
