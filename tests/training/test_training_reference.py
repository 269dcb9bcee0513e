"""docs/training.md: its table is current, its sources are named, and its code runs."""

import dataclasses
import re
from pathlib import Path

import pytest

from aimc_compiler.errors import RecipeError
from aimc_compiler.training import Recipe
from aimc_compiler.training.reference import MEANINGS, recipe_table, refresh

DOCUMENT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_table_is_current() -> None:
    assert refresh(DOCUMENT) == DOCUMENT, "run: python -m aimc_compiler.training.reference docs/training.md"


def test_every_setting_and_only_settings_are_described() -> None:
    assert list(MEANINGS) == [field.name for field in dataclasses.fields(Recipe)]
    assert "| `clip` | `none`, `column`, `k-sigma`, `learned` | `k-sigma` |" in recipe_table()
    assert "| `drift_s` | two numbers, `evaluation`, none | `evaluation` |" in recipe_table()
    assert all(f"**{source}**" in DOCUMENT for _, source in MEANINGS.values() if source)


def test_marks_are_needed() -> None:
    with pytest.raises(RecipeError, match="lacks the marks"):
        refresh("no marks")


def test_the_code_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT, re.S):
        exec(compile(block, "training.md", "exec"), scope)
    assert (tmp_path / "run" / "weights.safetensors").exists()
