"""Drift that differs from tile to tile: its spread, and that it belongs to the tile."""

import math

import numpy as np
import pytest
import torch
from analog_chips import effects, pieces, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.state import tile_drift_factor

DEVICE = {"model": "custom", "custom": {"programming": [], "drift_mean": [0.05]}}


def exponents(spread: float, tiles: int) -> torch.Tensor:
    """Of each tile, from its weights after a day; every device has 0.05."""
    weight = torch.ones(1, 2 * tiles, 3)
    nonidealities = effects(device={"drift": 1, "drift_tile_spread": spread})
    on_tiles = MatrixOnTiles(
        weight, Contraction(kind="linear"), pieces(1, (3,), (2,) * tiles), tile(device=DEVICE), nonidealities
    )
    return -torch.log(on_tiles.state(86_400.0).weights[0]) / math.log(86_420 / 20)


def test_all_devices_of_a_tile_drift_alike() -> None:
    found = exponents(0.2, 40)
    by_tile = found.reshape(40, 6)
    assert torch.allclose(by_tile, by_tile[:, :1].expand(40, 6), atol=1e-6)
    expected = [0.05 * tile_drift_factor(0.2, 0, 0, index) for index in range(40)]
    assert by_tile[:, 0].tolist() == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) == 40


def test_without_spread_all_tiles_drift_alike() -> None:
    assert torch.allclose(exponents(0.0, 5), torch.tensor(0.05), atol=1e-6)


def test_the_spread_is_that_of_the_spec() -> None:
    factors = np.array([[tile_drift_factor(0.2, 0, chip, index) for index in range(320)] for chip in range(320)])
    assert factors.mean() == pytest.approx(1, abs=0.002)
    assert factors.std() == pytest.approx(0.2, rel=0.01)
    # Neither tiles nor chips know of each other.
    for first, second in ((factors[1:], factors[:-1]), (factors[:, 1:], factors[:, :-1])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / math.sqrt(first.size)
    assert min(tile_drift_factor(2.0, 1, 0, index) for index in range(200)) == 0
