"""Errors of whole tiles against the standard model's (Rasch et al., Nat. Commun. 14, 5282 (2023))."""

import pytest
import torch
from analog_chips import STANDARD_EFFECTS, effects, pieces, standard_tile, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles

LINEAR = Contraction(kind="linear")


def scaled_gaussian(rows: int) -> torch.Tensor:
    """(1, 512, rows) normal weights of deviation 0.246, clipped to 1, each column scaled to a maximum of 1."""
    weight = (torch.randn(1, 512, rows, generator=torch.Generator().manual_seed(2)) * 0.246).clamp(-1, 1)
    return weight / weight.abs().amax(dim=2, keepdim=True)


@pytest.mark.parametrize(("time_s", "error"), [(1.0, 0.132), (3600.0, 0.135), (86_400.0, 0.151), (31_536_000.0, 0.191)])
def test_mvm_error_of_a_full_tile(time_s: float, error: float) -> None:
    """``mean ||y - y_ideal|| / ||y_ideal||`` of 512 x 512, inputs uniform in (-1, 1), with drift compensation."""
    weight = scaled_gaussian(512)
    x = torch.rand(256, 512, generator=torch.Generator().manual_seed(3)) * 2 - 1
    on_tiles = MatrixOnTiles(weight, LINEAR, pieces(1, (512,), (512,)), standard_tile(), STANDARD_EFFECTS)
    y = on_tiles.forward(x, torch.ones(1, 1), time_s)
    ideal = x @ weight[0].T
    found = ((y - ideal).norm(dim=1) / ideal.norm(dim=1)).mean()
    assert float(found) == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize(("rows", "low", "high"), [(512, 0.0055, 0.0059), (48, 0.0, 0.0001)])
def test_ir_drop_of_half_normal_inputs(rows: int, low: float, high: float) -> None:
    """About 0.57 % of the outputs of 512 rows, less than 0.01 % of 48; each vector is scaled to a maximum of 1."""
    weight = scaled_gaussian(rows)
    x = torch.randn(256, rows, generator=torch.Generator().manual_seed(4)).clamp(min=0)
    x = x / x.amax(dim=1, keepdim=True)
    on_tiles = MatrixOnTiles(weight, LINEAR, pieces(1, (rows,), (512,)), tile(), effects({"ir_drop": 1.0}))
    y, ideal = on_tiles.forward(x, torch.ones(1, 1)), x @ weight[0].T
    assert low <= float(((y - ideal).norm(dim=1) / ideal.norm(dim=1)).mean()) <= high
    assert not torch.equal(y, ideal)
