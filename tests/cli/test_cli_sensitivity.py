"""`aimc sensitivity` as a user runs it, and its reports."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aimc_compiler.errors import DataError
from aimc_compiler.report.plot_sensitivity import plot_sensitivity
from aimc_compiler.report.sensitivity import effects_table, sensitivity_json, sensitivity_lines
from aimc_compiler.study import Sensitivity
from aimc_compiler.study.confidence import Estimate
from aimc_compiler.study.sensitivity_results import EffectSensitivity
from aimc_compiler.study.tolerance import Tolerance

MODEL = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).eval(), torch.zeros(1, 12)

def batches():
    torch.manual_seed(1)
    x = torch.randn(64, 12)
    return [(x, network()[0](x).argmax(1))]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with the network in a file."""
    (tmp_path / "net.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def aimc_command(aimc_command: Any) -> Any:
    """As everywhere, with the network compiled."""
    aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:batches")
    return aimc_command


def test_tables_figure_and_saved_result(aimc_command: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = aimc_command(
        *(
            "sensitivity",
            "net.aimc",
            "--data",
            "net.py:batches",
            "--chips",
            "2",
            "--effects",
            "output_noise,range_clip",
        ),
        *("--parts", "effects,layers,columns", "--plot", "sens.svg", "-o", "sens.json"),
    )
    assert (code, err) == (0, "")
    for expected in ("output noise", "0.04", "gain without", "gain if exempt", "random columns", "tolerated: as long"):
        assert expected in out
    for expected in ("loss at 20 %", "input range clipping: on or off", "64 samples", "wrote sens.svg"):
        assert expected in out
    assert (tmp_path / "sens.svg").exists()
    saved = json.loads((tmp_path / "sens.json").read_text())
    assert (saved["n_chips"], saved["seed"], saved["time_s"], saved["confidence"]) == (2, 0, 86_400.0, 0.95)
    assert [row["name"] for row in saved["effects"]] == ["output_noise", "range_clip"]


def test_json_and_sweeps(aimc_command: Any) -> None:
    command = ("sensitivity", "net.aimc", "--data", "net.py:batches", "--chips", "1", "--parts", "sweeps")
    found = json.loads(aimc_command(*command, "--limit", "20", "--time", "1h", "--json")[1])
    assert (found["n_samples"], found["time_s"], found["effects"], found["columns"]) == (20, 3600.0, [], None)
    assert {swept["name"] for swept in found["sweeps"]} >= {"time", "g_max", "all_noise", "ir_drop", "stuck_at_zero"}
    code, out, _ = aimc_command(*command, "--limit", "20")
    assert code == 0
    for expected in (
        "A* in % over time after programming",
        "10 years",
        "A* in % over input quantisation (bits)",
        "8 *",
    ):
        assert expected in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--time", "1h,1d"), "--time 1h,1d is 2 times"),
        (("--parts", "effects,rows"), "give some of effects, layers, columns, sweeps"),
        (("--effects", "drfit"), "did you mean 'drift'?"),
        (("--plot", "sens.txt"), "a figure's name ends in .svg, .png, .pdf"),
        (("-o", "absent/sens.json"), "there is no folder absent"),
    ],
)
def test_mistakes(aimc_command: Any, options: tuple[str, ...], message: str) -> None:
    code, out, err = aimc_command("sensitivity", "net.aimc", "--data", "net.py:batches", "--chips", "1", *options)
    assert (code, out) == (2, "")
    assert message in err


def result(effect: EffectSensitivity) -> Sensitivity:
    own = Estimate(mean=0.95, low=0.94, high=0.96)
    return Sensitivity(
        network="Net",
        chip="chip",
        entry="main",
        metric="accuracy",
        time_s=3600.0,
        n_chips=3,
        n_samples=100,
        seed=0,
        recalibration="always",
        precision="auto",
        confidence=0.9,
        float_metric=0.9,
        baseline=0.9,
        chance=0.1,
        a_star=own,
        mvm_error=0.15,
        target_error=0.2,
        threshold=0.94,
        asked_threshold=0.99,
        effects=(effect,),
        layers=(),
        layers_protected=(),
        columns=None,
        sweeps=(),
    )


EFFECT = EffectSensitivity(
    name="drift",
    title="conductance drift",
    effects=("drift",),
    kind="factor",
    figure=1.0,
    unit="factor",
    without=Estimate(mean=-0.0001, low=None, high=None),
    equal=None,
    tolerance=Tolerance(threshold=0.94, level=123.0, low=0.5, high=math.inf, measured=((1.0, 0.95), (200.0, 0.9))),
    notes=("its MVM error stays below",),
)


def cells(effect: EffectSensitivity) -> list[str]:
    return [str(next(iter(column.cells))) for column in effects_table(result(effect)).columns]


def test_cells_of_the_table() -> None:
    assert cells(EFFECT) == ["conductance drift", "1", "0.0", "-", "-", "120x [0.5, more]"]
    endless = replace(EFFECT.tolerance, level=math.inf)  # type: ignore[type-var]
    assert cells(replace(EFFECT, tolerance=endless))[-1] == "> 200x"
    assert cells(replace(EFFECT, kind="bits", figure=8, tolerance=endless))[1::4] == ["8 bits", "own bits needed"]


def test_lines_say_what_the_threshold_is_and_what_could_not_be_had() -> None:
    text = "\n".join(sensitivity_lines(result(EFFECT)))
    for expected in ("one point below the chip's own", "below 99 %", "the 90 % interval", "15.0 %, scaled to 20.0 %"):
        assert expected in text
    assert "conductance drift: its MVM error stays below" in text


def test_lines_name_a_baseline_of_its_own() -> None:
    text = "\n".join(sensitivity_lines(replace(result(EFFECT), baseline=0.95)))
    assert "0.9 in floating point, 0.95 of the baseline (A* 100 %), " in text
    assert "baseline" not in "\n".join(sensitivity_lines(result(EFFECT)))


def test_what_has_no_end_is_null_in_json() -> None:
    found = sensitivity_json(result(EFFECT))
    tolerance = found["effects"][0]["tolerance"]
    assert (tolerance["level"], tolerance["low"], tolerance["high"]) == (123.0, 0.5, None)
    assert tolerance["unbounded"] == ["high"]
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))


def test_there_must_be_something_to_draw(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(DataError, match="nothing to draw"):
        plot_sensitivity(replace(result(EFFECT), effects=()), tmp_path / "x.svg")
