"""The LSTM kernel: the same gates a step at a time, and the same bytes however it is cut."""

import pytest
import torch
from analog_chips import STANDARD_EFFECTS, pieces, standard_tile
from fast_cases import UNITS

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast.lstm import Gates, run_lstm

pytestmark = pytest.mark.skipif(UNITS is not None, reason=str(UNITS))

UNITS_COUNT, FEATURES, STEPS, SAMPLES, HOUR = 24, 30, 7, 5, 3600.0
ONES = torch.ones(1, 1)


def tiles(features: int, name: str, bias: bool) -> MatrixOnTiles:
    generator = torch.Generator().manual_seed(features)
    weight = torch.randn(1, 4 * UNITS_COUNT, features, generator=generator) / 4
    held = pieces(1, (features,), (50, 46), matrix=name)
    return MatrixOnTiles(
        weight, Contraction(kind="linear"), held, standard_tile(), STANDARD_EFFECTS, precision="fast",
        bias=torch.randn(4 * UNITS_COUNT, generator=generator) if bias else None,
    )  # fmt: skip


def gates(held: MatrixOnTiles, first_call: int = 0) -> Gates:
    parts = held.fast_parts(ONES, HOUR)
    assert parts is not None
    return Gates(parts=parts, settings=held.settings, first_call=first_call)


def test_steps_are_those_of_the_cell_on_the_same_tiles() -> None:
    """Each step from the kernel's own state, so that differences in the last bit do not add up."""
    first, second = tiles(FEATURES, "input", True), tiles(UNITS_COUNT, "recurrent", False)
    x = torch.rand(SAMPLES, STEPS, FEATURES) * 2 - 1
    h, c = torch.rand(SAMPLES, UNITS_COUNT) - 0.5, torch.randn(SAMPLES, UNITS_COUNT)
    given = first.forward(x, ONES, HOUR, first_sample=3)
    for step in range(STEPS):
        fed = second.forward(h, ONES, HOUR, first_sample=3, first_call=step)
        i, f, g, o = (given[:, step] + fed).chunk(4, dim=1)
        expected_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        expected_h = torch.sigmoid(o) * torch.tanh(expected_c)
        y, h, c = run_lstm(x[:, step : step + 1], h, c, gates(first, step), gates(second, step), first_sample=3)
        torch.testing.assert_close(c, expected_c, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(h, expected_h, rtol=2e-6, atol=2e-6)
        assert torch.equal(y[:, 0], h)


def test_bytes_do_not_depend_on_how_it_is_cut() -> None:
    first, second = tiles(FEATURES, "input", True), tiles(UNITS_COUNT, "recurrent", False)
    x = torch.rand(SAMPLES, STEPS, FEATURES) * 2 - 1
    zero = torch.zeros(SAMPLES, UNITS_COUNT)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = run_lstm(x, zero, zero, gates(first), gates(second))
        torch.set_num_threads(2)
        assert all(
            torch.equal(a, b) for a, b in zip(whole, run_lstm(x, zero, zero, gates(first), gates(second)), strict=True)
        )
    finally:
        torch.set_num_threads(before)
    y, h, c = run_lstm(x[:, :3], zero, zero, gates(first), gates(second))
    rest, h, c = run_lstm(x[:, 3:], h, c, gates(first, 3), gates(second, 3))
    assert all(torch.equal(a, b) for a, b in zip(whole, (torch.cat([y, rest], dim=1), h, c), strict=True))
    alone = run_lstm(x[2:3], zero[:1], zero[:1], gates(first), gates(second), first_sample=2)
    assert torch.equal(alone[0][0], whole[0][2])
