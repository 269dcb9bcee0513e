"""Effects of columns and converters one by one: what each moves, its statistics, and that off is exactly off."""

from typing import Any

import numpy as np
import pytest
import torch
from analog_chips import effects, pieces, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles, MvmSettings, Streams, one_hot_outputs
from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.converter import adc, bow, dac, round_by_chance
from aimc_compiler.analog.fast.choice import not_modelled
from aimc_compiler.analog.scaling import vector_scales
from aimc_compiler.analog.settings import Points
from aimc_compiler.chip import load_chip, override
from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.errors import SpecError
from aimc_compiler.mapping.ir import Piece

LINEAR = Contraction(kind="linear")
ADC = {"bits": "off", "out_bound": 10.0, "clip": False}


def tile_with(dac_keys: dict[str, Any] | None = None, adc_keys: dict[str, Any] | None = None) -> Tile:
    data = tile().model_dump(by_alias=True, exclude_none=True)
    data["dac"] = {"bits": "off", "input_mode": "pulse_width", **(dac_keys or {})}
    return Tile.model_validate({**data, "adc": {**ADC, **(adc_keys or {})}})


def outputs(spec: tuple[Tile, Nonidealities], x: torch.Tensor, columns: int = 40) -> torch.Tensor:
    w = torch.rand(1, columns, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    on_tiles = MatrixOnTiles(w, LINEAR, pieces(1, (14, 10), (columns,)), *spec, dtype=torch.float64)
    return on_tiles.forward(x, torch.full((1, 2), 1.5))


X = torch.randn(20, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
TABLE = ((-1.0, 0.5), (-0.5, -2.0), (0.0, 0.0), (0.25, 3.0), (1.0, 1.0))
#: Each effect or option alone: keys of the MVM, of the DAC, of the ADC; whether it moves noise-free outputs.
ALONE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], bool]] = {
    "input scaling": ({"input_scaling": "abs_max"}, {}, {}, False),
    "input scaling by sums": ({"input_scaling": "abs_max_sums"}, {}, {}, False),
    "input scaling by a constant": ({"input_scaling": "constant", "input_scaling_bound": 3}, {}, {}, False),
    "two passes, analog": ({"passes": "analog"}, {}, {}, False),
    "two passes, digital": ({"passes": "digital"}, {}, {}, False),
    "bound management without clipping": ({"bound_management": True}, {}, {}, False),
    "stochastic rounding without bits": ({}, {"rounding": "stochastic"}, {"rounding": "stochastic"}, False),
    "nonlinearity without bits": ({}, {"inl": 1}, {"inl": 1}, False),
    "spread of no noise": ({"sigma_out_spread": 0.5, "s_shape_std": 0.5}, {}, {}, False),
    "slope of a straight converter": ({"slope_calibration": 0.5}, {}, {}, False),
    "residuals of no mismatch": (
        {},
        {},
        {"mismatch_calibrated": True, "gain_residual": 0.1, "offset_residual": 0.1},
        False,
    ),
    "mismatch calibrated without residual": (
        {},
        {},
        {"gain_std": 0.1, "offset_std": 0.1, "mismatch_calibrated": True},
        False,
    ),
    "input asymmetry": ({"input_asymmetry": 0.1}, {}, {}, True),
    "output asymmetry": ({"output_asymmetry": 0.1}, {}, {}, True),
    "voltage offset": ({"v_offset_std": 0.1}, {}, {}, True),
    "series resistance": ({"r_series": 0.1}, {}, {}, True),
    "s-shape": ({"s_shape": 0.5}, {}, {}, True),
    "gain": ({}, {}, {"gain_std": 0.1}, True),
    "offset": ({}, {}, {"offset_std": 0.1}, True),
    "input nonlinearity": ({}, {"bits": 8, "inl": 2}, {}, True),
    "output nonlinearity": ({}, {}, {"bits": 8, "inl": 2}, True),
    "input nonlinearity, measured": ({}, {"bits": 8, "inl": 1, "inl_table": TABLE}, {}, True),
    "output nonlinearity, measured": ({}, {}, {"bits": 8, "inl": 1, "inl_table": TABLE}, True),
    "input rounding": ({}, {"bits": 4, "rounding": "stochastic"}, {}, True),
    "output rounding": ({}, {}, {"bits": 4, "rounding": "stochastic"}, True),
}


