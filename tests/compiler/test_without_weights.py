"""Networks on the meta device: mapped, timed and saved without weights, and not run."""

import json
import zipfile
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import aimc_compiler as aimc
from aimc_compiler.cli.app import app
from aimc_compiler.errors import ArtifactError, CaptureError, NotBuiltError
from aimc_compiler.program import schedule as schedule_module
from aimc_compiler.program.links import Links
from aimc_compiler.report import entries_table, find_timing, inspect_json
from aimc_compiler.zoo.llama import LLAMA_TINY, llama

SHAPE = replace(LLAMA_TINY, width=256, inner=512, heads=4, key_heads=2)
CHIP = aimc.load_chip("analog-fabric", overrides=("tile.rows=64", "tile.columns=64"))


def compiled_llama(layers: int, *, meta: bool = True) -> aimc.CompiledModel:
    shape = replace(SHAPE, layers=layers)
    with torch.device("meta" if meta else "cpu"):
        model, tokens = llama(shape), torch.zeros(1, 8, dtype=torch.long)
    return aimc.compile(model, CHIP, (tokens,))


def test_shapes_alone_give_the_same_program_and_timing() -> None:
    without, real = compiled_llama(2), compiled_llama(2, meta=False)
    assert without.program == real.program
    assert without.mapping == real.mapping
    assert without.timing == real.timing


def test_an_artifact_without_weights_is_small_and_complete(tmp_path: Path) -> None:
    compiled, real = compiled_llama(2), compiled_llama(2, meta=False)
    path, full = compiled.save(tmp_path / "meta.aimc"), real.save(tmp_path / "real.aimc")
    assert path.stat().st_size < full.stat().st_size / 50
    assert path.read_bytes() == compiled.save(tmp_path / "again.aimc").read_bytes()
    again = aimc.load(path)
    assert (again.mapping, again.program) == (compiled.mapping, compiled.program)
    assert again.timing == compiled.timing


def test_it_refuses_to_run(tmp_path: Path) -> None:
    compiled = aimc.load(compiled_llama(1).save(tmp_path / "meta.aimc"))
    tokens = torch.zeros(1, 8, dtype=torch.long)
    for attempt in (
        lambda: compiled.deploy(),
        lambda: compiled.calibrate([tokens]),
        lambda: compiled.float_outputs(tokens),
    ):
        with pytest.raises(CaptureError, match="on the meta device, as shapes without values"):
            attempt()


def test_a_missing_program_is_refused_where_weights_are(tmp_path: Path) -> None:
    model = nn.Linear(4, 2).eval()
    full = aimc.compile(model, CHIP, (torch.zeros(1, 4),)).save(tmp_path / "full.aimc")
    with zipfile.ZipFile(full) as archive, zipfile.ZipFile(tmp_path / "cut.aimc", "w") as cut:
        for name in archive.namelist():
            if name != "entries/main/program.txt":
                cut.writestr(name, archive.read(name))
    with pytest.raises(ArtifactError, match=r"lacks entries/main/program\.txt"):
        aimc.load(tmp_path / "cut.aimc")


def test_work_grows_as_the_network() -> None:
    """Each further layer adds as many tasks as the one before; only its transfers are as long as the mesh is wide."""
    two, four, six = (compiled_llama(layers) for layers in (2, 4, 6))
    tasks = [len(each.program.tasks) for each in (two, four, six)]
    assert tasks[1] - tasks[0] == pytest.approx(tasks[2] - tasks[1], rel=0.1)
    long = [task.uses for task in six.program.tasks if len(task.uses) > 16]
    assert long
    assert all(isinstance(uses, Links) for uses in long)


def test_what_cannot_be_timed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_module, "USE_LIMIT", 10)
    recurrent = aimc.compile(nn.LSTM(4, 4).eval(), CHIP, (torch.zeros(3, 1, 4),))
    with pytest.raises(
        NotBuiltError, match=r"timing of networks with loops is built for up to 50000000; .*groups_per_"
    ):
        recurrent.timing  # noqa: B018
    assert "networks with loops" in str(find_timing(recurrent))
    found = inspect_json(recurrent)
    assert "networks with loops" in found["timing"]["refused"]
    assert found["entries"]["main"]["timing"] == found["timing"]
    console = Console(width=200, file=StringIO())
    console.print(entries_table(recurrent))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not timed" in shown
    assert "networks with loops" in shown


def test_two_schedules_of_a_network_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event by event and phase by phase: equal but for how long samples wait."""
    single, phases = compiled_llama(2).timing, compiled_llama(2)
    monkeypatch.setattr(schedule_module, "MANY_EVENTS", 0)
    long = phases.timing
    assert (single.schedule, long.schedule) == ("events", "phases")
    assert (long.interval_ticks, long.busy_ticks, long.counts) == (
        single.interval_ticks,
        single.busy_ticks,
        single.counts,
    )
    assert long.energy_by_op == single.energy_by_op
    assert long.bounds["latency_s"].bound == single.bounds["latency_s"].bound
    assert long.latency_s == pytest.approx(single.latency_s, rel=0.1)
    assert json.loads(json.dumps(inspect_json(phases)["timing"]))["schedule"] == "phases"


def test_the_command_line_compiles_and_inspects_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n    with torch.device('meta'):\n"
        "        return nn.Linear(8, 4).eval(), (torch.zeros(1, 8),)\n"
    )
    out = tmp_path / "net.aimc"
    for words in (["compile", f"{tmp_path / 'net.py'}:build", "-o", str(out)], ["inspect", str(out)]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert "latency" in result.output
