"""The study of the IR drop: its document says what its script measures."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ir_drop_study", ROOT / "examples" / "ir_drop_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_has_the_first_lines_of_the_first_table(study: ModuleType) -> None:
    torch.manual_seed(0)
    document = (ROOT / "docs" / "ir-drop.md").read_text()
    for rows in (32, 64, 128):
        x, w = study.INPUTS["uniform"](rows), study.weights(rows)
        cells = [study.pair_text(x, w, ohm, 0) for ohm in (0.35, 1, 3.5, 10, 35)]
        assert f"| {rows} | " + " | ".join(cells) + " |\n" in document


def test_a_wire_a_polarity_loses_what_one_wire_for_both_does(study: ModuleType) -> None:
    """To first order: A+^2 - A-^2 = (A+ + A-)(A+ - A-), summed over the places of cells too."""
    torch.manual_seed(1)
    x, w = study.INPUTS["uniform"](100), study.weights(100)
    w = w * torch.where(torch.rand_like(w) < 0.5, -1.0, 1.0)
    one = study.exact_loss(x, w, 0.001)
    two = study.exact_loss(x, w.clamp(min=0), 0.001) - study.exact_loss(x, (-w).clamp(min=0), 0.001)
    assert study.slope(two, one) == pytest.approx(1, abs=0.02)


def test_what_the_document_says_of_the_divided_form(study: ModuleType) -> None:
    """On 3.5 ohm, half a tile that begins in its middle: the published term a fifth too large, the quotient 3 %."""
    torch.manual_seed(2)
    x, w = study.INPUTS["uniform"](256), study.weights(256)
    exact = study.exact_loss(x, w, 3.5, 256)
    assert study.slope(study.closed_loss(x, w, 3.5, 256), exact) == pytest.approx(1.2, abs=0.03)
    assert float(study.divided_text(x, w, 3.5, 256).strip("()")) == pytest.approx(1.033, abs=0.01)


def test_the_figure_is_drawn(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(study, "COLUMNS", 2)
    monkeypatch.setattr(study, "VECTORS", 1)
    monkeypatch.setattr(study, "LEVELS", 3)
    study.draw(tmp_path / "figure.svg")
    assert "closed form / exact" in (tmp_path / "figure.svg").read_text()
