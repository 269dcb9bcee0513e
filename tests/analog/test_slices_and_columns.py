"""Slices and bit planes together with what columns, converters and input scaling do."""

from typing import Any

import pytest
import torch
from analog_chips import effects, pieces, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles, MvmSettings
from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.chip.spec import Tile
from aimc_compiler.errors import NotBuiltError

OFFSET = {"model": "cells", "slices": 4, "bits_per_slice": 2, "encoding": "offset_column"}
DIFFERENTIAL = {"model": "cells", "slices": 3, "bits_per_slice": 2}


def chip(device: dict[str, Any], dac: dict[str, Any] | None = None, adc: dict[str, Any] | None = None) -> Tile:
    made = tile(device=device, dac=8).model_dump(by_alias=True, exclude_none=True)
    made["dac"] |= dac or {}
    made["adc"] |= adc or {}
    return Tile.model_validate(made)


def outputs(made: Tile, mvm: dict[str, Any], contraction: Contraction | None = None) -> torch.Tensor:
    """Of one matrix of 12 x 18, inputs of both signs."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(1, 12, 18, generator=generator, dtype=torch.float64)
    x = torch.rand(16, 18, generator=generator, dtype=torch.float64) * 2 - 1
    if contraction is not None:
        x = torch.rand(4, 2, 6, 6, generator=generator, dtype=torch.float64) * 2 - 1
    on_tile = MatrixOnTiles(
        weight,
        contraction or Contraction(kind="linear"),
        pieces(1, (18,), (12,)),
        made,
        effects({"range_clip": True, **mvm}),
        dtype=torch.float64,
    )
    return on_tile.forward(x, torch.full((1, 1), 1.0))


CONV = Contraction(kind="conv2d", kernel=(3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1))


@pytest.mark.parametrize("device", [OFFSET, DIFFERENTIAL], ids=["offset", "differential"])
@pytest.mark.parametrize("dac", [{}, {"input_mode": "bit_serial"}], ids=["parallel", "bit_serial"])
@pytest.mark.parametrize("contraction", [None, CONV], ids=["linear", "conv2d"])
def test_scaling_and_repetition_lose_nothing(
    device: dict[str, Any], dac: dict[str, Any], contraction: Contraction | None
) -> None:
    """Scaled vectors change the rounding of inputs alone, by at most half a step each; so does the offset's sum."""
    plain = outputs(chip(device, dac), {}, contraction)
    exact = outputs(chip(device, {**dac, "bits": 20}), {}, contraction)
    scaled = outputs(chip(device, dac), {"input_scaling": "abs_max"}, contraction)
    limit = 18 * 3.5 / 254
    assert 0 < float((plain - exact).abs().max()) < limit
    assert 0 < float((scaled - exact).abs().max()) < limit
    narrow = chip(device, {**dac, "accumulate": "analog"}, {"bits": 16, "out_bound": 2.0})
    managed, clipped = (outputs(narrow, {"bound_management": on}, contraction) for on in (True, False))
    assert float((clipped - exact).abs().max()) > 8 * limit
    assert float((managed - exact).abs().max()) < 8 * limit


@pytest.mark.parametrize("accumulate", ["digital", "analog"])
@pytest.mark.parametrize("passes", ["analog", "digital"])
def test_two_passes_of_planes_are_the_product(accumulate: str, passes: str) -> None:
    dac = {"input_mode": "bit_serial", "accumulate": accumulate}
    assert torch.allclose(outputs(chip(DIFFERENTIAL, dac), {"passes": passes}), outputs(chip(DIFFERENTIAL), {}))


def test_stochastic_codes_are_those_of_the_digital_sum() -> None:
    """Weights of -1: all states of the offset column are 0, so the output is the sum of the codes that were sent."""
    made = chip({**OFFSET, "slices": 2}, {"rounding": "stochastic"})
    on_tile = MatrixOnTiles(
        -torch.ones(1, 5, 9),
        Contraction(kind="linear"),
        pieces(1, (9,), (5,)),
        made,
        effects({"range_clip": True}),
    )
    x = torch.rand(32, 9, generator=torch.Generator().manual_seed(2))
    codes = on_tile.forward(x, torch.ones(1, 1)) * 127
    assert torch.allclose(codes, codes.round(), atol=1e-3)
    assert torch.equal(codes, codes[:, :1].expand_as(codes))
    assert not torch.equal(codes[:, 0], -(x * 127).round().sum(1))


def test_each_slice_has_converters_of_its_own() -> None:
    """Gains of slices that lie side by side: with weights in the top digit alone, outputs show that slice's gains."""
    adc = {"gain_std": 0.05, "columns_per_adc": 2}
    made = chip({**DIFFERENTIAL, "slices": 2}, {"bits": "off"}, adc)
    weight = torch.full((1, 6, 4), 12 / 15, dtype=torch.float64)
    weight[:, :, 0] = 1.0
    cut = pieces(1, (4,), (6,))
    on_tile = MatrixOnTiles(
        weight, Contraction(kind="linear"), cut, made, effects({"range_clip": True}), dtype=torch.float64
    )
    x = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    y = on_tile.forward(x, torch.ones(1, 1))
    settings = MvmSettings.of(made, effects({"range_clip": True}))
    gains = [ColumnFigures.of_piece(cut[0], settings, 0, 0, index=k, slices=2).gain for k in range(2)]
    assert all(isinstance(gain, torch.Tensor) for gain in gains)
    high, low = gains
    assert torch.allclose(y[0], 12 / 15 * high)  # type: ignore[operator]
    assert torch.allclose(y[1], 12 / 15 * high + 3 / 15 * low)  # type: ignore[operator]
    assert torch.equal(high, low)  # type: ignore[arg-type]  # two columns a converter: both slices of a weight


def test_drivers_that_are_on_or_off_have_no_curve() -> None:
    with pytest.raises(NotBuiltError, match=r"dac\.inl with dac\.input_mode bit_serial.*set dac\.inl to 0"):
        outputs(chip(DIFFERENTIAL, {"input_mode": "bit_serial", "inl": 0.5}), {})
