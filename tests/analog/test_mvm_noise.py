"""Each source of noise by itself: its moments, and that rows, columns, samples and pieces are independent."""

from typing import Any

import numpy as np
import pytest
import torch
from analog_chips import STANDARD, effects, pieces, standard_tile, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles, adc, dac
from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.settings import MvmSettings

LINEAR = Contraction(kind="linear")
SAMPLES, COLUMNS, ROWS = 4000, 64, 32


def noise_of(mvm: dict[str, Any], w: torch.Tensor, x: torch.Tensor, column_cuts: tuple[int, ...] = (COLUMNS,)) -> Any:
    """(samples, columns): noisy outputs minus noise-free ones, float64, normalised weights with a 1 in each column."""
    held = pieces(1, (w.shape[2],), column_cuts)
    on_tiles = MatrixOnTiles(w, LINEAR, held, tile(), effects(mvm), dtype=torch.float64)
    y = on_tiles.forward(x.expand(SAMPLES, -1), torch.ones(1, 1))
    return (y - x @ w[0].T).numpy()


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    w = torch.rand(1, COLUMNS, ROWS, generator=generator, dtype=torch.float64) * 2 - 1
    w[:, :, 0] = 1
    return w, torch.rand(ROWS, generator=generator, dtype=torch.float64) * 2 - 1


def check_white(z: Any) -> None:
    """z: (samples, columns) of unit variance: moments, and no correlation of neighbours along either axis."""
    n = z.size
    assert n > 1e5
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    for step in (1, 2, 4):
        for product in (z[step:] * z[:-step], z[:, step:] * z[:, :-step]):
            assert abs(product.mean()) < 5 / np.sqrt(product.size)


def test_output_noise() -> None:
    check_white(noise_of({"sigma_out": 0.04}, *example()) / 0.04)


def test_pcm_read_noise() -> None:
    w, x = example()
    deviation = 0.0175 * (w[0].abs() @ x.square()).sqrt().numpy()
    check_white(noise_of({"sigma_w": 0.0175}, w, x) / deviation)


def test_constant_read_noise() -> None:
    w, x = example()
    check_white(noise_of({"sigma_w": 0.0175, "read_noise": "constant"}, w, x) / (0.0175 * float(x.norm())))


def test_read_and_output_noise_add_as_variances() -> None:
    w, x = example()
    variance = 0.0175**2 * (w[0].abs() @ x.square()).numpy() + 0.04**2
    check_white(noise_of({"sigma_w": 0.0175, "sigma_out": 0.04}, w, x) / np.sqrt(variance))


def test_noises_apart_have_the_same_variance() -> None:
    """Where something stands between them they are drawn one by one; here it is too small to see."""
    w, x = example()
    variance = 0.0175**2 * (w[0].abs() @ x.square()).numpy() + 0.04**2
    apart = noise_of({"sigma_w": 0.0175, "sigma_out": 0.04, "output_asymmetry": 1e-9}, w, x)
    check_white(apart / np.sqrt(variance))
    together = noise_of({"sigma_w": 0.0175, "sigma_out": 0.04}, w, x)
    assert abs(np.corrcoef(apart.ravel(), together.ravel())[0, 1]) < 1 - 1e-3


@pytest.mark.parametrize(("passes", "readings"), [("analog", 1), ("digital", 2)])
def test_noise_of_two_passes(passes: str, readings: int) -> None:
    """The read noise of both passes is that of one; each reading of a converter has noise of its own."""
    w, x = example()
    variance = 0.0175**2 * (w[0].abs() @ x.square()).numpy() + readings * 0.04**2
    check_white(noise_of({"sigma_w": 0.0175, "sigma_out": 0.04, "passes": passes}, w, x) / np.sqrt(variance))