@pytest.mark.parametrize("name", ALONE)
def test_each_alone(name: str) -> None:
    mvm, dac_keys, adc_keys, moves = ALONE[name]
    ideal = outputs((tile_with(), effects()), X)
    y = outputs((tile_with(dac_keys, adc_keys), effects(mvm)), X)
    error = float((y - ideal).norm() / ideal.norm())
    assert error > 1e-4 if moves else error < 1e-12


def figures(keys: dict[str, Any], mvm: dict[str, Any], piece: Piece, chip: int = 0) -> ColumnFigures:
    return ColumnFigures.of_piece(piece, MvmSettings.of(tile_with({}, keys), effects(mvm)), seed=0, chip=chip)


def piece_at(tile_column: int, columns: int, index: int = 0, name: str = "layer") -> Piece:
    (piece,) = pieces(1, (8,), (columns,), matrix=name)
    return Piece(
        **{**{f: getattr(piece, f) for f in Piece.__dataclass_fields__}, "tile_column": tile_column, "tile": index}
    )


def test_figures_belong_to_the_place_on_the_tile_and_to_shared_converters() -> None:
    keys, mvm = {"gain_std": 0.1, "offset_std": 0.2, "columns_per_adc": 4}, {"v_offset_std": 0.1}
    whole = figures(keys, mvm, piece_at(0, 32))
    part = figures(keys, mvm, piece_at(6, 10, name="other"))
    for name in ("gain", "offset", "voltage_offset"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[6:16])
    gain, offset, voltage = whole.gain, whole.offset, whole.voltage_offset
    assert isinstance(gain, torch.Tensor)
    assert isinstance(offset, torch.Tensor)
    assert isinstance(voltage, torch.Tensor)
    assert len(set(gain.tolist())) == len(set(offset.tolist())) == 8
    assert torch.equal(gain.reshape(8, 4), gain[::4, None].expand(8, 4))
    assert len(set(voltage[voltage > 0].tolist())) == int((voltage > 0).sum()) > 8
    for other in (figures(keys, mvm, piece_at(0, 32, index=1)), figures(keys, mvm, piece_at(0, 32), chip=1)):
        assert isinstance(other.gain, torch.Tensor)
        assert not set(other.gain.tolist()) & set(gain.tolist())


def test_statistics_of_the_columns() -> None:
    n = 200_000
    keys = {"gain_std": 0.0709, "offset_std": 0.2, "mismatch_calibrated": True}
    keys |= {"gain_residual": 0.01, "offset_residual": 0.03}
    mvm = {"v_offset_std": 0.1, "s_shape": 0.5, "s_shape_std": 0.2, "sigma_out": 0.04, "sigma_out_spread": 0.1}
    found = figures(keys, mvm, piece_at(0, n))
    held = {name: np.asarray(getattr(found, name)) for name in ColumnFigures.__dataclass_fields__}
    moments = {
        "gain": (held["gain"], 1, 0.0709),
        "offset": (held["offset"], 0, 0.2),
        "gain residual": (held["gain_measured"] / held["gain"], 1, 0.01),
        "offset residual": (held["offset_measured"] - held["offset"], 0, 0.03),
        "s-shape": (held["bend"], 0.05, 0.01),
        "output noise": (held["sigma_out"], 0.04, 0.004),
    }
    for name, (values, mean, sd) in moments.items():
        assert abs(values.mean() - mean) < 5 * sd / np.sqrt(n), name
        assert abs(values.std() / sd - 1) < 5 / np.sqrt(2 * n), name
    # max(0, 0.1 xi): half are zero, the mean is 0.1 / sqrt(2 pi).
    assert abs((held["voltage_offset"] == 0).mean() - 0.5) < 2.5 / np.sqrt(n)
    assert held["voltage_offset"].mean() == pytest.approx(0.1 / np.sqrt(2 * np.pi), rel=0.02)


