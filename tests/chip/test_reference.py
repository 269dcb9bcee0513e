"""docs/chip-spec.md: its tables are current, and what it shows works as shown."""

import re
from pathlib import Path
from typing import Any

import pytest

from aimc_compiler.chip import EFFECTS, load_chip, read_spec
from aimc_compiler.chip.reference import generated_part, key_table, refresh
from aimc_compiler.chip.yaml_tree import read_tree, write_tree
from aimc_compiler.errors import SpecError

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "chip-spec.md").read_text(encoding="utf-8")
FABRIC = (ROOT / "chipspecs" / "analog-fabric.yaml").read_text(encoding="utf-8")


def test_the_tables_are_current() -> None:
    assert refresh(DOCUMENT) == DOCUMENT, "run: python -m aimc_compiler.chip.reference docs/chip-spec.md"


def test_every_key_has_a_meaning() -> None:
    lines = key_table().splitlines()[2:]
    assert len(lines) > 80
    assert [line for line in lines if "| None |" in line or line.count(" | ") != 3] == []
    assert any(line.startswith("| `tile.mvm.modes.<name>.time` | quantity, as `130 ns` | required |") for line in lines)


def test_every_effect_is_listed() -> None:
    assert [name for name in EFFECTS if f"\n| {name} |" not in generated_part()] == []


def test_a_document_without_marks() -> None:
    with pytest.raises(SpecError, match="the document lacks the marks"):
        refresh("no marks")


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def test_the_chip_of_ten_lines_works() -> None:
    snippet = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert snippet is not None
    text = write_tree(merge(read_tree(FABRIC, "base").data, read_tree(snippet[1], "docs").data))
    spec = read_spec(text)
    assert spec.name == "my-chip"
    assert spec.tile is not None
    assert (spec.tile.count, spec.network.shape) == (16, (4, 4))


def test_the_errors_shown_are_the_errors_given() -> None:
    bad = FABRIC.replace("  rows: 512", "  rowz: 512").replace("time: 40 ns", "time: 40", 1)
    with pytest.raises(SpecError) as caught:
        read_spec(bad, name="my-chip.yaml", overrides=["tile.adc.bits=99"])
    given = str(caught.value).splitlines()
    shown = re.search(r"```\n(my-chip.*?)\n```", DOCUMENT, re.DOTALL)
    assert shown is not None
    assert [line for line in shown[1].splitlines() if line not in given] == []


def test_the_overrides_shown_work() -> None:
    spec = load_chip("hermes", re.findall(r"--set ([a-z]\S+=\S+)", DOCUMENT.partition("## Errors")[0]))
    assert spec.tile is not None
    assert (spec.tile.mvm.mode, spec.tile.count) == ("four_phase", "auto")