def test_output_noise_of_converters_that_differ() -> None:
    w, x = example()
    spread = {"sigma_out": 0.04, "sigma_out_spread": 0.2}
    noise = noise_of(spread, w, x)
    (piece,) = pieces(1, (ROWS,), (COLUMNS,))
    sigma = ColumnFigures.of_piece(piece, MvmSettings.of(tile(), effects(spread)), seed=0, chip=0).sigma_out
    assert isinstance(sigma, torch.Tensor)
    assert float(sigma.std()) > 0.004
    check_white(noise / sigma.numpy())


def test_bound_management_draws_anew() -> None:
    """Factor 2 for all: the noise of the second reading, doubled."""
    w, x = torch.ones(1, COLUMNS, ROWS, dtype=torch.float64), torch.ones(ROWS, dtype=torch.float64) * 0.9
    holder = tile(adc="off", bound=20.0)
    held = pieces(1, (ROWS,), (COLUMNS,))
    spread = effects({"sigma_out": 0.04, "bound_management": True})
    on_tiles = MatrixOnTiles(w, LINEAR, held, holder, spread, dtype=torch.float64)
    noise = (on_tiles.forward(x.expand(SAMPLES, -1), torch.ones(1, 1)) - 0.9 * ROWS).numpy()
    check_white(noise / 0.08)


def test_input_noise_is_shared_by_the_columns_of_a_tile_and_not_by_tiles() -> None:
    w, x = example()
    noise = noise_of({"sigma_in": 0.02}, w, x, column_cuts=(32, 32))
    covariance = noise.T @ noise / SAMPLES / 0.02**2
    expected = (w[0] @ w[0].T).numpy()
    expected[:32, 32:] = expected[32:, :32] = 0
    # A covariance of two variables of variance v over n samples has deviation at most v sqrt(2 / n).
    assert np.abs(covariance - expected).max() < 5.5 * np.diag(expected).max() * np.sqrt(2 / SAMPLES)
    assert abs(noise.mean()) < 0.02 * 5 * np.sqrt(expected.sum() / 64**2 / SAMPLES)


def test_noise_of_windows_pieces_and_chips_differs() -> None:
    w, x = torch.zeros(1, 4, 8), torch.zeros(3, 5, 8)
    spec = tile(), effects({"sigma_out": 1.0})
    draws = [
        MatrixOnTiles(w, LINEAR, pieces(1, (8,), (2, 2)), *spec, seed=seed, chip=chip).forward(x, torch.ones(1, 1))
        for seed, chip in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    values = torch.stack(draws).reshape(-1)
    assert len(set(values.tolist())) == values.numel() == 4 * 3 * 5 * 4


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_converters_round_half_to_even_and_then_clip(bits: int) -> None:
    settings = MvmSettings.of(tile(dac=bits, adc=bits, bound=3.0), effects({"range_clip": True}))
    steps = 2**bits - 2
    x = torch.linspace(-1.5, 1.5, 6 * steps + 2, dtype=torch.float64)
    codes = np.clip(np.rint(x.numpy() / (2 / steps)), -steps / 2, steps / 2)
    np.testing.assert_allclose(dac(x, settings).numpy(), codes * 2 / steps, atol=1e-15)
    np.testing.assert_allclose(adc(3 * x, settings).numpy(), codes * 6 / steps, atol=1e-15)
    half = torch.tensor([0.5, 1.5, -0.5]) * (6 / 2**23)
    fine = MvmSettings(adc_step=6 / 2**23)
    assert adc(half, fine).tolist() == [0.0, 2 * 6 / 2**23, 0.0]


def test_a_converter_without_end_rounds_only() -> None:
    open_ended = standard_tile().model_copy(update={"adc": standard_tile().adc.model_copy(update={"clip": False})})
    settings = MvmSettings.of(open_ended, effects(STANDARD))
    assert float(adc(torch.tensor(123.456), settings)) == pytest.approx(123.456, abs=10 / 254)
    assert float(adc(torch.tensor(123.456), MvmSettings.of(standard_tile(), effects(STANDARD)))) == 10.0