def test_gain_errors_are_what_calibration_leaves() -> None:
    """1 % of residual leaves outputs off by 1 %, whatever the converters' spread was."""
    ideal = outputs((tile_with(), effects()), X, 2000)
    for spread in (0.03, 0.1):
        keys = {"gain_std": spread, "mismatch_calibrated": True, "gain_residual": 0.01}
        y = outputs((tile_with({}, keys), effects()), X, 2000)
        assert float((y - ideal).norm() / ideal.norm()) == pytest.approx(0.01, rel=0.1)


def test_rounding_by_chance_is_right_on_average_and_exact_at_codes() -> None:
    n = 200_000
    z = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for value in (0.3, -1.25, 7.9):
        found = round_by_chance(torch.full_like(z, value), 0.5, z)
        share = value / 0.5 - np.floor(value / 0.5)
        assert set((found / 0.5).tolist()) == {np.floor(value / 0.5), np.ceil(value / 0.5)}
        assert abs(float(found.mean()) - value) < 0.5 * 5 * np.sqrt(share * (1 - share) / n)
    codes = torch.arange(-5, 6, dtype=torch.float64) * 0.5
    assert torch.equal(round_by_chance(codes, 0.5, torch.full_like(codes, -6.5)), codes)


def test_stochastic_rounding_differs_between_tiles_and_windows() -> None:
    weight, x = torch.ones(1, 4, 8), torch.full((3, 5, 8), 0.3)
    spec = tile_with({"bits": 3, "rounding": "stochastic"}), effects()
    y = MatrixOnTiles(weight, LINEAR, pieces(1, (8,), (2, 2)), *spec).forward(x, torch.ones(1, 1))
    assert torch.equal(y[..., 0], y[..., 1])
    assert not torch.equal(y[..., 0], y[..., 2])
    assert len(set(y[..., 0].flatten().tolist())) > 2


def test_nonlinearity_is_its_polynomial_in_lsb() -> None:
    settings = MvmSettings.of(tile_with({"bits": 8, "inl": 2, "inl_curve": (1.0, -1.0)}), effects())
    x = torch.tensor([-1.0, -64 / 127, 0.0, 64 / 127, 1.0], dtype=torch.float64)
    lsb = (dac(x, settings) - x) * 127
    v = x.numpy()
    np.testing.assert_allclose(lsb.numpy(), 2 * (v - v**2), atol=1e-12)
    # Beyond the bound the curve stays where it ended.
    assert float(bow(torch.tensor(30.0), 10.0, (0.1, 0.2))) == pytest.approx(30.3)


def test_measured_nonlinearity_is_linear_between_its_points() -> None:
    settings = MvmSettings.of(tile_with({"bits": 8, "inl": 0.5, "inl_table": TABLE}), effects())
    x = torch.tensor([-127, -100, -64, -1, 0, 1, 31, 32, 60, 127], dtype=torch.float64) / 127
    lsb = (dac(x, settings) - x) * 127
    positions, values = zip(*TABLE, strict=True)
    np.testing.assert_allclose(lsb.numpy(), 0.5 * np.interp(x.numpy(), positions, values), atol=1e-12)
    # Beyond the bound the curve stays where it ended; at a point it is the point.
    curve = Points(positions=(-1.0, 0.5, 1.0), values=(0.1, -0.4, 0.2))
    u = torch.tensor([-30.0, -10.0, 5.0, 10.0, 30.0], requires_grad=True)
    bowed = bow(u, 10.0, curve)
    assert bowed.tolist() == pytest.approx([-29.9, -9.9, 4.6, 10.2, 30.2])
    assert torch.autograd.grad(bowed.sum(), u)[0][[0, 2, 4]].tolist() == pytest.approx([1, 1 + 0.6 / 5, 1])


def test_a_table_of_the_default_curve_is_the_default_curve() -> None:
    """Two ways to say one thing; 401 points of a cubic leave less than 1e-5 LSB."""
    v = np.linspace(-1, 1, 401)
    table = tuple(zip(v.tolist(), (v**3 - v).tolist(), strict=True))
    for keys in ("dac", "adc"):
        found = [
            outputs((tile_with(**{f"{keys}_keys": {"bits": 10, "inl": 3, **curve}}), effects()), X)
            for curve in ({}, {"inl_table": table})
        ]
        assert float((found[0] - found[1]).abs().max()) < (1e-3 if keys == "dac" else 20 / 1022 * 4.01)


