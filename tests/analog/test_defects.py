"""Devices, rows, columns and tiles that are broken: how many, which, and that they stay so."""

from typing import Any

import pytest
import torch
from analog_chips import effects, pieces, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.chip import load_chip
from aimc_compiler.errors import SpecError

ROWS = COLUMNS = 400


def on_tile(weight: float, chip: int = 0, device: dict[str, Any] | None = None, **defects: Any) -> MatrixOnTiles:
    nonidealities = effects(device=device, defects=defects)
    weights = torch.full((1, COLUMNS, ROWS), weight)
    weights[0, :, 0] = 1.0
    made = pieces(1, (ROWS,), (COLUMNS,))
    return MatrixOnTiles(weights, Contraction(kind="linear"), made, tile(ROWS, COLUMNS), nonidealities, chip=chip)


def state(matrix: MatrixOnTiles, time_s: float = 0.0) -> torch.Tensor:
    return matrix.state(time_s).weights[0, :, 1:]


def share(mask: torch.Tensor) -> float:
    return float(mask.double().mean())


def test_shares_of_stuck_devices_are_those_of_the_spec() -> None:
    """160 000 weights of 0.5; their negative devices are at 0, and stuck ones there show as well."""
    w = state(on_tile(0.5, stuck_at_zero=0.05, stuck_at_g_max=0.02))
    expected = {0.5: 0.93 * 0.98, 0.0: 0.05 * 0.98, 1.0: 0.02 * 0.98, -0.5: 0.93 * 0.02, -1.0: 0.05 * 0.02}
    expected[0.0] += 0.02 * 0.02
    for value, part in expected.items():
        assert share(w == value) == pytest.approx(part, abs=4 * (part / w.numel()) ** 0.5)


def test_devices_stuck_anywhere_are_spread_evenly() -> None:
    w = state(on_tile(1.0, stuck_random=1.0))
    assert float(w.mean()) == pytest.approx(0, abs=4 * (1 / 6 / w.numel()) ** 0.5)
    assert float(w.var()) == pytest.approx(1 / 6, rel=0.01)  # of the difference of two uniform numbers


def test_defects_stay_and_belong_to_the_chip() -> None:
    noisy = {"programming_noise": 1, "drift": 1, "accumulated_read_noise": 1}
    first = on_tile(0.5, stuck_at_g_max=0.3, device=noisy)
    plus_stuck = state(on_tile(0.5, stuck_at_g_max=0.3)) == 1.0
    for time_s in (0.0, 86_400.0):
        aged = state(first, time_s)[plus_stuck]
        assert float((aged > 0.95).double().mean()) > 0.75  # the negative device stays near 0
    other = state(on_tile(0.5, chip=1, stuck_at_g_max=0.3)) == 1.0
    assert share(other & plus_stuck) == pytest.approx(share(plus_stuck) ** 2, rel=0.05)


def test_defects_belong_to_the_place_not_to_the_network() -> None:
    kept = {}
    for name in ("left", "right"):
        made = pieces(1, (ROWS,), (COLUMNS,), matrix=name)
        weights = torch.full((1, COLUMNS, ROWS), 1.0)
        nonidealities = effects(defects={"stuck_at_zero": 0.1})
        matrix = MatrixOnTiles(weights, Contraction(kind="linear"), made, tile(ROWS, COLUMNS), nonidealities)
        kept[name] = matrix.state(0.0).weights
    assert torch.equal(kept["left"], kept["right"])


def test_dead_lines() -> None:
    w = state(on_tile(0.5, dead_rows=0.1, dead_columns=0.2))
    rows, columns = (w == 0).all(dim=0), (w == 0).all(dim=1)
    assert share(rows) == pytest.approx(0.1, abs=0.06)
    assert share(columns) == pytest.approx(0.2, abs=0.08)
    assert bool((w[~columns][:, ~rows] == 0.5).all())


def test_dead_tiles() -> None:
    dead = [not bool(state(on_tile(0.5, chip=chip, dead_tiles=0.3)).any()) for chip in range(60)]
    assert 8 <= sum(dead) <= 30


def test_known_defects() -> None:
    known = [
        {"tile": 0, "row": 5, "column": 7, "polarity": "plus", "value": 0.25},
        {"tile": 0, "row": 6, "column": 7, "polarity": "minus", "value": 1.0},
        {"tile": 1, "row": 8, "column": 7, "polarity": "plus", "value": 0.0},
    ]
    w = on_tile(0.5, map=known).state(0.0).weights[0]
    expected = on_tile(0.5).state(0.0).weights[0].clone()
    expected[7, 5], expected[7, 6] = 0.25, -0.5
    assert torch.equal(w, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{stuck_at_zero: 0.6, stuck_random: 0.6}", "sum to 1.2 of all devices; at most 1"),
        (
            "{map: [{tile: 0, row: 512, column: 0, polarity: plus, value: 0}]}",
            r"defects\.map\[0\]\.row: is 512, of 512 that count from 0; name one that is there",
        ),
    ],
)
def test_defects_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_chip("analog-fabric", [f"nonidealities.defects={text}"])
