"""The vectorised model against a second one in float64 loops, on random shapes, cuts and settings."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from analog_chips import effects, pieces, tile
from hypothesis import given, settings
from hypothesis import strategies as st
from mvm_reference import matrix_outputs, unfold

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.settings import Points
from aimc_compiler.chip.spec import Tile

MVM = st.fixed_dictionaries(
    {
        "range_clip": st.booleans(),
        "sigma_in": st.sampled_from([0, 0.05]),
        "sigma_out": st.sampled_from([0, 0.04]),
        "sigma_w": st.sampled_from([0, 0.1]),
        "read_noise": st.sampled_from(["pcm", "constant"]),
        "ir_drop": st.sampled_from([0, 1, 300]),
    }
)
ALL = st.fixed_dictionaries(
    {
        "range_clip": st.booleans(),
        "sigma_in": st.sampled_from([0, 0.05]),
        "sigma_out": st.sampled_from([0, 0.04]),
        "sigma_w": st.sampled_from([0, 0.1]),
        "read_noise": st.sampled_from(["pcm", "constant"]),
        "ir_drop": st.sampled_from([0, 300]),
        "input_scaling": st.sampled_from(["none", "constant", "abs_max", "abs_max_sums"]),
        "input_scaling_bound": st.sampled_from([0, 0.7]),
        "input_asymmetry": st.sampled_from([0, 0.1]),
        "output_asymmetry": st.sampled_from([0, 0.1]),
        "v_offset_std": st.sampled_from([0, 0.1]),
        "r_series": st.sampled_from([0, 0.05]),
        "reference_weight": st.sampled_from([-1, -0.5, 0]),
        "s_shape": st.sampled_from([0, 0.5]),
        "s_shape_std": st.sampled_from([0, 0.3]),
        "slope_calibration": st.sampled_from([0, 0.5]),
        "sigma_out_spread": st.sampled_from([0, 0.5]),
        "passes": st.sampled_from(["one", "analog", "digital"]),
        "bound_management": st.booleans(),
    }
)
TABLE = ((-1.0, 0.5), (-0.4, -1.0), (0.0, 0.0), (0.7, 2.0), (1.0, 1.0))
CURVES = st.sampled_from([{}, {"inl_curve": (-1.0, 0.0, 1.0)}, {"inl_curve": (0.0, 1.0)}, {"inl_table": TABLE}])
INPUTS = st.builds(
    dict.__or__,
    CURVES,
    st.fixed_dictionaries(
        {
            "bits": st.sampled_from(["off", 4, 8]),
            "rounding": st.sampled_from(["nearest", "stochastic"]),
            "inl": st.sampled_from([0, 2]),
        }
    ),
)
OUTPUTS = st.fixed_dictionaries(
    {
        "columns_per_adc": st.sampled_from([1, 2, 3]),
        "gain_std": st.sampled_from([0, 0.1]),
        "offset_std": st.sampled_from([0, 0.2]),
        "mismatch_calibrated": st.booleans(),
        "gain_residual": st.sampled_from([0, 0.05]),
        "offset_residual": st.sampled_from([0, 0.1]),
        "out_bound": st.sampled_from([0.5, 2, 100]),
    }
)
ADC_INL = st.sampled_from([(), (0.1, -0.2), Points(positions=(-1.0, 0.1, 0.4, 1.0), values=(0.1, -0.2, 0.3, 0.0))])
# Without an ADC: rounding turns a difference of 1e-15 into a whole step. Its own tests and the golden cases cover it.
DAC = st.sampled_from(["off", 4, 8])


def cut(size: int, at: int) -> tuple[int, ...]:
    return (at, size - at) if 0 < at < size else (size,)


def compare(
    weight: torch.Tensor,
    x: torch.Tensor,
    vectors: Any,
    contraction: Contraction,
    cuts: tuple[tuple[int, ...], tuple[int, ...]],
    spec: tuple[Any, Any],
    tile_row: int,
    adc_inl: tuple[float, ...] | Points = (),
) -> None:
    held = pieces(weight.shape[0], *cuts, tile_row=tile_row)
    on_tiles = MatrixOnTiles(weight, contraction, held, *spec, seed=3, chip=1, dtype=torch.float64)
    on_tiles.settings = replace(on_tiles.settings, adc_inl=adc_inl)
    ranges = torch.rand(weight.shape[0], len(cuts[0]), dtype=torch.float64) + 0.5
    y = on_tiles.forward(x, ranges, first_sample=2**33)
    expected = matrix_outputs(weight.numpy(), vectors, ranges.numpy(), held, on_tiles.settings, 2**33)
    samples, windows = expected.shape[:2]
    if contraction.kind == "linear":
        found = y.numpy().reshape(samples, windows, 1, -1)
    else:
        found = y.numpy().reshape(samples, weight.shape[0], -1, windows).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert on_tiles.mvms == samples * windows * len(held)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 9),
    at=st.tuples(st.integers(0, 24), st.integers(0, 9)),
    mvm=MVM,
    dac=DAC,
    tile_row=st.sampled_from([0, 100]),
    seed=st.integers(0, 10**6),
)
def test_linear(
    rows: int, columns: int, at: tuple[int, int], mvm: dict[str, Any], dac: Any, tile_row: int, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(1, columns, rows, dtype=torch.float64)
    x = torch.randn(2, 3, rows, dtype=torch.float64)
    vectors = x.numpy()[:, :, None]
    cuts = cut(rows, at[0]), cut(columns, at[1])
    compare(weight, x, vectors, Contraction(kind="linear"), cuts, (tile(dac=dac), effects(mvm)), tile_row)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 3]),
    channels=st.integers(1, 3),
    columns=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 1)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    at=st.tuples(st.integers(0, 27), st.integers(0, 4)),
    mvm=MVM,
    dac=DAC,
    seed=st.integers(0, 10**6),
)
def test_conv2d(
    groups: int,
    channels: int,
    columns: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    at: tuple[int, int],
    mvm: dict[str, Any],
    dac: Any,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    rows = channels * kernel[0] * kernel[1]
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    weight = torch.randn(groups, columns, rows, dtype=torch.float64)
    x = torch.randn(2, groups * channels, 5, 6, dtype=torch.float64)
    contraction = Contraction(kind="conv2d", kernel=kernel, **options)
    vectors = unfold(x.numpy(), groups, kernel, options)
    cuts = cut(rows, at[0]), cut(columns, at[1])
    compare(weight, x, vectors, contraction, cuts, (tile(dac=dac), effects(mvm)), 7)


def compare_all(
    mvm: dict[str, Any],
    dac: dict[str, Any],
    adc: dict[str, Any],
    adc_inl: tuple[float, ...] | Points,
    seed: int,
    convolves: bool,
) -> None:
    """All effects at once, ADC bits apart; its nonlinearity, which without bits has no LSB, in units of the output."""
    torch.manual_seed(seed)
    full = tile()
    holder = Tile.model_validate(
        full.model_dump(by_alias=True, exclude_none=True)
        | {"dac": {"input_mode": "pulse_width", **dac}, "adc": {"bits": "off", **adc}}
    )
    spec = holder, effects(mvm)
    if not convolves:
        weight, x = torch.randn(1, 5, 7, dtype=torch.float64), torch.randn(2, 2, 7, dtype=torch.float64)
        x[0, 0] = 0
        compare(weight, x, x.numpy()[:, :, None], Contraction(kind="linear"), ((4, 3), (3, 2)), spec, 60, adc_inl)
        return
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 1)}
    weight, x = torch.randn(2, 3, 12, dtype=torch.float64), torch.randn(1, 6, 4, 3, dtype=torch.float64)
    contraction = Contraction(kind="conv2d", kernel=(2, 2), **options)
    compare(weight, x, unfold(x.numpy(), 2, (2, 2), options), contraction, ((7, 5), (2, 1)), spec, 0, adc_inl)


@settings(max_examples=100, deadline=None)
@given(mvm=ALL, dac=INPUTS, adc=OUTPUTS, adc_inl=ADC_INL, seed=st.integers(0, 10**6), convolves=st.booleans())
def test_all_effects(
    mvm: dict[str, Any], dac: dict[str, Any], adc: dict[str, Any], adc_inl: Any, seed: int, convolves: bool
) -> None:
    compare_all(mvm, dac, adc, adc_inl, seed, convolves)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(mvm=ALL, dac=INPUTS, adc=OUTPUTS, adc_inl=ADC_INL, seed=st.integers(0, 10**6), convolves=st.booleans())
def test_all_effects_many_times(
    mvm: dict[str, Any], dac: dict[str, Any], adc: dict[str, Any], adc_inl: Any, seed: int, convolves: bool
) -> None:
    compare_all(mvm, dac, adc, adc_inl, seed, convolves)


@settings(max_examples=20, deadline=None)
@given(mvm=MVM, dac=DAC, seed=st.integers(0, 10**6), at=st.integers(0, 6))
def test_conv1d(mvm: dict[str, Any], dac: Any, seed: int, at: int) -> None:
    torch.manual_seed(seed)
    options: dict[str, tuple[int, ...]] = {"stride": (2,), "padding": (1,), "dilation": (1,)}
    weight, x = torch.randn(1, 4, 6, dtype=torch.float64), torch.randn(3, 2, 9, dtype=torch.float64)
    contraction = Contraction(kind="conv1d", kernel=(3,), **options)
    flat = {name: (default, *options[name]) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))}
    vectors = unfold(x.numpy()[:, :, None], 1, (1, 3), flat)
    compare(weight, x, vectors, contraction, (cut(6, at), (4,)), (tile(dac=dac), effects(mvm)), 0)
