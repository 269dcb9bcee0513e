"""Chips as people read them."""

import json
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from aimc_compiler.analog.settings import require_built
from aimc_compiler.chip import ChipSpec, builtin_names, figures, load_chip, override
from aimc_compiler.errors import NotBuiltError
from aimc_compiler.report.chips import chip_json, chip_sheet, chips_table, runs, tops_peak

SPECS = [load_chip(name) for name in builtin_names()]


def rendered(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_table_fits_80_columns() -> None:
    text = rendered(chips_table(SPECS), width=80)
    assert "…" not in text
    rows = {line.split()[0]: line for line in text.splitlines()[1:7]}
    shown = " ".join(rows["hermes"].split())
    assert shown == "hermes 64 256x256 pcm_hermes_two 133 ns 13.4 nJ 63.1 9.78 all"
    assert rows["isaac"].split()[-1] == "all"
    assert rows["analog-fabric"].split()[-3:] == ["-", "100", "all"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_sheet_shows_every_figure_and_its_origin(spec: ChipSpec) -> None:
    text = rendered(chip_sheet(spec), width=160)
    for figure in figures(spec):
        label = figure.path.partition(".")[2]
        lines = [line.split() for line in text.splitlines() if line.split()[:1] == [label]]
        assert any(figure.text.split()[0] in line and figure.provenance.kind in line for line in lines), figure  # type: ignore[union-attr]
    for source in spec.sources:
        assert f"{source}  " in text
    assert "…" not in rendered(chip_sheet(spec), width=80)


def test_the_sheet_keeps_brackets() -> None:
    text = rendered(chip_sheet(load_chip("hermes")))
    assert "[8, 8]" in text
    assert "[scale, bias," in text


def test_a_figure_without_provenance_is_marked() -> None:
    bare = load_chip("hermes").model_copy(update={"provenance": {}})
    assert "no provenance" in rendered(chip_sheet(bare))
    assert chip_json(bare)["figures"][0]["kind"] is None


def test_what_runs_is_what_the_analog_part_says() -> None:
    assert {runs(spec) for spec in SPECS} == {"numerics, timing"}
    refused = override(load_chip("analog-fabric"), {"tile.dac.input_mode": "amplitude"})
    assert runs(refused) == "timing only"
    assert refused.tile is not None
    with pytest.raises(NotBuiltError):
        require_built(refused.tile, refused.nonidealities)
    assert "cannot be run yet" in rendered(chip_sheet(refused))
    assert next(line for line in rendered(chips_table([refused])).splitlines()[1:]).split()[-1] == "timing"


def test_peaks() -> None:
    assert tops_peak(load_chip("analog-fabric")) is None
    assert tops_peak(override(load_chip("analog-fabric"), {"tile.count": 10})) == pytest.approx(131.072)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_json(spec: ChipSpec) -> None:
    data = json.loads(json.dumps(chip_json(spec)))
    assert data["name"] == spec.name
    assert len(data["figures"]) == len(figures(spec))
    assert all(figure["kind"] in ("published", "derived", "assumed") for figure in data["figures"])
    assert data["spec"]["tile"]["rows"] == spec.tile_types["tile"].rows
