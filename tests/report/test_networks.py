"""The table of the zoo."""

from pathlib import Path

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.report import networks
from aimc_compiler.report.networks import measure_network, network_row, row_text


def test_shares_of_a_network_by_hand() -> None:
    """24 of 34 parameters on tiles; 5 windows of 24 products analog, 5 x 5 x 4 x 2 products of activations."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = nn.Embedding(1, 4), nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.softmax(x @ x.transpose(1, 2), -1) @ x)

    model = Mixed().eval()
    row = measure_network("mixed", 34, aimc.compile(model, "analog-fabric", (torch.randn(1, 5, 4),)))
    assert row.weights_analog == pytest.approx(24 / 34)
    assert row.products_analog == pytest.approx(120 / (120 + 100 + 100))
    assert (row.tiles, row.mvms) == (1, 5)
    assert row.utilization == pytest.approx(24 / 512**2)


def test_a_row_of_the_zoo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    networks.main([str(tmp_path / "page.md"), "fashion_resnet"])
    line = capsys.readouterr().out.strip()
    assert line == row_text(network_row("fashion_resnet"))
    assert line.startswith("| `fashion_resnet` | 77,754 |")
    assert not (tmp_path / "page.md").exists()


def test_the_page_says_why_a_network_has_no_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Foreign(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    class Entry:
        parameters, batch_dim = 1, 0

        def __call__(self) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
            return Foreign().eval(), (torch.zeros(1, 2),)

    monkeypatch.setattr(networks, "NETWORKS", {"foreign": Entry()})
    networks.main([str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert "| `foreign` | 1 | aten.special_bessel_j0.default at" in page
