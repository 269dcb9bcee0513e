"""Drift compensation: published factors, the closed form against one-hot MVMs, the variants."""

from typing import Any

import pytest
import torch
from analog_chips import OFF, STANDARD, effects, pieces, standard_tile, tile
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import Contraction, MatrixOnTiles, MvmSettings, PieceDevices, Streams
from aimc_compiler.analog import compensation as compensation_module
from aimc_compiler.analog.compensation import compensation_factor, one_hot_outputs
from aimc_compiler.chip.devices import DEVICES
from aimc_compiler.chip.stored import DeviceNonidealities

STREAMS = Streams(seed=0, chip=0, piece="tile")


def gaussian_devices(seed: int = 0, columns: int = 256, rows: int = 128) -> PieceDevices:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(columns, rows, generator=generator)
    target = weight / weight.abs().amax(dim=1, keepdim=True)
    return PieceDevices(target=target, streams=STREAMS, effects=DeviceNonidealities(), figures=DEVICES["pcm"].figures)


@pytest.mark.parametrize(
    ("time_s", "factor"), [(3600.0, 1.297), (86_400.0, 1.517), (2_592_000.0, 1.791), (31_536_000.0, 2.022)]
)
def test_factor_of_a_gaussian_tile(time_s: float, factor: float) -> None:
    """A 256 x 128 tile, ideal MVM; figures of the public toolkit of Rasch et al., Nat. Commun. 14, 5282 (2023)."""
    alpha = compensation_factor("tile", gaussian_devices(), time_s, 0, MvmSettings())
    assert alpha.shape == (256,)
    assert float(alpha[0]) == pytest.approx(factor, rel=0.03)
    assert bool((alpha == alpha[0]).all())


@settings(max_examples=40, deadline=None)
@given(
    mvm=st.fixed_dictionaries(
        {
            "sigma_out": st.sampled_from([0, 0.04]),
            "sigma_w": st.sampled_from([0, 0.1]),
            "read_noise": st.sampled_from(["pcm", "constant"]),
            "ir_drop": st.sampled_from([0, 300]),
        }
    ),
    tile_row=st.sampled_from([0, 60]),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_closed_form_equals_one_hot_mvms(mvm: dict[str, Any], tile_row: int, shape: tuple[int, int]) -> None:
    model = MvmSettings.of(tile(dac=8), effects(mvm))
    w = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(shape[0]))
    closed = one_hot_outputs(w, STREAMS, "now", tile_row, model)
    draw = compensation_module.Draw(keys=(STREAMS.key("compensation", "now"),), columns=(shape[0],))
    multiplied = compensation_module._read_rows(w, draw, tile_row, model)
    torch.testing.assert_close(closed, multiplied, rtol=0, atol=1e-12)


def test_input_noise_is_part_of_the_reading() -> None:
    w = torch.full((64, 256), 0.5)
    quiet = one_hot_outputs(w, STREAMS, "now", 0, MvmSettings())
    noisy = one_hot_outputs(w, STREAMS, "now", 0, MvmSettings(sigma_in=0.1))
    assert torch.equal(quiet, w)
    # Each column sums 256 noisy rows at 0.5: sd 0.1 * 0.5 * 16 = 0.8, the same for all columns of one reading.
    assert float(noisy[0].std()) == pytest.approx(0.8, rel=0.15)
    assert torch.allclose(noisy[0], noisy[1], atol=1e-5)


def test_two_recalibrations_differ_and_one_is_a_function_of_its_time() -> None:
    model = MvmSettings.of(standard_tile(), effects(STANDARD))
    at = {t: compensation_factor("tile", gaussian_devices(), t, 0, model)[0] for t in (3600.0, 3601.0)}
    assert at[3600.0] != at[3601.0]
    assert compensation_factor("tile", gaussian_devices(), 3600.0, 0, model)[0] == at[3600.0]


def test_variants() -> None:
    devices = gaussian_devices()
    off = compensation_factor("off", devices, 3600.0, 0, MvmSettings())
    column = compensation_factor("column", devices, 3600.0, 0, MvmSettings())
    exact = compensation_factor("exact", devices, 3600.0, 0, MvmSettings())
    assert torch.equal(off, torch.ones(256))
    now, programmed = devices.at(3600.0).abs(), devices.programmed().abs()
    torch.testing.assert_close(column, programmed.mean(1) / now.mean(1))
    torch.testing.assert_close(exact, (devices.target.abs().mean() / now.mean()).expand(256))


def test_a_dead_tile_has_a_finite_factor() -> None:
    """Readings below 1e-4 count as 1e-4."""
    devices = PieceDevices(target=torch.zeros(3, 4), streams=STREAMS, effects=DeviceNonidealities(), figures=None)
    assert torch.equal(compensation_factor("tile", devices, 60.0, 0, MvmSettings()), torch.ones(3))


def test_recalibration_time_is_used() -> None:
    held = pieces(1, (32,), (16,))
    spec = standard_tile(), effects(OFF, {"drift": 1}, "tile")
    weight = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(1))
    on_tiles = MatrixOnTiles(weight, Contraction(kind="linear"), held, *spec)
    early = on_tiles.state(31_536_000.0, recalibrated_s=1.0)
    late = on_tiles.state(31_536_000.0)
    assert torch.equal(early.weights, late.weights)
    assert float(early.alpha[0, 0, 0]) < 1.1 < 1.5 < float(late.alpha[0, 0, 0])
