"""Programming, ageing and compensation in one fused pass: the values of ``analog/state.py``, to float32 rounding."""

from typing import Any

import pytest
import torch
from analog_chips import STANDARD, effects, pieces, standard_tile
from fast_cases import UNITS

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast import Ageing, age_pieces, ages_fast
from aimc_compiler.analog.state import PieceDevices
from aimc_compiler.mapping import Piece

pytestmark = pytest.mark.skipif(UNITS is not None, reason=str(UNITS))

ALL = {"programming_noise": 1, "drift": 1, "accumulated_read_noise": 1}
LINEAR = Contraction(kind="linear")
HOUR, DAY, YEAR = 3600.0, 86_400.0, 31_536_000.0


def matrix(precision: str, device: dict[str, Any], kind: str, model: dict[str, Any], weight: torch.Tensor) -> Any:
    held = pieces(1, (50, 33), (20, 17), tile_row=7)
    spec = effects(STANDARD, device, kind)
    return MatrixOnTiles(weight, LINEAR, held, standard_tile(device=model), spec, seed=3, precision=precision)


@pytest.mark.parametrize(("time_s", "read_s"), [(0.0, 0.0), (HOUR, HOUR), (YEAR, DAY)])
@pytest.mark.parametrize("kind", ["off", "tile", "column", "exact"])
@pytest.mark.parametrize(
    "model",
    [{}, {"model": "pcm_hermes_two", "g_max": "20.7 uS"}, {"model": "pcm_hermes_one", "g_max": "10.35 uS"}],
)
def test_same_values(time_s: float, read_s: float, kind: str, model: dict[str, Any]) -> None:
    """Rows of 50 and 33 begin anywhere in a block of the generator; weights with zeros and ones."""
    weight = torch.randn(1, 37, 83, generator=torch.Generator().manual_seed(1)) * 0.3
    weight[0, ::3, ::4] = 0
    exact, fast = (matrix(precision, ALL, kind, model, weight) for precision in ("exact", "fast"))
    expected, found = exact.state(time_s, read_s), fast.state(time_s, read_s)
    assert fast.choice.precision == "fast"
    assert not torch.equal(expected.weights, exact.target)
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-5, atol=1e-6)
    # A reading is a mean of codes: a weight that differs in its last bit can fall on the next code.
    torch.testing.assert_close(found.alpha, expected.alpha, rtol=1e-3 if kind == "column" else 1e-4, atol=0)


@pytest.mark.parametrize("effect", ["programming_noise", "drift", "accumulated_read_noise"])
@pytest.mark.parametrize("factor", [1, 2.5])
def test_each_effect_alone_and_scaled(effect: str, factor: float) -> None:
    weight = torch.randn(1, 37, 83, generator=torch.Generator().manual_seed(2)) * 0.3
    exact, fast = (matrix(precision, {effect: factor}, "tile", {}, weight) for precision in ("exact", "fast"))
    torch.testing.assert_close(fast.state(DAY).weights, exact.state(DAY).weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast.state(DAY).alpha, exact.state(DAY).alpha, rtol=1e-4, atol=0)


def test_many_weights_agree() -> None:
    """A quarter of a million weights, ten states: to 1e-5 of g_max each."""
    weight = torch.randn(1, 512, 512, generator=torch.Generator().manual_seed(3))
    held = pieces(1, (512,), (512,))
    spec = standard_tile(), effects(STANDARD, ALL, "tile")
    exact = MatrixOnTiles(weight, LINEAR, held, *spec)
    fast = MatrixOnTiles(weight, LINEAR, held, *spec, precision="fast")
    for time_s in (0.0, 1.0, HOUR, YEAR):
        expected, found = exact.state(time_s), fast.state(time_s)
        assert float((found.weights - expected.weights).abs().max()) < 1e-5
        torch.testing.assert_close(found.alpha, expected.alpha, rtol=1e-5, atol=0)


def test_bytes_do_not_depend_on_threads() -> None:
    weight = torch.randn(1, 37, 83, generator=torch.Generator().manual_seed(4))
    before, states = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            states.append(matrix("fast", ALL, "column", {}, weight).state(HOUR))
    finally:
        torch.set_num_threads(before)
    for state in states[1:]:
        assert torch.equal(state.weights, states[0].weights)
        assert torch.equal(state.alpha, states[0].alpha)


def devices_of(on_tiles: MatrixOnTiles, piece: Piece) -> PieceDevices:
    columns = slice(piece.first_column, piece.first_column + piece.columns)
    rows = slice(piece.first_row, piece.first_row + piece.rows)
    return on_tiles._cells._devices(piece, on_tiles.target[piece.group, columns, rows], 0)


def test_other_devices_are_left_to_exact() -> None:
    weight = torch.randn(1, 37, 83)
    on_tiles = matrix("fast", {}, "tile", {}, weight)
    (devices, *_) = [devices_of(on_tiles, piece) for piece in on_tiles.blocks[0].pieces]
    assert not ages_fast(devices)
    assert torch.equal(on_tiles.state(HOUR).weights, on_tiles.target)
    aged = matrix("fast", ALL, "tile", {}, weight.double().float())
    held = [devices_of(aged, piece) for piece in aged.blocks[0].pieces]
    assert all(map(ages_fast, held))
    weights = torch.zeros(37, 60)
    asked = [
        Ageing(devices=each, tile_row=7, weights=part, reads=False, settings=aged.settings)
        for each, part in zip(held, (weights[:20, 3:53], weights[20:, 3:53]), strict=True)
    ]
    assert age_pieces(asked, "off", HOUR, HOUR) == [None, None]
    assert torch.equal(weights[:, 3:53], aged.state(HOUR).weights[0, :, :50])
    assert not weights[:, :3].any()
    assert not weights[:, 53:].any()


def test_devices_that_are_verified_are_left_to_exact() -> None:
    """The fused pass writes once: what is written again is aged as in ``exact``, with the same values."""
    rule = {"tolerance": 0.01, "max_pulses": 5, "pulse_time": "1 us", "pulse_energy": "10 pJ"}
    weight = torch.randn(1, 37, 83, generator=torch.Generator().manual_seed(4)) * 0.3
    verified = ALL | {"write_verify": rule}
    exact, fast = (matrix(precision, verified, "tile", {}, weight) for precision in ("exact", "fast"))
    assert fast.choice.precision == "fast"
    assert not any(ages_fast(devices_of(fast, piece)) for piece in fast.blocks[0].pieces)
    assert torch.equal(fast.state(DAY).weights, exact.state(DAY).weights)
    assert torch.equal(fast.state(DAY).alpha, exact.state(DAY).alpha)
    assert not torch.equal(fast.state(DAY).weights, matrix("exact", ALL, "tile", {}, weight).state(DAY).weights)
