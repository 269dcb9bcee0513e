"""`aimc sweep`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
from sweep_folders import write_definition, write_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with a network in a file."""
    write_module(tmp_path)
    return tmp_path


@pytest.fixture
def columns() -> int:
    return 110


def test_a_sweep_from_dry_run_to_figure(aimc_command: Any, tmp_path: Path) -> None:
    write_definition(tmp_path, metric="accuracy", grid={"tile.adc.bits": [6, 8], "recalibration": ["always", "never"]})
    code, out, _ = aimc_command("sweep", "sweep.yaml", "--dry-run")
    assert code == 0
    assert "tile.adc.bits=8 recalibration=never" in out
    assert "0 of 8 cells are done; each at 1 s, 1 day" in out
    assert not (tmp_path / "sweep.sweep").exists()
    code, out, err = aimc_command("sweep", "sweep.yaml", "--plot", "figure.svg")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["tile.adc.bits", "recalibration", "1", "s", "1", "day", "tiles", "latency", "energy"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["6", "always"],
        ["6", "never"],
        ["8", "always"],
        ["8", "never"],
    ]
    assert lines[-1] == "wrote sweep.sweep/results.json, sweep.sweep/results.csv, figure.svg"
    assert "8 of 8 cells, 0 s to go" in err
    assert "<svg" in (tmp_path / "figure.svg").read_text()
    code, out, _ = aimc_command("sweep", "sweep.yaml", "--dry-run", "--json")
    state = json.loads(out)
    assert (len(state["done"]), state["done"], state["damaged"]) == (8, state["cells"], {})
    code, out, err = aimc_command("sweep", "sweep.yaml", "--json")
    assert json.loads(out) == json.loads((tmp_path / "sweep.sweep" / "results.json").read_text())
    assert err == ""


def test_figures_that_cannot_be_drawn_are_refused_before_work(aimc_command: Any, tmp_path: Path) -> None:
    write_definition(tmp_path)
    code, _, err = aimc_command("sweep", "sweep.yaml", "--plot", "figure.txt")
    assert (code, err) == (2, "aimc: --plot figure.txt: a figure's name ends in .svg, .png, .pdf\n")
    grid = {"tile.adc.bits": [6, 8], "tile.dac.bits": list(range(2, 9)), "nonidealities.mvm.sigma_out": [0.0, 0.1]}
    write_definition(tmp_path, grid=grid)
    code, _, err = aimc_command("sweep", "sweep.yaml", "--plot", "figure.svg")
    assert code == 2
    assert "14 lines are too many for a figure" in err
    assert not (tmp_path / "sweep.sweep").exists()


def test_faults_of_a_definition(aimc_command: Any, tmp_path: Path) -> None:
    write_definition(tmp_path, chips=0)
    code, _, err = aimc_command("sweep", "sweep.yaml")
    assert code == 2
    assert err.startswith("aimc: sweep.yaml:")
    assert "chips: is 0; write a whole number, 1 or more" in err
    write_definition(tmp_path, data="net.py:absent", grid=None)
    code, _, err = aimc_command("sweep", "sweep.yaml")
    assert code == 2
    assert "net.py has no function 'absent'" in err


def test_an_interruption_keeps_what_is_done(aimc_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aimc_compiler.study.sweep import runners

    write_definition(tmp_path, grid=None, chips=3)
    answer, count = runners.answer, [0]

    def interrupted(fields: dict[str, Any]) -> dict[str, Any]:
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return answer(fields)

    monkeypatch.setattr(runners, "answer", interrupted)
    code, _, err = aimc_command("sweep", "sweep.yaml")
    assert code == 130
    assert err.endswith("interrupted: finished cells are kept, and the same command goes on from them\n")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, _, err = aimc_command("sweep", "sweep.yaml")
    assert code == 0
    assert "3 of 3 cells" in err
