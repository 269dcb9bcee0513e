"""What people read: tables and the map of the chip."""

import io

import pytest
import torch
from rich.console import Console, RenderableType
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.report import (
    chip_map,
    energy_note,
    energy_table,
    layers_table,
    resource_table,
    summary_table,
    timing_table,
)
from aimc_compiler.report.chip_map import fill_text, letter
from aimc_compiler.report.layers import counted, index_ranges, percent


def text(part: RenderableType, width: int = 110) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(part)
    return stream.getvalue()


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(600, 30), nn.ReLU(), nn.Linear(30, 3)).eval()
    return aimc.compile(model, "hermes", (torch.zeros(1, 600),), rules=[("2", {"analog": False})])


def test_layers(compiled: aimc.CompiledModel) -> None:
    lines = text(layers_table(compiled)).splitlines()
    assert lines[1].split()[:9] == ["0", "linear", "600", "x", "30", "1", "3", "0-2", "9.2"]
    assert "analog: default" in lines[1]
    assert "digital: rule '2'" in lines[2]
    assert lines[2].split()[5:9] == ["1", "-", "-", "-"]


def test_chip_map_shows_every_tile_of_a_chip_of_fixed_size(compiled: aimc.CompiledModel) -> None:
    drawn = text(chip_map(compiled))
    assert drawn.count("·") == 61
    assert "0: A" in drawn
    assert "2: A" in drawn
    assert "9 %" in drawn
    narrow = text(chip_map(compiled, width=40), width=40)
    assert len(narrow.splitlines()[0]) == 8


def test_chip_map_of_a_large_mesh_draws_what_is_used(compiled: aimc.CompiledModel) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(600, 30)).eval()
    for shape, count, drawn_part in (
        ("null", 1_000_000_000, "1 x 3 of 31,622 x 31,624"),
        ("[100, 2]", 200, "2 x 2 of 100 x 2"),
    ):
        chip = aimc.load_chip("hermes", overrides=(f"network.shape={shape}", f"tile.count={count}"))
        drawn = text(chip_map(aimc.compile(model, chip, (torch.zeros(1, 600),)), width=80), width=80)
        assert f"drawn: the first {drawn_part} sites; the others are empty" in drawn
        assert len(drawn.splitlines()) <= 6
    chip = aimc.load_chip("hermes", overrides=("network.shape=[1, 64]",))
    large = nn.Sequential(nn.Linear(256 * 50, 10)).eval()
    drawn = text(chip_map(aimc.compile(large, chip, (torch.zeros(1, 256 * 50),)), width=40), width=40)
    assert "drawn: the first 1 x 50 of 1 x 64 sites" in drawn
    assert "a row of the mesh takes 2 lines here" in drawn


def test_summary_hangs_on_its_labels(compiled: aimc.CompiledModel) -> None:
    lines = text(summary_table(compiled, ("compiled in", "1 s")), width=50).splitlines()
    labels = {line[:14].strip() for line in lines}
    assert labels == {"network", "chip", "placed on", "kept digital", "input ranges", "compiled in", ""}
    assert "kept digital  2 (rule '2' says digital)" in text(summary_table(compiled))


def test_coarse_ticks_are_reported() -> None:
    model = nn.Sequential(nn.Linear(6, 3)).eval()
    tables = {}
    for tick in ("1 ns", "1 s"):
        chip = aimc.load_chip("analog-fabric", overrides=(f"clock.tick={tick}",))
        tables[tick] = text(timing_table(aimc.compile(model, chip, (torch.zeros(1, 6),)).timing))
    assert "rounded up" not in tables["1 ns"]
    assert "times are rounded up to ticks of 1 s: that adds " in tables["1 s"]
    assert " 0 samples a second" not in tables["1 s"]


def test_summary_says_that_ranges_are_missing(compiled: aimc.CompiledModel) -> None:
    joined = text(summary_table(compiled))
    assert "2 matrix operations, 1 of them analog" in joined
    assert "none yet: running needs them (aimc calibrate FILE --data DATA)" in joined


def test_energy_sums(compiled: aimc.CompiledModel) -> None:
    timing = compiled.timing
    assert sum(timing.energy_by_component.values()) == pytest.approx(timing.energy_j)
    assert sum(timing.energy_by_op.values()) == pytest.approx(timing.energy_j)
    assert "100.0 %" in text(energy_table(timing)).splitlines()[-1]
    assert "energy_scaling=used" in energy_note(compiled)
    assert "busiest" in text(resource_table(timing))


def test_small_forms() -> None:
    assert [percent(share) for share in (0.0, 0.0004, 0.0005, 1.0)] == ["0.0 %", "<0.1 %", "0.1 %", "100.0 %"]
    assert [counted(count, "tile") for count in (0, 1, 1200)] == ["0 tiles", "1 tile", "1,200 tiles"]
    assert index_ranges((0, 1, 2, 7, 9, 10)) == "0-2, 7, 9-10"
    assert [letter(number) for number in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]
    assert [fill_text(fill) for fill in (0.0, 0.001, 0.5, 1.0)] == ["0 %", "<1 %", "50 %", "100 %"]