def test_measured_nonlinearity_keeps_fast_and_closed_forms_away() -> None:
    table = {"bits": 8, "inl": 1, "inl_table": TABLE}
    of_inputs = MvmSettings.of(tile_with({**table}, {"bits": 8, "clip": True}), effects({"range_clip": True}))
    of_outputs = MvmSettings.of(tile_with({"bits": 8}, {**table, "clip": True}), effects({"range_clip": True}))
    assert not_modelled(of_inputs) == "dac_inl of 5 points is not built in fast"
    assert not_modelled(of_outputs) == "adc_inl of 5 points is not built in fast"
    assert of_inputs.reads_in_closed_form  # a reading has one code, the curve one value
    assert not of_outputs.reads_in_closed_form
    for chosen in (of_inputs, of_outputs):
        w = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
        found = one_hot_outputs(w, Streams(seed=0, chip=0, piece="any"), "now", 0, chosen)
        code = dac(torch.ones((), dtype=torch.float64), chosen)
        bent = bow(w * code, 10.0, chosen.adc_inl) if chosen.adc_inl else w * code
        torch.testing.assert_close(found, adc(bent, chosen), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("tile.dac.inl_curve=[0, 1]", "tile.dac.inl_table=[[-1, 0], [1, 1]]"),
         r"tile\.dac\.inl_table: stands beside inl_curve; remove one of them"),
        (("tile.adc.inl_table=[[-1, 0], [0.5, 1], [0.5, 2], [1, 0]]",),
         r"tile\.adc\.inl_table\[2\]: at 0\.5 follows 0\.5; give points in rising order, each position once"),
        (("tile.adc.inl_table=[[-1, 0], [1.5, 1]]",), r"has a point at 1\.5; positions are over the bound"),
        (("tile.dac.inl_table=[[-0.9, 0], [1, 1]]",), r"inl_table: covers -0\.9 to 1 of -1 to 1; add points at"),
        (("tile.adc.inl_table=[[-1, 0], [0.9, 1]]",), r"inl_table: covers -1 to 0\.9 of -1 to 1; add points at"),
        (("tile.dac.inl_table=[[-1, 0], [0, 0.1], [1, 1]]",), r"lacks the point \[0, 0\]; an input of 0 drives"),
        (("tile.adc.inl_table=[[0, 0]]",), r"tile\.adc\.inl_table"),
        (("tile.adc.inl_table=[[0, 0, 1], [1, 0]]",), r"tile\.adc\.inl_table"),
    ],
)  # fmt: skip
def test_tables_that_say_too_little_or_too_much(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_chip("analog-fabric", keys)


def test_a_converter_without_sign_needs_half_a_table() -> None:
    keys = {"bits": 8, "signed": False, "inl": 1, "inl_table": [[0, 0], [1, 2]]}
    device = {"encoding": "offset_column", "model": "cells", "g_max": "25 uS"}
    made = Tile.model_validate({**tile_with().model_dump(by_alias=True, exclude_none=True), "device": device}
                               | {"adc": {**ADC, **keys}})  # fmt: skip
    settings = MvmSettings.of(made, effects())
    u = torch.tensor([-3.0, 0.0, 5.0, 10.0], dtype=torch.float64)
    assert ((bow(u, 10.0, settings.adc_inl) - u) * 25.5).tolist() == pytest.approx([0, 0, 1, 2])


def test_vector_scales() -> None:
    x = torch.tensor([[0.5, -0.25, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0], [-0.9, 0.1, -0.9, -0.9]])
    limited = MvmSettings(input_scaling="abs_max", scaling_bound=0.6)
    assert vector_scales(x, limited).flatten().tolist() == pytest.approx([0.5, 0, 0.6])
    sums = MvmSettings(input_scaling="abs_max_sums", sum_share=0.6)
    assert vector_scales(x, sums).flatten().tolist() == pytest.approx([0.9, 0, 1.62])
    coarse = MvmSettings(input_scaling="abs_max_sums", sum_share=0.6, dac_step=0.2)
    assert vector_scales(x, coarse).flatten().tolist() == pytest.approx([0.625, 0, 1.125])


def test_bound_management_takes_back_what_clips() -> None:
    """Sums of 24 inputs against a bound of 1: clipped without, right to a step of the last factor with it."""
    clipping = {"bits": 8, "out_bound": 1.0, "clip": True}
    ideal = outputs((tile_with(), effects()), X)
    plain = outputs((tile_with({}, clipping), effects()), X)
    managed = outputs((tile_with({}, clipping), effects({"bound_management": True})), X)
    assert float((plain - ideal).norm() / ideal.norm()) > 0.3
    assert float((managed - ideal).norm() / ideal.norm()) < 0.01


def test_bound_management_stops_where_inputs_have_no_codes_left() -> None:
    """At 4 bits in, a quarter over the step is 1.75: factor 2 is the last, and what clips there stays clipped."""
    keys = {"bits": "off", "out_bound": 0.1, "clip": True}
    weight = torch.ones(1, 1, 24)
    spec = tile_with({"bits": 4}, keys), effects({"bound_management": True})
    y = MatrixOnTiles(weight, LINEAR, pieces(1, (24,), (1,)), *spec).forward(torch.ones(1, 24), torch.ones(1, 1))
    assert float(y[0, 0]) == pytest.approx(0.2)


def test_scaled_convolutions_give_the_same_whatever_the_batch() -> None:
    weight, x = torch.randn(2, 3, 18), torch.randn(4, 4, 6, 6)
    contraction = Contraction(kind="conv2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    spec = tile_with({"bits": 8}, {"bits": 8}), effects({"input_scaling": "abs_max", "sigma_out": 0.04})
    on_tiles = MatrixOnTiles(weight, contraction, pieces(2, (18,), (2, 1)), *spec)
    ranges = torch.ones(2, 1)
    whole = on_tiles.forward(x, ranges)
    parts = [on_tiles.forward(x[i : i + 1], ranges, first_sample=i) for i in range(4)]
    assert float((whole - torch.cat(parts)).abs().max()) < 1e-4


def test_gradients_pass_through_bent_columns() -> None:
    mvm = {"s_shape": 0.5, "r_series": 0.05, "v_offset_std": 0.1, "input_scaling": "abs_max", "passes": "analog"}
    x = X[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: outputs((tile_with(), effects(mvm)), v, 3), (x,))


def test_drift_compensation_reads_through_the_columns() -> None:
    """One-hot inputs give the weights themselves, bent and mismatched as every output of those columns."""
    keys, mvm = {"gain_std": 0.1, "offset_std": 0.2, "columns_per_adc": 2}, {"s_shape": 0.5, "input_asymmetry": 0.3}
    settings = MvmSettings.of(tile_with({}, keys), effects(mvm))
    held = figures(keys, mvm, piece_at(3, 5))
    w = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = one_hot_outputs(w, Streams(seed=0, chip=0, piece="any"), "now", 0, settings, held)
    assert isinstance(held.gain, torch.Tensor)
    assert isinstance(held.offset, torch.Tensor)
    expected = held.gain[:, None] * w / (1 + 0.05 * w.abs()) + held.offset[:, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_zero_vectors_give_zero_where_vectors_are_scaled() -> None:
    spec = tile_with({}, {"offset_std": 0.5}), effects({"input_scaling": "abs_max", "sigma_out": 0.04})
    x = torch.cat([torch.zeros(1, 24, dtype=torch.float64), X])
    assert torch.count_nonzero(outputs(spec, x)[0]) == 0
    assert torch.count_nonzero(outputs(spec, x)[1:]) == 20 * 40


def test_bends_need_a_bound() -> None:
    keys = {"tile.adc.bits": "off", "tile.adc.out_bound": "off", "nonidealities.mvm.s_shape": 0.5}
    with pytest.raises(SpecError, match=r"nonidealities.mvm.s_shape: is 0.5, but tile.adc.out_bound, .* is off; give"):
        override(load_chip("analog-fabric"), keys)


def test_a_chip_without_ranges_has_none_of_it() -> None:
    with pytest.raises(SpecError, match=r"input_asymmetry: is 0.1, but tile.normalisation is none"):
        override(load_chip("ideal"), {"nonidealities.mvm.input_asymmetry": 0.1})
    with pytest.raises(SpecError, match=r"tile.adc.gain_std: is 0.1, but tile.normalisation is none"):
        override(load_chip("ideal"), {"tile.adc.gain_std": 0.1})
